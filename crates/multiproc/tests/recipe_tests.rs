//! Tests that spawn: `enable_in_tests!` in place of `init`, messages in place of sleeps.

use std::time::Duration;

use multiproc::{JoinError, JoinableQueue, Process, Queue};

// Once in each test program: a test program has no `main` of its own.
multiproc::enable_in_tests!();

/// Long enough for a slow machine, and short enough to notice a hang.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn child_doubles_numbers() {
    let (numbers, doubles) = (Queue::bounded(4).unwrap(), Queue::bounded(4).unwrap());
    let child = Process::spawn(
        |(numbers, doubles): (Queue<u32>, Queue<u32>)| {
            let number = numbers.get().unwrap();
            doubles.put(2 * number).unwrap();
        },
        (numbers.clone(), doubles.clone()),
    )
    .unwrap();
    numbers.put(21).unwrap();
    assert_eq!(doubles.get_timeout(LIMIT).unwrap(), 42);
    child.join_timeout(LIMIT).unwrap();
}

#[test]
fn panicking_child_is_reported() {
    let child = Process::spawn(|()| -> () { panic!("out of cheese") }, ()).unwrap();
    let Err(JoinError::Panicked { message, .. }) = child.join() else {
        panic!("the child panics");
    };
    assert_eq!(message, "out of cheese");
}

#[test]
fn killed_worker_loses_no_task() {
    let tasks = JoinableQueue::bounded(4).unwrap();
    let taken = Queue::bounded(1).unwrap();
    tasks.put("task".to_owned()).unwrap();
    let worker = Process::spawn(
        |(tasks, taken): (JoinableQueue<String>, Queue<()>)| -> () {
            let _task = tasks.get().unwrap();
            taken.put(()).unwrap();
            loop {
                std::thread::park(); // until it is killed
            }
        },
        (tasks.clone(), taken.clone()),
    )
    .unwrap();
    taken.get_timeout(LIMIT).unwrap(); // a message, not a sleep: now the worker has the task
    worker.kill().unwrap();

    let task = tasks.get_timeout(LIMIT).unwrap();
    assert_eq!((&**task, task.attempt()), ("task", 2));
    task.task_done();
    tasks.join_timeout(LIMIT).unwrap();
    drop(worker); // it was killed on purpose, so its status is of no interest
}
