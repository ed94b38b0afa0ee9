//! Joining a queue of tasks whose workers are gone: the process that joins is told.

mod common;

use std::thread;
use std::time::Duration;

use multiproc::Process;
use multiproc::pipe::{Connection, duplex};
use multiproc_queue::{
    DeathReason, JoinTasksError, JoinTasksTimeoutError, JoinableQueue, Queue, Shutdown,
    TaskConsumer, TaskProducer, tasks, unbounded_tasks,
};
use multiproc_testkit::{Census, alone, watchdog};

use common::{RECOVERY, SOON, within};

multiproc::enable_in_tests!();

const MOMENT: Duration = Duration::from_millis(20);

/// How a worker ends at the task 7.
const WAYS: [fn(); 3] =
    [|| panic!("a bug in the worker"), || std::process::abort(), || std::process::exit(3)];

fn work((tasks, way): (TaskConsumer<u32>, usize)) {
    for task in tasks {
        let task = task.unwrap();
        if *task == 7 {
            WAYS[way]();
        }
        task.task_done();
    }
}

fn spawn_workers(count: usize, consumer: &TaskConsumer<u32>, way: usize) -> Vec<Process<()>> {
    (0..count).map(|_| Process::spawn(work, (consumer.clone(), way)).unwrap()).collect()
}

/// Holds a task until the parent is gone, or sends a byte.
fn hold((tasks, parent): (TaskConsumer<u32>, Connection<(), ()>)) {
    let task = tasks.get().unwrap();
    parent.send(()).unwrap();
    if parent.recv().is_ok() {
        task.task_done();
    }
}

fn holder(consumer: TaskConsumer<u32>) -> (Process<()>, Connection<(), ()>) {
    let (ours, theirs) = duplex().unwrap();
    let child = Process::spawn(hold, (consumer, theirs)).unwrap();
    ours.recv().unwrap();
    (child, ours)
}

fn left(result: Result<(), JoinTasksError>) -> usize {
    match result {
        Err(JoinTasksError::NoWorkers { left }) => left,
        other => panic!("{other:?}"),
    }
}

#[test]
fn join_reports_that_a_task_has_killed_all_workers() {
    let _dog = watchdog();
    for way in 0..WAYS.len() {
        let (producer, consumer) = unbounded_tasks().unwrap();
        producer.put_many(0..100).unwrap();
        let workers = spawn_workers(4, &consumer, way);
        drop(consumer);
        let left = left(producer.join());
        assert!((1..=93).contains(&left), "{left}");
        assert_eq!((producer.unfinished(), producer.dead_letters_len()), (left, 0));
        workers.into_iter().for_each(|worker| assert!(worker.join().is_err()));
        assert_eq!(self::left(producer.join()), left, "the answer stays");
        assert!(producer.put(1).unwrap_err().is_disconnected());
        assert_eq!((producer.unfinished(), producer.len()), (left, 0));
    }
}

#[test]
fn task_that_kills_its_workers_becomes_a_dead_letter_before_all_are_dead() {
    let _dog = watchdog();
    let (producer, consumer) = JoinableQueue::builder().max_attempts(2).build_tasks().unwrap();
    producer.put_many(0..100).unwrap();
    let workers = spawn_workers(4, &consumer, 1);
    drop(consumer);
    producer.join().unwrap();
    let letters = producer.dead_letters().unwrap();
    assert_eq!((letters[0].item(), letters[0].attempts()), (Some(&7), 2));
    assert_eq!((letters[0].reason(), letters.len()), (&DeathReason::Attempts, 1));
    drop((letters, producer));
    let ended = workers.into_iter().map(Process::join);
    assert_eq!(ended.filter(Result::is_ok).count(), 2);
}

/// The last worker dies of the last attempt: nothing is left. The dead letter stays when the queue
/// discards what no process can get.
#[test]
fn dead_letters_are_not_left() {
    let _dog = watchdog();
    for way in 0..WAYS.len() {
        let queue = JoinableQueue::builder().max_attempts(2);
        let (producer, consumer) = queue.build_tasks().unwrap();
        producer.put(7).unwrap();
        let workers = spawn_workers(2, &consumer, way);
        drop(consumer);
        producer.join().unwrap();
        workers.into_iter().for_each(|worker| assert!(worker.join().is_err()));
        assert!(producer.put(1).unwrap_err().is_disconnected());
        assert_eq!((producer.len(), producer.unfinished()), (0, 0));
        assert_eq!((producer.dead_letters_len(), producer.died()), (1, 1));
        producer.join().unwrap();
        assert_eq!(producer.dead_letters().unwrap().pop().unwrap().take(), Some(7));
    }
}

