//! A fixed set of workers and two queues: `cargo run --example pool`

use multiproc::{Process, Queue};

type Tasks = Queue<Option<u64>>;
type Results = Queue<(u64, u64)>;

/// The function of a worker. It runs until it gets `None`.
fn work((tasks, results): (Tasks, Results)) {
    while let Some(n) = tasks.get().unwrap() {
        let divisors = (1..=n).filter(|i| n.is_multiple_of(*i));
        results.put((n, divisors.sum())).unwrap();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _runtime = multiproc::init();
    let (tasks, results) = (Tasks::bounded(100)?, Results::bounded(100)?);
    let start = || Process::builder().daemon(true).spawn(work, (tasks.clone(), results.clone()));
    let workers = (0..multiproc::cpu_count()).map(|_| start()).collect::<Result<Vec<_>, _>>()?;

    (1..=20).try_for_each(|n| tasks.put(Some(n)))?;
    let mut sums = (1..=20).map(|_| results.get()).collect::<Result<Vec<_>, _>>()?;
    sums.sort_unstable();
    for (n, sum) in sums {
        println!("the divisors of {n} add up to {sum}");
    }
    workers.iter().try_for_each(|_| tasks.put(None))?;
    Ok(workers.into_iter().try_for_each(Process::join)?)
}
