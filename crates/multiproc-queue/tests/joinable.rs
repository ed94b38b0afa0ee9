//! Tasks, and the death of the processes that have them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Connection, duplex};
use multiproc_queue::{
    DeathReason, JoinTasksError, JoinTasksTimeoutError, JoinableQueue, Queue, Receipt,
    TooManyTaskDone,
};
use multiproc_testkit::{is_asleep, until, watchdog};

multiproc::enable_in_tests!();

/// The guaranteed bound.
const RECOVERY: Duration = Duration::from_secs(1);

#[test]
fn task_is_completed_or_redelivered() {
    let _dog = watchdog();
    let jobs = JoinableQueue::bounded(10).unwrap();
    (0..3).for_each(|n| jobs.put(n).unwrap());
    assert_eq!((jobs.len(), jobs.unfinished()), (3, 3));
    let first = jobs.get().unwrap();
    assert_eq!((*first, first.attempt(), first.id()), (0, 1, 0));
    assert_eq!((jobs.len(), jobs.unfinished()), (2, 3));
    drop(first);
    assert_eq!((jobs.len(), jobs.unfinished()), (3, 3));
    jobs.put(3).unwrap();
    // Behind the queued tasks, but before those that were put later.
    let order: Vec<_> = (0..4)
        .map(|_| {
            let task = jobs.get().unwrap();
            let seen = (*task, task.attempt());
            task.task_done();
            seen
        })
        .collect();
    assert_eq!(order, [(1, 1), (2, 1), (0, 2), (3, 1)]);
    assert_eq!(jobs.unfinished(), 0);
    jobs.join().unwrap();
    assert!(jobs.try_get().unwrap_err().is_empty());
    assert_eq!((jobs.redelivered(), jobs.died()), (1, 0));
}

#[test]
fn detached_task_is_done_later() {
    let jobs = JoinableQueue::unbounded().unwrap();
    assert_eq!(jobs.task_done(), Err(TooManyTaskDone));
    jobs.put("a".to_owned()).unwrap();
    jobs.put("b".to_owned()).unwrap();
    let a = jobs.get().unwrap().detach();
    let held = jobs.get().unwrap();
    assert_eq!(a, "a");
    assert_eq!(jobs.unfinished(), 2);
    jobs.task_done().unwrap();
    assert_eq!(jobs.task_done(), Err(TooManyTaskDone), "the other one is not detached");
    assert_eq!(jobs.unfinished(), 1);
    held.task_done();
    jobs.join().unwrap();
}

/// No call names its task, so they are done when all are.
#[test]
fn detached_tasks_are_completed_when_all_are_counted() {
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..4).unwrap();
    let clone = jobs.clone();
    let (ours, theirs) = duplex::<JoinableQueue<u32>, ()>().unwrap();
    ours.send(jobs.clone()).unwrap();
    let received = theirs.retype::<(), JoinableQueue<u32>>().recv().unwrap();
    let _detached = [&jobs, &clone, &received].map(|handle| handle.get().unwrap().detach());
    for handle in [&received, &jobs] {
        handle.task_done().unwrap();
        assert_eq!(jobs.unfinished(), 4);
    }
    // One more task, before they are completed.
    let _another = jobs.get().unwrap().detach();
    clone.task_done().unwrap();
    assert_eq!(jobs.unfinished(), 4);
    jobs.task_done().unwrap();
    assert_eq!(jobs.unfinished(), 0);
    assert_eq!(received.task_done(), Err(TooManyTaskDone));
    jobs.join().unwrap();
}

#[test]
fn receipt_completes_its_own_task_on_any_thread() {
    fn is_sent_to_threads<T: Send + 'static>(_: &T) {}
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..3).unwrap();
    let mut parts: Vec<_> = (0..3).map(|_| jobs.get().unwrap().into_parts()).collect();
    let (item, receipt) = parts.remove(1);
    is_sent_to_threads(&receipt);
    assert_eq!((item, receipt.id(), receipt.attempt()), (1, 1, 1));
    assert_eq!(format!("{receipt:?}"), "Receipt { id: 1, attempt: 1, .. }");
    std::thread::spawn(|| receipt.task_done()).join().unwrap();
    assert_eq!((jobs.unfinished(), jobs.len()), (2, 0));
    // They are not among the counted ones.
    assert_eq!(jobs.task_done(), Err(TooManyTaskDone));
    let (first, last) = (parts.remove(0).1, parts.remove(0).1);
    std::thread::spawn(|| drop(last)).join().unwrap();
    first.put_back();
    let back: Vec<_> = (0..2).map(|_| jobs.get().unwrap()).collect();
    let seen: Vec<_> = back.iter().map(|task| (**task, task.id(), task.attempt())).collect();
    assert_eq!(seen, [(0, 0, 2), (2, 2, 2)]);
    back.into_iter().for_each(multiproc_queue::Task::task_done);
    jobs.join().unwrap();
}

