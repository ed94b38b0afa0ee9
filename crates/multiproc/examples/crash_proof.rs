//! A pool of workers that are killed all the time, and work that is done nevertheless.
//!
//! ```text
//! cargo run --release --example crash_proof
//! ```
//!
//! Four workers count the primes below two million, a stretch at a time. Meanwhile a random one of
//! them is killed every 20 ms, with SIGKILL, and another one is started. At the end, each stretch has
//! been counted, no stretch counts twice, and the sum is right.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use multiproc::{JoinableQueue, Process, Queue, SpawnError};

const WORKERS: usize = 4;
const STRETCH: u32 = 500;
const STRETCHES: u32 = 4000;
const PRIMES: usize = 148_933;
const INTERVAL: Duration = Duration::from_millis(20);

/// A task's id, and what came of it: a task that is done twice has one id.
type Results = Queue<(u64, usize)>;

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    // None of them is to blame if its worker is killed, however often.
    let tasks = JoinableQueue::builder().max_attempts(u32::MAX).build()?;
    let results = Results::unbounded()?;
    tasks.put_many((0..STRETCHES).map(|n| n * STRETCH))?;

    let start = || Process::builder().daemon(true).spawn(work, (tasks.clone(), results.clone()));
    let mut workers = (0..WORKERS).map(|_| start()).collect::<Result<Vec<_>, SpawnError>>()?;
    let mut killed = 0;
    let mut next = Instant::now() + INTERVAL;
    // Waits until all tasks are done, but for the interruptions.
    while tasks.join_timeout(next.saturating_duration_since(Instant::now())).is_err() {
        let worker = fastrand::usize(..WORKERS);
        workers[worker].kill()?;
        workers[worker] = start()?;
        killed += 1;
        next = Instant::now() + INTERVAL;
    }
    tasks.shutdown(multiproc::Shutdown::Drain);

    let mut counts = BTreeMap::new();
    let mut twice = 0;
    while let Ok((id, count)) = results.try_get() {
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

/// What a worker does, until it is killed.
fn work((tasks, results): (JoinableQueue<u32>, Results)) {
    for task in tasks.iter() {
        let Ok(task) = task else { return };
        let primes = (*task..*task + STRETCH).filter(|&n| is_prime(n)).count();
        let id = task.id();
        // Killed between the two, it leaves the result, and the task comes again.
        if task.finish_with(&results, (id, primes)).is_err() {
            return;
        }
    }
}

fn is_prime(n: u32) -> bool {
    n > 1 && (2..).take_while(|i| i * i <= n).all(|i| !n.is_multiple_of(i))
}
