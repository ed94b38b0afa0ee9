//! fork(2) after a queue was opened: the child becomes a member of its own.
//!
//! Opens `unsafe` for fork(2) and what goes with it.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use multiproc_queue::{JoinableQueue, Queue};
use multiproc_testkit::{alone, watchdog};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, waitpid};

multiproc::enable_in_tests!();

/// Runs `life` in a forked child, which exits without returning, and waits for its end.
fn fork(life: impl FnOnce()) -> WaitStatus {
    // SAFETY: the child uses this library, which is what is tested, and glibc's malloc, which is
    // made for it; it takes no lock that another thread may have held.
    match unsafe { libc::fork() } {
        0 => {
            let status = i32::from(catch_unwind(AssertUnwindSafe(life)).is_err());
            // SAFETY: ends the process here.
            unsafe { libc::_exit(status) }
        }
        pid => waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap().expect("it has ended").1,
    }
}

/// Eight threads put and get continually while another one forks children that do the same: each
/// item is got once.
#[test]
fn forks_during_concurrent_puts_lose_no_item() {
    const CHILDREN: u64 = 30;
    const EACH: u64 = 100;
    alone(|()| {
        let queue = Queue::<u64>::bounded(50).unwrap();
        let is_over = AtomicBool::new(false);
        let (put, got): (u64, u64) = thread::scope(|scope| {
            let busy: [_; 8] = std::array::from_fn(|n| {
                let (queue, is_over) = (&queue, &is_over);
                scope.spawn(move || {
                    let mut count = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        if n % 2 == 0 {
                            count +=
                                u64::from(queue.put_timeout(1, Duration::from_millis(10)).is_ok());
                        } else {
                            count += queue.get_timeout(Duration::from_millis(10)).unwrap_or(0);
                        }
                    }
                    count
                })
            });
            let mut put = 0;
            for _ in 0..CHILDREN {
                let status = fork(|| (0..EACH).for_each(|_| queue.put(1).unwrap()));
                assert_eq!(status.exit_status(), Some(0));
                put += EACH;
            }
            is_over.store(true, Ordering::Relaxed);
            busy.into_iter().enumerate().fold((put, 0), |(put, got), (n, thread)| {
                let count = thread.join().unwrap();
                if n % 2 == 0 { (put + count, got) } else { (put, got + count) }
            })
        });
        let left = std::iter::from_fn(|| queue.try_get().ok()).sum::<u64>();
        assert_eq!(got + left, put);
    });
}

/// A task of the parent stays the parent's, even when the child drops its copy.
#[test]
fn task_copied_into_a_child_has_no_effect() {
    let _dog = watchdog();
    let tasks = JoinableQueue::<u32>::unbounded().unwrap();
    tasks.put(7).unwrap();
    let task = ManuallyDrop::new(tasks.get().unwrap());
    for is_done in [false, true] {
        let status = fork(|| {
            // SAFETY: the original is never used in the child.
            let copy = ManuallyDrop::into_inner(unsafe { std::ptr::read(&raw const task) });
            if is_done {
                copy.task_done();
            } else {
                drop(copy);
            }
        });
        assert_eq!(status.exit_status(), Some(0));
        assert_eq!((tasks.unfinished(), tasks.len()), (1, 0));
        assert!(tasks.try_get().is_err(), "the parent has it");
    }
    ManuallyDrop::into_inner(task).task_done();
    tasks.join_timeout(Duration::from_secs(60)).unwrap();
}

/// Tasks that the parent has detached are not the child's, which counts its own.
#[test]
fn detached_tasks_are_counted_per_process_after_a_fork() {
    let _dog = watchdog();
    let tasks = JoinableQueue::<u32>::unbounded().unwrap();
    tasks.put_many(0..3).unwrap();
    let _detached = tasks.get().unwrap().detach();
    let (_, receipt) = tasks.get().unwrap().into_parts();
    let receipt = ManuallyDrop::new(receipt);
    let status = fork(|| {
        assert!(tasks.task_done().is_err());
        // SAFETY: the original is never used in the child.
        ManuallyDrop::into_inner(unsafe { std::ptr::read(&raw const receipt) }).task_done();
        assert_eq!(tasks.unfinished(), 3);
        let _detached = tasks.get().unwrap().detach();
        tasks.task_done().unwrap();
        assert_eq!(tasks.unfinished(), 2);
    });
    assert_eq!(status.exit_status(), Some(0));
    ManuallyDrop::into_inner(receipt).task_done();
    tasks.task_done().unwrap();
    assert_eq!(tasks.unfinished(), 0);
}

/// A task of a forked child comes back when the child dies, while its parent lives.
#[test]
fn task_of_a_killed_forked_child_is_redelivered() {
    let _dog = watchdog();
    let tasks = JoinableQueue::<u32>::unbounded().unwrap();
    tasks.put(7).unwrap();
    let status = fork(|| {
        std::mem::forget(tasks.get().unwrap());
        kill_process(getpid(), Signal::KILL).unwrap();
    });
    assert_eq!(status.terminating_signal(), Some(9));
    let task = tasks.get_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!((*task, task.attempt()), (7, 2));
    task.task_done();
}

/// A child dies with a lock of the queue, while its parent lives: the parent goes on.
#[test]
#[cfg(multiproc_faults)]
fn lock_of_a_killed_forked_child_is_recovered_by_its_parent() {
    for point in ["put.locked", "get.locked"] {
        let _dog = watchdog();
        let queue = Queue::<u32>::bounded(4).unwrap();
        queue.put(1).unwrap();
        let status = fork(|| {
            multiproc_testkit::die_at(point, 1);
            let _ =
                if point == "put.locked" { queue.put(2).ok() } else { queue.get().ok().map(drop) };
        });
        assert_eq!(status.terminating_signal(), Some(9));
        queue.put_timeout(3, Duration::from_secs(2)).unwrap();
        assert_eq!(queue.get_timeout(Duration::from_secs(2)).unwrap(), 1);
        assert_eq!(queue.get_timeout(Duration::from_secs(2)).unwrap(), 3);
    }
}
