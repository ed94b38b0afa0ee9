//! A pool of workers that completes its work although workers are killed all the time.
//!
//! ```text
//! cargo run --release --example crash_proof
//! ```
//!
//! Four workers count the primes below two million, range by range. Meanwhile, every 20 ms, a
//! random worker is killed with SIGKILL and replaced. At the end, each range has been counted
//! exactly once, and the sum is right.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use multiproc::{JoinableQueue, Process, Producer, SpawnError, TaskConsumer, queue};

const WORKERS: usize = 4;
const STRETCH: u32 = 500;
const STRETCHES: u32 = 4000;
const PRIMES: usize = 148_933;
const INTERVAL: Duration = Duration::from_millis(20);

/// The ID of a task, and its result. A task that is done twice has the same ID both times.
type Count = (u64, usize);

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    // A task is not at fault when its worker is killed, so the number of attempts is unlimited.
    let (tasks, work) = JoinableQueue::builder().max_attempts(u32::MAX).build_tasks()?;
    let (results, counted) = queue::unbounded_channel()?;
    tasks.put_many((0..STRETCHES).map(|n| n * STRETCH))?;

    let start = || Process::spawn(count, (work.clone(), results.clone()));
    let mut workers = (0..WORKERS).map(|_| start()).collect::<Result<Vec<_>, SpawnError>>()?;
    let mut killed = 0;
    let mut next = Instant::now() + INTERVAL;
    // Waits until all tasks are done, with interruptions to kill workers.
    while tasks.join_timeout(next.saturating_duration_since(Instant::now())).is_err() {
        let worker = fastrand::usize(..WORKERS);
        workers[worker].kill()?;
        workers[worker] = start()?;
        killed += 1;
        next = Instant::now() + INTERVAL;
    }
    let mut counts = BTreeMap::new();
    let mut twice = 0;
    for result in counted.try_iter() {
        let (id, count) = result?;
        match counts.insert(id, count) {
            None => {}
            Some(before) => {
                assert_eq!(before, count, "the same stretch has the same primes");
                twice += 1;
            }
        }
    }
    let primes: usize = counts.values().sum();
    println!("workers killed: {killed}");
    println!("tasks: {STRETCHES}, delivered again: {}, done twice: {twice}", tasks.redelivered());
    println!("tasks done: {}, unfinished: {}", counts.len(), tasks.unfinished());
    println!("primes: {primes}");
    assert!(counts.len() == STRETCHES as usize && primes == PRIMES, "nothing is lost");
    Ok(())
}

/// The function of a worker. It runs until the main process has ended, or the worker is killed.
fn count(tasks: TaskConsumer<u32>, results: Producer<Count>) {
    for task in tasks {
        let Ok(task) = task else { return };
        let primes = (*task..*task + STRETCH).filter(|&n| is_prime(n)).count();
        let id = task.id();
        // A worker that is killed between the two steps leaves the result, and the task is
        // redelivered.
        if task.finish_with(&results, (id, primes)).is_err() {
            return;
        }
    }
}

fn is_prime(n: u32) -> bool {
    n > 1 && (2..).take_while(|i| i * i <= n).all(|i| !n.is_multiple_of(i))
}