#[test]
fn killed_workers_end_a_join_within_a_second() {
    let _dog = watchdog();
    let (producer, consumer) = unbounded_tasks().unwrap();
    producer.put_many(0..5).unwrap();
    let holders = [(); 3].map(|()| holder(consumer.clone()));
    drop(consumer);
    let joiner = {
        let producer = producer.clone();
        thread::spawn(move || producer.join())
    };
    assert_eq!(producer.join_timeout(MOMENT), Err(JoinTasksTimeoutError::Timeout));
    holders.iter().for_each(|(child, _)| child.kill().unwrap());
    within(RECOVERY, || assert_eq!(left(joiner.join().unwrap()), 5));
    assert_eq!(
        producer.join_timeout(Duration::ZERO),
        Err(JoinTasksTimeoutError::NoWorkers { left: 5 })
    );
}

#[test]
fn dropped_consumer_ends_a_join() {
    let _dog = watchdog();
    let (producer, consumer) = tasks(4).unwrap();
    producer.put_many(0..3).unwrap();
    let joiner = {
        let producer = producer.clone();
        thread::spawn(move || producer.join())
    };
    assert!(producer.join_timeout(MOMENT).unwrap_err().is_timeout());
    // The worker does one task, and drops its handle.
    consumer.get().unwrap().task_done();
    drop(consumer.get().unwrap());
    drop(consumer);
    assert_eq!(left(joiner.join().unwrap()), 2);
    assert!(producer.join_timeout(Duration::MAX).unwrap_err().is_no_workers());
}

#[test]
fn workers_that_end_after_their_last_task_do_not_fail_a_join() {
    let _dog = watchdog();
    for _ in 0..20 {
        let (producer, consumer) = unbounded_tasks().unwrap();
        producer.put_many(10..20).unwrap();
        let once = |tasks: TaskConsumer<u32>| {
            tasks.try_iter().for_each(|task| task.unwrap().task_done());
        };
        let workers = [(); 2].map(|()| Process::spawn(once, consumer.clone()).unwrap());
        drop(consumer);
        producer.join().unwrap();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    }
}

/// A handle that no process has opened yet can still get.
#[test]
fn consumer_on_its_way_counts() {
    let _dog = watchdog();
    let timeout = Err(JoinTasksTimeoutError::Timeout);
    let new = || {
        let (producer, consumer) = tasks::<u32>(4).unwrap();
        producer.put(1).unwrap();
        (producer, consumer)
    };
    // In a message.
    let (producer, consumer) = new();
    let (left, right) = duplex::<TaskConsumer<u32>, ()>().unwrap();
    left.send(consumer).unwrap();
    assert_eq!(producer.join_timeout(MOMENT), timeout);
    drop((left, right));
    assert!(producer.join().unwrap_err().is_no_workers());
    // In an item of another queue.
    let (producer, consumer) = new();
    let other = Queue::bounded(1).unwrap();
    other.put(consumer).unwrap();
    assert_eq!(producer.join_timeout(MOMENT), timeout);
    other.get().unwrap().get().unwrap().task_done();
    producer.join().unwrap();
    // In the arguments of a process that was just started.
    let (producer, consumer) = new();
    let worker = Process::spawn(work, (consumer, 0)).unwrap();
    producer.join().unwrap();
    drop(producer);
    worker.join().unwrap();
    // As a handle that can do both.
    let (producer, consumer) = new();
    let queue = JoinableQueue::<u32>::unbounded().unwrap();
    queue.put(1).unwrap();
    let half = queue.clone().into_producer();
    assert_eq!(half.join_timeout(MOMENT), timeout);
    assert_eq!(queue.join_timeout(MOMENT), timeout, "it could get itself");
    drop((queue, consumer));
    assert!(half.join().unwrap_err().is_no_workers());
    assert!(producer.join().unwrap_err().is_no_workers());
}