/// A receipt may be anywhere in the process, so it is not known whether this thread waits for
/// itself.
#[test]
fn join_waits_for_unused_receipts() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().max_attempts(1).build().unwrap();
    jobs.put_many(0..2).unwrap();
    let (_, first) = jobs.get().unwrap().into_parts();
    let (_, second) = jobs.get().unwrap().into_parts();
    assert_eq!(jobs.join_timeout(Duration::from_millis(20)), Err(JoinTasksTimeoutError::Timeout));
    let join = |jobs: JoinableQueue<u32>| jobs.join().unwrap();
    let joiner = Process::spawn(join, jobs.clone()).unwrap();
    until(|| is_asleep(joiner.pid()));
    first.task_done();
    drop(second); // that was its last attempt
    joiner.join().unwrap();
    assert_eq!(jobs.dead_letters_len(), 1);
}

/// Kills a worker that has two tasks and has completed the newer one.
fn killed_after_the_newer(
    jobs: &JoinableQueue<String>,
    complete: impl FnOnce((JoinableQueue<String>, Connection<(), ()>)) + 'static,
) -> Vec<(String, u32)> {
    jobs.put_many(["A".to_owned(), "B".to_owned()]).unwrap();
    let (ours, theirs) = duplex().unwrap();
    let worker = Process::spawn(complete, (jobs.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    worker.kill().unwrap();
    worker.wait();
    let again = std::iter::from_fn(|| {
        let task = jobs.get_timeout(RECOVERY).ok()?;
        let seen = (task.clone(), task.attempt());
        task.task_done();
        Some(seen)
    });
    let again = again.collect();
    jobs.join().unwrap();
    again
}

#[test]
fn unused_receipt_of_a_killed_process_puts_its_task_back() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    let again = killed_after_the_newer(&jobs, |(jobs, parent)| {
        let (_a, _first) = jobs.get().unwrap().into_parts();
        let (_b, second): (_, Receipt) = jobs.get().unwrap().into_parts();
        second.task_done();
        parent.send(()).unwrap();
        let _ = parent.recv();
    });
    assert_eq!(again, [("A".to_owned(), 2)]);
}

#[test]
fn detached_tasks_of_a_killed_worker_are_redelivered_unless_all_counted() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    let again = killed_after_the_newer(&jobs, |(jobs, parent)| {
        let _a = jobs.get().unwrap().detach();
        let _b = jobs.get().unwrap().detach();
        jobs.task_done().unwrap(); // meant for B, which the queue cannot know
        parent.send(()).unwrap();
        let _ = parent.recv();
    });
    assert_eq!(again, [("A".to_owned(), 2), ("B".to_owned(), 2)]);
}

#[test]
fn join_by_a_thread_with_a_task_is_refused() {
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put(1).unwrap();
    let task = jobs.get().unwrap();
    assert_eq!(jobs.join(), Err(JoinTasksError::InTask));
    // Another thread of the process can join.
    std::thread::scope(|scope| {
        let other = scope.spawn(|| jobs.join_timeout(Duration::from_millis(20)));
        assert_eq!(other.join().unwrap(), Err(JoinTasksTimeoutError::Timeout));
    });
    task.task_done();
    jobs.join().unwrap();
}

