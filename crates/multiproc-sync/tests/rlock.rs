//! Re-entrant locks between threads and processes, and the death of holders and waiters.

use std::thread;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Connection, duplex};
use multiproc_sync::{Atomic, LockTimeoutError, RLock, Shared, TryLockError};
use multiproc_testkit::{is_asleep, until, watchdog};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

multiproc::enable_in_tests!();

/// The promised bound: no process waits longer for a dead one.
const RECOVERY: Duration = Duration::from_secs(1);

/// Starts a process that locks three times, and waits until it has. It holds the lock until the
/// connection is dropped.
fn holder(lock: &RLock) -> (Process, Connection<(), ()>) {
    let (ours, theirs) = duplex().unwrap();
    let hold = |(lock, parent): (RLock, Connection<(), ()>)| {
        let _outer = lock.lock().unwrap_or_else(|abandoned| abandoned.into_guard());
        let _inner = lock.lock().unwrap();
        let _innermost = lock.lock().unwrap();
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let child = Process::spawn(hold, (lock.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    (child, ours)
}

fn kill(child: &Process) {
    child.kill().unwrap();
    child.wait();
}

/// Starts a process that answers each message with whether `try_lock` succeeds.
fn asked(lock: &RLock) -> (Process, Connection<(), bool>) {
    let (ours, theirs) = duplex().unwrap();
    let answer = |(lock, parent): (RLock, Connection<bool, ()>)| {
        while parent.recv().is_ok() {
            let gets_it = lock.try_lock().is_ok();
            parent.send(gets_it).unwrap();
        }
    };
    (Process::spawn(answer, (lock.clone(), theirs)).unwrap(), ours)
}

/// Returns true if `try_lock` succeeds in another thread of this process.
fn another_thread_gets(lock: &RLock) -> bool {
    thread::scope(|scope| scope.spawn(|| lock.try_lock().is_ok()).join().unwrap())
}

#[test]
fn holder_thread_locks_again() {
    let _dog = watchdog();
    let lock = RLock::new().unwrap();
    let same = lock.clone();
    let _guards = [
        lock.lock().unwrap(),
        same.lock().unwrap(),
        lock.try_lock().unwrap(),
        same.lock_timeout(Duration::ZERO).unwrap(),
        lock.lock_deadline(Instant::now()).unwrap(),
    ];
    assert!(format!("{lock:?}").contains("depth: 5"), "{lock:?}");
}

#[test]
fn others_are_excluded_until_the_last_guard_is_dropped() {
    let _dog = watchdog();
    let lock = RLock::new().unwrap();
    let (child, other_process) = asked(&lock);
    let other_process_gets_it = || {
        other_process.send(()).unwrap();
        other_process.recv().unwrap()
    };
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1], [2, 0, 1]] {
        assert!(another_thread_gets(&lock) && other_process_gets_it(), "it is free");
        let mut guards = [0; 3].map(|_| Some(lock.lock().unwrap()));
        for index in order {
            assert!(!another_thread_gets(&lock), "{order:?}, guard {index} is still there");
            assert!(!other_process_gets_it(), "{order:?}, guard {index} is still there");
            guards[index] = None;
        }
    }
    assert!(another_thread_gets(&lock) && other_process_gets_it());
    drop(other_process);
    child.join().unwrap();
}

#[test]
fn killed_holder_yields_abandoned() {
    let _dog = watchdog();
    let lock = RLock::new().unwrap();
    let (child, _parent) = holder(&lock);
    assert!(lock.try_lock().unwrap_err().is_would_block());

    kill(&child);
    let start = Instant::now();
    let abandoned = lock.lock().unwrap_err();
    assert!(start.elapsed() < RECOVERY);
    let outer = abandoned.into_guard();
    assert!(format!("{lock:?}").contains("depth: 1"), "{lock:?}");
    let inner = lock.lock().expect("it is repaired");
    assert!(format!("{lock:?}").contains("depth: 2"), "{lock:?}");
    drop(outer);
    assert!(!another_thread_gets(&lock));
    drop(inner);
    assert!(another_thread_gets(&lock), "the depth is that of this process, not of the dead one");
}

#[test]
fn sleeping_waiter_gets_abandoned() {
    let _dog = watchdog();
    let lock = RLock::new().unwrap();
    let (child, _parent) = holder(&lock);
    let (ours, theirs) = duplex::<(), bool>().unwrap();
    let wait = |(lock, parent): (RLock, Connection<bool, ()>)| {
        parent.send(false).unwrap();
        let is_abandoned = lock.lock().is_err();
        parent.send(is_abandoned).unwrap();
    };
    let waiter = Process::spawn(wait, (lock, theirs)).unwrap();
    ours.recv().unwrap();
    until(|| is_asleep(waiter.pid()));
    let start = Instant::now();
    child.kill().unwrap();
    assert!(ours.recv().unwrap());
    assert!(start.elapsed() < RECOVERY);
    waiter.join().unwrap();
}

#[test]
fn lock_stays_abandoned_until_into_guard() {
    let _dog = watchdog();
    let lock = RLock::new().unwrap();
    let (child, _parent) = holder(&lock);
    kill(&child);
    drop(lock.lock().unwrap_err());
    assert!(matches!(lock.try_lock(), Err(TryLockError::Abandoned(_))));
    {
        let outer = lock.lock().unwrap_err();
        // An inner guard is abandoned as well.
        assert!(lock.lock().is_err());
        drop(outer);
    }
    let again = lock.lock_timeout(RECOVERY);
    let Err(LockTimeoutError::Abandoned(outer)) = again else { panic!("{again:?}") };
    assert!(format!("{:?}", outer.guard()).contains("abandoned: true"));
    // `into_guard` of any guard repairs the lock.
    drop(lock.lock().unwrap_err().into_guard());
    drop(outer);
    drop(lock.try_lock().unwrap());
}

#[test]
fn killed_waiter_has_no_effect() {
    let _dog = watchdog();
    let lock = RLock::new().unwrap();
    let guards = [lock.lock().unwrap(), lock.lock().unwrap()];
    let waiter = Process::spawn(|lock: RLock| drop(lock.lock()), lock.clone()).unwrap();
    until(|| is_asleep(waiter.pid()));
    kill(&waiter);
    assert!(format!("{lock:?}").contains("depth: 2"), "{lock:?}");
    drop(guards);
    let (child, parent) = holder(&lock);
    drop(parent);
    child.join().unwrap();
    drop(lock.lock().unwrap());
}

#[test]
fn timeout_is_a_lower_bound() {
    let _dog = watchdog();
    let lock = RLock::new().unwrap();
    let (child, parent) = holder(&lock);
    for milliseconds in [0, 1, 30] {
        let timeout = Duration::from_millis(milliseconds);
        let start = Instant::now();
        assert!(lock.lock_timeout(timeout).unwrap_err().is_timeout());
        assert!(start.elapsed() >= timeout);
    }
    assert!(lock.lock_deadline(Instant::now()).unwrap_err().is_timeout());
    drop(parent);
    child.join().unwrap();
    drop(lock.lock_timeout(Duration::ZERO).unwrap());
}

#[test]
fn debug_shows_the_depth_and_the_holder() {
    let _dog = watchdog();
    let lock = RLock::new().unwrap();
    let debug = format!("{lock:?}");
    assert!(debug.contains("holder: None") && debug.contains("depth: 0"), "{debug}");
    let (child, _parent) = holder(&lock);
    let debug = format!("{lock:?}");
    assert!(debug.contains(&format!("pid: {}", child.pid())), "{debug}");
    assert!(debug.contains("alive: true") && debug.contains("depth: 3"), "{debug}");
    kill(&child);
    assert!(format!("{lock:?}").contains("alive: false"));
}

#[test]
fn rlock_excludes_other_threads() {
    let _dog = watchdog();
    let lock = RLock::new().unwrap();
    let number = Shared::new(&[0u64]).unwrap();
    // Read, add, write: without exclusion, some additions would be lost.
    let add = |(lock, number): (RLock, Shared<u64>)| {
        let add = || {
            for _ in 0..1000 {
                let _outer = lock.lock().unwrap();
                let _inner = lock.lock().unwrap();
                number.set(0, number.get(0) + 1);
            }
        };
        thread::scope(|scope| {
            scope.spawn(add);
            add();
        });
    };
    let spawn = |_| Process::spawn(add, (lock.clone(), number.clone())).unwrap();
    let children: Vec<_> = (0..4).map(spawn).collect();
    for child in children {
        child.join().unwrap();
    }
    assert_eq!(number.get(0), 8000);
}

/// Takes the lock repeatedly, for long enough that others run meanwhile. Returns how often another
/// holder was inside at the same time.
fn hold(lock: &RLock, inside: &Atomic) -> u64 {
    let once = |_| {
        let guard = lock.lock().unwrap();
        let others = inside.fetch_add(1);
        thread::sleep(Duration::from_micros(20));
        inside.fetch_sub(1);
        drop(guard);
        thread::sleep(Duration::from_micros(20));
        others
    };
    (0..3000).map(once).sum()
}

/// Pins this process to one CPU, so that its threads and those of other pinned processes interrupt
/// each other at any instruction.
fn stay_on(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).unwrap();
}

