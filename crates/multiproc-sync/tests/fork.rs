//! fork(2) after handles exist: the child is a member of its own.
//!
//! Contains unsafe code for fork(2), _exit(2) and setsid(2).
#![allow(unsafe_code)]

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use multiproc::Process;
use multiproc::pipe::{Receiver, Sender, simplex};
use multiproc_sync::{
    Barrier, BoundedSemaphore, Condition, Event, Lock, LockTimeoutError, Mutex, RECHECK, RLock,
    RwLock, TryLockError,
};
use multiproc_testkit::{Census, alone, until, watchdog};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

multiproc::enable_in_tests!();

/// Twice the promised bound, because the machine may be busy.
const BOUND: Duration = Duration::from_secs(2);

/// A child made by fork(2). It is killed and collected on drop.
struct Forked(Pid);

/// Runs `life` in a forked child, which then ends without returning.
fn fork(life: impl FnOnce()) -> Forked {
    // SAFETY: the child uses this library, which the test is about, and glibc's malloc, which
    // supports it. It takes no lock that another thread may have held.
    match unsafe { libc::fork() } {
        0 => {
            let status = i32::from(catch_unwind(AssertUnwindSafe(life)).is_err());
            // SAFETY: takes no pointers, and does not return.
            unsafe { libc::_exit(status) }
        }
        pid => Forked(Pid::from_raw(pid).expect("fork(2) failed")),
    }
}

impl Forked {
    fn wait(self) -> WaitStatus {
        let status = waitpid(Some(ManuallyDrop::new(self).0), WaitOptions::empty());
        status.unwrap().expect("it has ended").1
    }

    fn assert_success(self) {
        assert_eq!(self.wait().exit_status(), Some(0), "the child failed: see above");
    }

    fn kill(self) {
        kill_process(self.0, Signal::KILL).unwrap();
        assert_eq!(self.wait().terminating_signal(), Some(9));
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
        let _ = waitpid(Some(self.0), WaitOptions::empty());
    }
}

/// Tells the other process that a step is done.
fn tell(mut pipe: &PipeWriter) {
    pipe.write_all(&[1]).unwrap();
}

fn hear(mut pipe: &PipeReader) {
    pipe.read_exact(&mut [0]).expect("the other process is there");
}

#[test]
fn forked_child_excludes_its_parent() {
    let _dog = watchdog();
    let (lock, rlock) = (Lock::new().unwrap(), RLock::new().unwrap());
    let (mutex, condition) = (Mutex::new(1u64).unwrap(), Condition::new().unwrap());
    let permits = BoundedSemaphore::new(1).unwrap();
    let held = (
        lock.lock().unwrap(),
        rlock.lock().unwrap(),
        mutex.lock().unwrap(),
        condition.lock().unwrap(),
        permits.acquire(),
    );
    let assert_taken = || {
        assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
        assert!(matches!(rlock.try_lock(), Err(TryLockError::WouldBlock)), "not the same thread");
        assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
        assert!(matches!(condition.try_lock(), Err(TryLockError::WouldBlock)));
        assert!(permits.try_acquire().is_err());
        let timeout = lock.lock_timeout(RECHECK);
        assert!(matches!(timeout, Err(LockTimeoutError::Timeout)), "its owner is alive");
    };
    fork(assert_taken).assert_success();
    drop(held);
    // The same in the other direction.
    let (to_parent, from_child) = pipe();
    let child = fork(|| {
        let _held = (lock.lock().unwrap(), permits.acquire());
        tell(&from_child);
        loop {
            thread::park();
        }
    });
    hear(&to_parent);
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    assert!(permits.try_acquire().is_err());
    child.kill();
    let abandoned = lock.lock_timeout(BOUND).expect_err("the child died inside");
    assert!(abandoned.is_abandoned(), "{abandoned:?}");
    drop(permits.acquire_timeout(BOUND).expect("the permits of a dead child come back"));
}

fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().unwrap()
}

