//! Tests that spawn: `enable_in_tests!` in place of `init`, messages in place of sleeps.

use std::time::Duration;

use multiproc::{Consumer, JoinError, Process, Producer, TaskConsumer, queue};

// Once in each test program: a test program has no `main` of its own.
multiproc::enable_in_tests!();

/// Long enough for a slow machine, and short enough to notice a hang.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn child_doubles_numbers() {
    let (numbers, input) = queue::channel(4).unwrap();
    let (output, doubles) = queue::channel(4).unwrap();
    let child = Process::spawn(
        |numbers: Consumer<u32>, doubles: Producer<u32>| {
            for number in numbers {
                doubles.put(2 * number.unwrap()).unwrap();
            }
        },
        (input, output),
    )
    .unwrap();
    numbers.put(21).unwrap();
    assert_eq!(doubles.get_timeout(LIMIT).unwrap(), 42); // an error if the child has died
    drop(numbers); // ends the child
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
    let (tasks, work) = queue::tasks(4).unwrap();
    let (took, taken) = queue::channel(1).unwrap();
    tasks.put("task".to_owned()).unwrap();
    let worker = Process::spawn(
        |tasks: TaskConsumer<String>, took: Producer<()>| -> () {
            let _task = tasks.get().unwrap();
            took.put(()).unwrap();
            loop {
                std::thread::park(); // until it is killed
            }
        },
        (work.clone(), took),
    )
    .unwrap();
    taken.get_timeout(LIMIT).unwrap(); // a message, not a sleep: now the worker has the task
    worker.kill().unwrap();

    let task = work.get_timeout(LIMIT).unwrap();
    assert_eq!((&**task, task.attempt()), ("task", 2));
    task.task_done();
    tasks.join_timeout(LIMIT).unwrap();
    drop(worker); // it was killed on purpose, so its status is of no interest
}