/// A thread that calls `try_lock` all the time is interrupted by a thread of its process that
/// releases the lock, and by one of another process that acquires it. It must not take itself for
/// the holder then. Threads are numbered in each process, and both have the first number.
#[test]
fn thread_is_not_mistaken_for_one_of_another_process() {
    let _dog = watchdog();
    let (lock, inside) = (RLock::new().unwrap(), Atomic::new(0).unwrap());
    let arguments = (lock, inside, sched_getcpu());
    let try_it = |(lock, inside, cpu): (RLock, Atomic, usize)| {
        stay_on(cpu);
        drop(lock.lock().unwrap());
        thread::scope(|scope| {
            let holder = scope.spawn(|| hold(&lock, &inside));
            let mut others = 0;
            while !holder.is_finished() {
                let Ok(_guard) = lock.try_lock() else { continue };
                others += inside.fetch_add(1);
                inside.fetch_sub(1);
            }
            others + holder.join().unwrap()
        })
    };
    let one = Process::spawn(try_it, arguments.clone()).unwrap();
    let hold = |(lock, inside, cpu): (RLock, Atomic, usize)| {
        stay_on(cpu);
        hold(&lock, &inside)
    };
    let two = Process::spawn(hold, arguments).unwrap();
    assert_eq!([one.join().unwrap(), two.join().unwrap()], [0, 0], "so often was it not alone");
}