#[test]
fn tasks_of_a_killed_worker_are_redelivered_to_others() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..10).unwrap();
    let take = |(jobs, parent): (JoinableQueue<u32>, Connection<(), ()>)| {
        let _held = [jobs.get().unwrap(), jobs.get().unwrap()];
        let _detached = jobs.get().unwrap().detach();
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let (ours, theirs) = duplex().unwrap();
    let doomed = Process::spawn(take, (jobs.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    doomed.kill().unwrap();
    doomed.wait();
    let start = Instant::now();
    let tasks: Vec<_> = (0..10).map(|_| jobs.get().unwrap()).collect();
    assert!(start.elapsed() < RECOVERY);
    let seen: Vec<_> = tasks.iter().map(|task| (**task, task.attempt())).collect();
    let expected: Vec<_> = (3..10).map(|n| (n, 1)).chain((0..3).map(|n| (n, 2))).collect();
    assert_eq!(seen, expected);
    tasks.into_iter().for_each(multiproc_queue::Task::task_done);
    jobs.join().unwrap();
}

#[test]
fn join_waits_for_all_tasks() {
    let _dog = watchdog();
    let jobs = JoinableQueue::bounded(4).unwrap();
    let results = Queue::unbounded().unwrap();
    let work = |(jobs, results): (JoinableQueue<u64>, Queue<u64>)| {
        while let Ok(task) = jobs.get() {
            let square = *task * *task;
            task.finish_with(&results, square).unwrap();
        }
    };
    let workers: Vec<_> =
        (0..3).map(|_| Process::spawn(work, (jobs.clone(), results.clone())).unwrap()).collect();
    for _ in 0..20 {
        jobs.put_many(0..50).unwrap();
        jobs.join().unwrap();
        let got: BTreeSet<_> = (0..50).map(|_| results.try_get().unwrap()).collect();
        assert_eq!(got, (0..50).map(|n| n * n).collect());
        assert!(results.is_empty() && jobs.unfinished() == 0);
    }
    jobs.shutdown(multiproc_queue::Shutdown::Drain);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

#[test]
fn sleeping_joiner_survives_a_killed_worker() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put(7).unwrap();
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let take = |(jobs, parent): (JoinableQueue<u32>, Connection<(), ()>)| {
        let _task = jobs.get().unwrap();
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let doomed = Process::spawn(take, (jobs.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    let joiner = Process::spawn(|jobs: JoinableQueue<u32>| jobs.join().unwrap(), jobs.clone());
    let joiner = joiner.unwrap();
    until(|| is_asleep(joiner.pid()));
    doomed.kill().unwrap();
    doomed.wait();
    let start = Instant::now();
    // The joiner puts it back, or this process does.
    let task = jobs.get().unwrap();
    assert_eq!((*task, task.attempt()), (7, 2));
    task.task_done();
    joiner.join().unwrap();
    assert!(start.elapsed() < RECOVERY);
}

#[test]
fn task_that_kills_its_workers_becomes_a_dead_letter() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().max_attempts(3).build().unwrap();
    jobs.put(666).unwrap();
    jobs.put(1).unwrap();
    let work = |jobs: JoinableQueue<u32>| -> () {
        loop {
            let task = jobs.get().unwrap();
            if *task == 666 {
                std::process::abort();
            }
            task.task_done();
        }
    };
    let joiner = Process::spawn(|jobs: JoinableQueue<u32>| jobs.join().unwrap(), jobs.clone());
    for _ in 0..3 {
        Process::spawn(work, jobs.clone()).unwrap().join().unwrap_err();
    }
    joiner.unwrap().join().unwrap();
    assert_eq!((jobs.unfinished(), jobs.dead_letters_len(), jobs.died()), (0, 1, 1));
    let letters = jobs.dead_letters().unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].item(), letters[0].attempts()), (Some(&666), 3));
    assert_eq!(*letters[0].reason(), DeathReason::Attempts);
    assert!(jobs.dead_letters().unwrap().is_empty(), "another process holds it");
    drop(letters);
    let letter = jobs.dead_letters().unwrap().pop().unwrap();
    letter.put_again();
    assert_eq!(jobs.unfinished(), 1);
    let task = jobs.get().unwrap();
    assert_eq!((*task, task.attempt()), (666, 1));
    task.task_done();
    assert_eq!(jobs.dead_letters_len(), 0);
}

#[test]
fn tasks_of_all_sizes_are_redelivered_unchanged() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    for size in [0usize, 1, 200, 255, 256, 257, 5_000, 70_000, 1_100_000, 40_000_000] {
        let bytes = multiproc::pipe::Bytes((0..size).map(|n| n.to_le_bytes()[0]).collect());
        jobs.put(bytes.clone()).unwrap();
        drop(jobs.get().unwrap());
        let task = jobs.get().unwrap();
        assert!(*task == bytes && task.attempt() == 2);
        task.task_done();
    }
    jobs.join().unwrap();
}

#[test]
fn workers_end_when_no_task_can_come() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..100).unwrap();
    let work = |jobs: JoinableQueue<u32>| {
        jobs.close();
        let mut done = 0;
        for task in jobs.iter() {
            task.unwrap().task_done();
            done += 1;
        }
        done
    };
    let workers: Vec<_> = (0..3).map(|_| Process::spawn(work, jobs.clone()).unwrap()).collect();
    jobs.close();
    let done: u32 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert_eq!(done, 100);
    jobs.join().unwrap();
    assert!(jobs.put(1).unwrap_err().is_closed());
}