/// The parent keeps what it holds when the child drops its copies of the guards.
#[test]
fn guards_copied_into_a_forked_child_have_no_effect() {
    let _dog = watchdog();
    let (lock, rlock) = (Lock::new().unwrap(), RLock::new().unwrap());
    let (mutex, condition) = (Mutex::new(1u64).unwrap(), Condition::new().unwrap());
    let permits = BoundedSemaphore::new(1).unwrap();
    let guards = (lock.lock().unwrap(), rlock.lock().unwrap(), condition.lock().unwrap());
    let permit = permits.acquire();
    let mut value = mutex.lock().unwrap();
    *value = 2;
    // The guards are moved into the closure: the child drops its copies, and the parent forgets
    // them, since the closure does not run there.
    let copies = ManuallyDrop::new((guards, permit, value));
    fork(|| {
        let copies = ManuallyDrop::into_inner(copies_of(&copies));
        drop(copies);
        assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
        assert!(permits.try_acquire().is_err());
    })
    .assert_success();
    for other in [0, 1] {
        thread::scope(|scope| {
            let is_taken = || {
                matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
                    && matches!(rlock.try_lock(), Err(TryLockError::WouldBlock))
                    && matches!(mutex.try_lock(), Err(TryLockError::WouldBlock))
                    && matches!(condition.try_lock(), Err(TryLockError::WouldBlock))
                    && permits.try_acquire().is_err()
            };
            assert!(scope.spawn(is_taken).join().unwrap(), "look {other}");
        });
    }
    drop(ManuallyDrop::into_inner(copies));
    assert_eq!(*mutex.lock().unwrap(), 2, "the parent's guard has written its value back");
    drop((lock.try_lock().unwrap(), rlock.try_lock().unwrap(), permits.try_acquire().unwrap()));
}

/// Parent and child read and write as different processes: the copies of the parent's guards have
/// no effect in the child, and the child's readers are released when it is killed.
#[test]
fn forked_child_reads_and_writes_as_a_member_of_its_own() {
    let _dog = watchdog();
    let lock = RwLock::new(1u64).unwrap();
    let reader = ManuallyDrop::new(lock.read().unwrap());
    fork(|| {
        drop(ManuallyDrop::into_inner(copies_of(&reader)));
        assert!(lock.try_write().unwrap_err().is_would_block(), "the parent reads");
        drop(lock.try_read().unwrap());
    })
    .assert_success();
    assert!(lock.try_write().unwrap_err().is_would_block(), "this process reads");
    drop(ManuallyDrop::into_inner(reader));

    let mut value = lock.write().unwrap();
    *value = 2;
    let writer = ManuallyDrop::new(value);
    fork(|| {
        drop(ManuallyDrop::into_inner(copies_of(&writer)));
        assert!(lock.try_read().unwrap_err().is_would_block(), "the parent writes");
    })
    .assert_success();
    assert!(lock.try_read().unwrap_err().is_would_block(), "this process writes");
    drop(ManuallyDrop::into_inner(writer));
    assert_eq!(*lock.read().unwrap(), 2);

    let (to_parent, from_child) = pipe();
    let child = fork(|| {
        let _guard = lock.read().unwrap();
        tell(&from_child);
        loop {
            thread::park();
        }
    });
    hear(&to_parent);
    assert!(lock.try_write().unwrap_err().is_would_block(), "the child reads");
    child.kill();
    *lock.write_timeout(BOUND).expect("a dead child does not read") = 3;
}

/// A bitwise copy, as fork(2) makes one.
fn copies_of<T>(original: &ManuallyDrop<T>) -> ManuallyDrop<T> {
    // SAFETY: called only in the forked child, where the original is not used again.
    unsafe { std::ptr::read(original) }
}