#[test]
fn task_or_receipt_in_progress_counts() {
    let _dog = watchdog();
    let (producer, consumer) = tasks(4).unwrap();
    producer.put_many(0..2).unwrap();
    let (_, receipt) = consumer.get().unwrap().into_parts();
    let (_, other) = consumer.get().unwrap().into_parts();
    drop(consumer);
    assert!(producer.join_timeout(MOMENT).unwrap_err().is_timeout());
    receipt.task_done();
    drop(other);
    assert_eq!(left(producer.join()), 1);
}

/// Detached tasks are done through a handle that gets, and there is none.
#[test]
fn detached_tasks_without_a_consumer_are_left() {
    let _dog = watchdog();
    let (producer, consumer) = tasks(4).unwrap();
    producer.put(1).unwrap();
    let _item = consumer.get().unwrap().detach();
    drop(consumer);
    within(RECOVERY, || assert_eq!(left(producer.join()), 1));
}

#[test]
fn join_after_the_end_of_putting_reports_that_no_worker_is_left() {
    let _dog = watchdog();
    let ways: [fn(&TaskProducer<u32>); 2] =
        [TaskProducer::close, |producer| producer.shutdown(Shutdown::Drain)];
    for end in ways {
        let (producer, consumer) = unbounded_tasks().unwrap();
        producer.put_many(0..3).unwrap();
        let (child, _parent) = holder(consumer);
        end(&producer);
        assert!(producer.join_timeout(MOMENT).unwrap_err().is_timeout());
        child.kill().unwrap();
        within(RECOVERY, || assert_eq!(left(producer.join()), 3));
        // And if all is done, it is.
        let (producer, consumer) = unbounded_tasks().unwrap();
        producer.put(1).unwrap();
        let (child, parent) = holder(consumer);
        end(&producer);
        parent.send(()).unwrap();
        producer.join().unwrap();
        child.join().unwrap();
    }
}

#[test]
fn join_after_a_discarding_shutdown_returns() {
    let _dog = watchdog();
    let (producer, consumer) = unbounded_tasks().unwrap();
    producer.put_many(0..3).unwrap();
    let (child, _parent) = holder(consumer);
    producer.shutdown(Shutdown::Now);
    child.kill().unwrap();
    within(RECOVERY, || producer.join().unwrap());
}

/// A put that succeeds is counted, whenever the end of the last worker is noticed.
#[test]
fn tasks_that_were_put_meanwhile_are_left() {
    let _dog = watchdog();
    let (producer, consumer) = unbounded_tasks().unwrap();
    producer.put(0).unwrap();
    let (child, _parent) = holder(consumer);
    let second = producer.clone();
    let putter = thread::spawn(move || (0..).take_while(|&n| second.put(n).is_ok()).count());
    child.kill().unwrap();
    let put = putter.join().unwrap();
    assert_eq!((left(producer.join()), producer.len()), (put + 1, 0));
}

/// The other handles of the queue were closed by a process that lives on.
#[test]
fn join_in_another_process_reports_the_same() {
    let _dog = watchdog();
    let (producer, consumer) = unbounded_tasks().unwrap();
    producer.put_many(0..3).unwrap();
    let join = |producer: TaskProducer<u32>| producer.join().is_err_and(|e| e.is_no_workers());
    let joiner = Process::spawn(join, producer).unwrap();
    let (child, _parent) = holder(consumer);
    child.kill().unwrap();
    within(SOON, || assert!(joiner.join().unwrap()));
}

#[test]
fn dropped_ends_of_tasks_leak_nothing() {
    alone(|()| {
        let before = Census::take();
        for n in 0..200 {
            let (producer, consumer) = unbounded_tasks().unwrap();
            let (left, right) = duplex::<(TaskProducer<u32>, TaskConsumer<u32>), ()>().unwrap();
            left.send((producer, consumer)).unwrap();
            let (producer, consumer) = right.recv().unwrap();
            producer.put(n).unwrap();
            drop(consumer);
            assert!(producer.join().unwrap_err().is_no_workers());
        }
        assert_eq!(Census::take(), before);
    });
}
