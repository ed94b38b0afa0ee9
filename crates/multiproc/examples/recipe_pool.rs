//! A pool by hand: workers that are replaced when they die, and tasks that survive them.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use multiproc::queue::FinishError;
use multiproc::{Process, Producer, RemoteError, TaskConsumer, queue};

/// The id of a task, and the sum of the divisors of its number.
type Answer = (u64, u64);

const TASKS: u64 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init(); // the first statement: a child runs its function here
    let (tasks, work) = queue::unbounded_tasks()?;
    let (answers, results) = queue::unbounded_channel()?;
    tasks.put_many(1..=TASKS)?;

    let start = || Process::spawn(add_divisors, (work.clone(), answers.clone()));
    let mut workers =
        (0..multiproc::cpu_count()).map(|_| start()).collect::<Result<Vec<_>, _>>()?;

    // Until all tasks are done: replace the workers that have died.
    while tasks.join_timeout(Duration::from_millis(50)).is_err() {
        for worker in &mut workers {
            if let Some(status) = worker.exit_status() {
                eprintln!("worker {} ended: {status}", worker.pid());
                *worker = start()?;
            }
        }
    }

    // A task whose worker died between the result and the completion has two results.
    let mut sums = BTreeMap::new();
    while let Ok((id, sum)) = results.try_get() {
        sums.insert(id, sum);
    }
    // A task that killed its worker 16 times has none.
    for letter in tasks.dead_letters()? {
        eprintln!("no result for {:?}: {:?}", letter.item(), letter.reason());
    }
    println!("{} results, total {}", sums.len(), sums.values().sum::<u64>());
    // Dropping `tasks` ends the workers: no process can put any more.
    Ok(())
}

fn add_divisors(tasks: TaskConsumer<u64>, answers: Producer<Answer>) -> Result<(), RemoteError> {
    for task in tasks {
        let task = task?;
        let (id, n) = (task.id(), *task);
        let sum = (1..=n).filter(|i| n.is_multiple_of(*i)).sum();
        // Puts the result, then completes the task. A kill in between repeats the task.
        task.finish_with(&answers, (id, sum)).map_err(FinishError::into_owned)?;
    }
    Ok(())
}