/// The child lives on, and does not use the lock: the death of the parent is detected nevertheless.
#[test]
fn death_of_a_parent_is_detected_while_its_child_lives() {
    let _dog = watchdog();
    for child_ends in [false, true] {
        let lock = Lock::new().unwrap();
        let barrier = Barrier::new(2).unwrap();
        let (receiver, sender) = simplex::<u32>().unwrap();
        let life = |(lock, barrier, child_ends, sender): (Lock, Barrier, bool, Sender<u32>)| -> () {
            let _held = lock.lock().unwrap();
            let (alive, child) = pipe();
            let forked = fork(|| {
                drop(alive);
                if child_ends {
                    // Drops its handles, which are copies.
                    drop((lock.clone(), barrier.clone()));
                    assert_eq!(barrier.waiting(), 0);
                } else {
                    loop {
                        thread::park();
                    }
                }
            });
            drop(child);
            let pid = forked.0.as_raw_nonzero().get();
            if child_ends {
                forked.assert_success();
            } else {
                std::mem::forget(forked);
            }
            sender.send(pid.unsigned_abs()).unwrap();
            loop {
                thread::park();
            }
        };
        let arguments = (lock.clone(), barrier.clone(), child_ends, sender);
        let parent = Process::spawn(life, arguments).unwrap();
        let child = receive(&receiver);
        let waiter = thread::spawn({
            let barrier = barrier.clone();
            move || barrier.wait_timeout(4 * BOUND)
        });
        until(|| barrier.waiting() == 1);
        parent.kill().unwrap();
        let _ = parent.join();
        let abandoned = lock.lock_timeout(BOUND).expect_err("its holder died");
        assert!(abandoned.is_abandoned(), "{abandoned:?}, child ends: {child_ends}");
        waiter.join().unwrap().expect_err("a party died");
        assert!(barrier.is_broken(), "by the death, not by the timeout");
        if !child_ends {
            let pid = Pid::from_raw(i32::try_from(child).unwrap()).unwrap();
            kill_process(pid, Signal::KILL).expect("the child has lived all the time");
        }
    }
}

fn receive(receiver: &Receiver<u32>) -> u32 {
    receiver.recv().unwrap()
}

/// A daemon forks twice, its parents end, and it uses what they have opened.
#[test]
fn daemon_continues_with_its_parents_handles() {
    let _dog = watchdog();
    let (counter, done) = (Mutex::new(0u64).unwrap(), Event::new().unwrap());
    *counter.lock().unwrap() += 1;
    fork(|| {
        // SAFETY: takes no pointers.
        unsafe { libc::setsid() };
        let grandchild = fork(|| {
            *counter.lock().unwrap() += 1;
            done.set();
        });
        std::mem::forget(grandchild);
    })
    .assert_success();
    assert!(done.wait_timeout(4 * BOUND));
    assert_eq!(*counter.lock().unwrap(), 2);
}

/// Eight threads use the handles all the time while others fork: none blocks, and no count is lost.
#[test]
fn forks_during_use_by_threads_lose_no_count() {
    const CHILDREN: u64 = 40;
    const EACH: u64 = 50;
    alone(|()| {
        let counter = Mutex::new(0u64).unwrap();
        let permits = BoundedSemaphore::new(3).unwrap();
        let before = Census::take();
        let is_over = AtomicBool::new(false);
        let add_one = || {
            let _permit = permits.acquire();
            *counter.lock().unwrap() += 1;
        };
        let in_parent: u64 = thread::scope(|scope| {
            let busy: [_; 8] = std::array::from_fn(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        add_one();
                        // Regions are created and dropped meanwhile, so fork(2) meets every state.
                        drop(Event::new().unwrap());
                        count += 1;
                    }
                    count
                })
            });
            for _ in 0..CHILDREN {
                fork(|| (0..EACH).for_each(|_| add_one())).assert_success();
            }
            is_over.store(true, Ordering::Relaxed);
            busy.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(*counter.lock().unwrap(), in_parent + CHILDREN * EACH);
        assert_eq!(permits.available(), 3);
        assert_eq!(Census::take(), before);
    });
}

/// A thousand children that call exec(2) do not use up the member table.
#[test]
fn forked_children_that_use_no_handle_take_no_slots() {
    let _dog = watchdog();
    let barrier = Barrier::new(1).unwrap();
    for _ in 0..50 {
        fork(|| {}).assert_success();
    }
    barrier.wait().expect("no party has died");
}
