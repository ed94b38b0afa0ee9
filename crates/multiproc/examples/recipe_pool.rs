//! A pool by hand: workers that are replaced when they die, and tasks that survive them.

use std::error::Error;
use std::time::Duration;

use multiproc::{JoinableQueue, Process, Queue, Shutdown, SpawnError};

/// The id of a task, the number it was about, and the sum of that number's divisors.
type Results = Queue<(u64, u64, u64)>;

const TASKS: u64 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init(); // the first statement: a child runs its function here
    let tasks = JoinableQueue::builder().max_attempts(3).build()?;
    let results = Results::unbounded()?;
    tasks.put_many(1..=TASKS)?;

    let start = || Process::builder().daemon(true).spawn(work, (tasks.clone(), results.clone()));
    let mut workers =
        (0..multiproc::cpu_count()).map(|_| start()).collect::<Result<Vec<_>, SpawnError>>()?;

    // Until all tasks are done: replace the workers that have died.
    while tasks.join_timeout(Duration::from_millis(50)).is_err() {
        for worker in &mut workers {
            if !worker.is_alive() {
                eprintln!("worker {} died: {:?}", worker.pid(), worker.exit_status());
                *worker = start()?;
            }
        }
    }
    tasks.shutdown(Shutdown::Drain); // the workers' `iter` ends
    for worker in workers {
        worker.join()?;
    }

    // A task whose worker died between result and completion has two results with the same id.
    let mut sums = Vec::new();
    while let Ok(result) = results.try_get() {
        sums.push(result);
    }
    sums.sort_unstable();
    sums.dedup_by_key(|(id, ..)| *id);
    // A task that killed its worker three times has none.
    for letter in tasks.dead_letters()? {
        eprintln!("no result for {:?}: {:?}", letter.item(), letter.reason());
    }
    let total: u64 = sums.iter().map(|(.., sum)| sum).sum();
    println!("{} results, total {total}", sums.len());
    Ok(())
}

fn work((tasks, results): (JoinableQueue<u64>, Results)) {
    for task in tasks.iter() {
        let task = task.expect("the queue of tasks works");
        let (id, n) = (task.id(), *task);
        let sum = (1..=n).filter(|i| n.is_multiple_of(*i)).sum();
        // Puts the result, then completes the task. A kill in between repeats the task.
        task.finish_with(&results, (id, n, sum)).expect("the queue of results works");
    }
}
