//! A fixed set of workers and two queues: `cargo run --example pool`

use multiproc::{Consumer, Process, Producer, queue};

/// The function of a worker. It runs until no process can put any more, and the queue is empty.
fn work(numbers: Consumer<u64>, sums: Producer<(u64, u64)>) {
    for n in numbers {
        let n = n.unwrap();
        let divisors = (1..=n).filter(|i| n.is_multiple_of(*i));
        sums.put((n, divisors.sum())).unwrap();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _runtime = multiproc::init();
    let (numbers, consumer) = queue::unbounded_channel()?;
    let (producer, sums) = queue::unbounded_channel()?;
    let workers = (0..multiproc::cpu_count())
        .map(|_| Process::spawn(work, (consumer.clone(), producer.clone())))
        .collect::<Result<Vec<_>, _>>()?;
    drop((consumer, producer)); // now the workers have the only ones

    numbers.put_many(1..=20)?;
    drop(numbers); // the workers end when they have done these, and then the sums end
    let mut sums = sums.iter().collect::<Result<Vec<_>, _>>()?;
    workers.into_iter().try_for_each(Process::join)?;
    sums.sort_unstable();
    for (n, sum) in sums {
        println!("the divisors of {n} add up to {sum}");
    }
    Ok(())
}
