//! Compares joinable queues with plain ones, and measures the cost of killed workers.
//!
//! Items are structs of 64 bytes, and a queue holds 1024 of them. Each ratio is of two turns of the
//! same round. The second part measures absolute values: how long it takes until another worker has
//! the task of a dead one, and whether workers that are killed complete a million tasks.

use std::collections::HashMap;
use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

use multiproc::pipe::{Connection, Receiver, duplex};
use multiproc::{JoinableQueue, Process, Queue, Shutdown};
use multiproc_benches::item::Item;
use multiproc_benches::other::{Other, obey};
use multiproc_benches::rounds::{Contest, median};
use multiproc_testkit::{is_asleep, until};

const CAPACITY: usize = 1024;

fn one_to_one() {
    let queue = Queue::bounded(CAPACITY).unwrap();
    let plain = Other::start(
        |(orders, queue): (_, Queue<Item>)| {
            obey(&orders, |id| queue.put(Item::new(black_box(id))).unwrap());
        },
        queue.clone(),
    );
    let tasks = JoinableQueue::bounded(CAPACITY).unwrap();
    let joinable = Other::start(
        |(orders, tasks): (_, JoinableQueue<Item>)| {
            obey(&orders, |id| tasks.put(Item::new(black_box(id))).unwrap());
        },
        tasks.clone(),
    );
    Contest::new("1 producer, 1 worker", "Queue: put, get", |count| {
        plain.time(count, |id| assert_eq!(black_box(queue.get().unwrap()).id, id))
    })
    .with("JoinableQueue: put, get, task_done", |count| {
        joinable.time(count, |id| {
            let task = tasks.get().unwrap();
            assert_eq!(black_box(&*task).id, id);
            task.task_done();
        })
    })
    .run();
    [plain, joinable].into_iter().for_each(Other::stop);
}

fn four_to_four() {
    const SIDES: usize = 4;
    let (queue, tasks) =
        (Queue::bounded(CAPACITY).unwrap(), JoinableQueue::bounded(CAPACITY).unwrap());
    let done = Queue::unbounded().unwrap();
    let plain_producers = (0..SIDES).map(|_| {
        Other::start(
            |(orders, queue): (_, Queue<Item>)| {
                obey(&orders, |id| queue.put(Item::new(black_box(id))).unwrap());
            },
            queue.clone(),
        )
    });
    let plain_consumers = (0..SIDES).map(|_| {
        Other::start(
            |(orders, (queue, done)): (Receiver<u64>, (Queue<Item>, Queue<()>))| {
                while let Ok(count) = orders.recv() {
                    (0..count).for_each(|_| _ = black_box(queue.get().unwrap()));
                    done.put(()).unwrap();
                }
            },
            (queue.clone(), done.clone()),
        )
    });
    let producers = (0..SIDES).map(|_| {
        Other::start(
            |(orders, tasks): (_, JoinableQueue<Item>)| {
                obey(&orders, |id| tasks.put(Item::new(black_box(id))).unwrap());
            },
            tasks.clone(),
        )
    });
    let workers = (0..SIDES).map(|_| {
        Other::start(
            |(orders, (tasks, done)): (Receiver<u64>, (JoinableQueue<Item>, Queue<()>))| {
                while let Ok(count) = orders.recv() {
                    for _ in 0..count {
                        let task = tasks.get().unwrap();
                        black_box(&*task);
                        task.task_done();
                    }
                    done.put(()).unwrap();
                }
            },
            (tasks.clone(), done.clone()),
        )
    });
    let plain: Vec<_> = plain_consumers.chain(plain_producers).collect();
    let joinable: Vec<_> = workers.chain(producers).collect();
    let run = |others: &[Other], count: u64| {
        let start = Instant::now();
        others.iter().for_each(|other| other.order(count.div_ceil(SIDES as u64)));
        (0..SIDES).for_each(|_| done.get().unwrap());
        start.elapsed()
    };
    Contest::new("4 producers, 4 workers", "Queue: put, get", |count| run(&plain, count))
        .with("JoinableQueue: put, get, task_done", |count| run(&joinable, count))
        .run();
    plain.into_iter().chain(joinable).for_each(Other::stop);
}

/// Measures the time from the kill of a worker with a task until a sleeping worker has that task.
fn delivered_again() {
    let rounds = if is_test() { 2 } else { 200 };
    let mut times = Vec::new();
    for _ in 0..rounds {
        let tasks = JoinableQueue::bounded(CAPACITY).unwrap();
        tasks.put(Item::new(1)).unwrap();
        let take = |(tasks, parent): (JoinableQueue<Item>, Connection<(), ()>)| {
            let task = tasks.get().unwrap();
            parent.send(()).unwrap();
            let _ = parent.recv();
            task.task_done();
        };
        let start = || {
            let (ours, theirs) = duplex().unwrap();
            (Process::spawn(take, (tasks.clone(), theirs)).unwrap(), ours)
        };
        let (doomed, has_it) = start();
        has_it.recv().unwrap();
        let (heir, has_it) = start();
        until(|| is_asleep(heir.pid()));
        // At any time within its recheck interval.
        std::thread::sleep(Duration::from_millis(fastrand::u64(..250)));
        let start = Instant::now();
        doomed.kill().unwrap();
        has_it.recv().unwrap();
        times.push(1e3 * start.elapsed().as_secs_f64());
        has_it.send(()).unwrap();
        heir.join().unwrap();
        doomed.wait();
    }
    let worst = times.iter().copied().fold(0.0, f64::max);
    println!(
        "\n| SIGKILL of a worker until another has its task, {rounds} times | ms |\n|---|---|"
    );
    println!("| median | {:.0} |\n| worst | {worst:.0} |", median(times.into_iter()));
}

/// The result of a run with workers that are killed.
#[derive(Default)]
struct Run {
    time: Duration,
    killed: u64,
    redelivered: u64,
    done: u64,
    more_than_once: u64,
    /// The number of those with two results of the same attempt.
    twice_in_one: u64,
}

/// Runs a million tasks with four workers, one of which is killed every 50 ms.
fn killed_workers() {
    let (count, rounds) = if is_test() { (1000, 1) } else { (1_000_000, 20) };
    let mut sum = Run::default();
    for _ in 0..rounds {
        let run = with_killed_workers(count);
        sum.time += run.time;
        sum.killed += run.killed;
        sum.redelivered += run.redelivered;
        sum.done += run.done;
        sum.more_than_once += run.more_than_once;
        sum.twice_in_one += run.twice_in_one;
    }
    println!(
        "\n| {rounds} runs of {count} tasks, 4 workers, one killed every 50 ms | |\n|---|---|"
    );
    println!("| seconds | {:.2} |\n| killed workers | {} |", sum.time.as_secs_f64(), sum.killed);
    println!("| redelivered tasks | {} |\n| completed tasks | {} |", sum.redelivered, sum.done);
    println!("| completed more than once | {} |", sum.more_than_once);
    assert_eq!((sum.done, sum.twice_in_one), (count * rounds, 0));
}

fn with_killed_workers(count: u64) -> Run {
    let tasks = JoinableQueue::builder().capacity(CAPACITY).max_attempts(1000).build().unwrap();
    let results = Queue::<(u64, u32)>::unbounded().unwrap();
    let work = |(tasks, results): (JoinableQueue<Item>, Queue<(u64, u32)>)| {
        for task in tasks.iter() {
            let task = task.unwrap();
            let result = (task.id, task.attempt());
            task.finish_with(&results, result).unwrap();
        }
    };
    let start_worker = || Process::spawn(work, (tasks.clone(), results.clone())).unwrap();
    let mut workers: Vec<_> = (0..4).map(|_| start_worker()).collect();
    let start = Instant::now();
    let put = |(tasks, count): (JoinableQueue<Item>, u64)| {
        (0..count).for_each(|id| tasks.put(Item::new(id)).unwrap());
        tasks.join().unwrap();
    };
    let producer = Process::spawn(put, (tasks.clone(), count)).unwrap();
    let mut run = Run::default();
    while producer.wait_timeout(Duration::from_millis(50)).is_none() {
        let place = fastrand::usize(..4);
        workers[place].kill().unwrap();
        workers[place].wait();
        workers[place] = start_worker();
        run.killed += 1;
    }
    run.time = start.elapsed();
    producer.join().unwrap();
    tasks.shutdown(Shutdown::Drain);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let mut attempts: HashMap<u64, Vec<u32>> = HashMap::new();
    while let Ok((id, attempt)) = results.try_get() {
        attempts.entry(id).or_default().push(attempt);
    }
    run.redelivered = tasks.redelivered();
    run.done = attempts.len() as u64;
    for mut attempts in attempts.into_values().filter(|attempts| attempts.len() > 1) {
        run.more_than_once += 1;
        attempts.sort_unstable();
        run.twice_in_one += u64::from(attempts.windows(2).any(|two| two[0] == two[1]));
    }
    assert_eq!(tasks.died(), 0);
    run
}

fn is_test() -> bool {
    env::args().any(|arg| arg == "--test")
}

fn main() {
    let _runtime = multiproc::init();
    multiproc_benches::run(&[
        ("one_to_one", one_to_one),
        ("four_to_four", four_to_four),
        ("delivered_again", delivered_again),
        ("killed_workers", killed_workers),
    ]);
}
