//! Death at named points of a lock. Run by `cargo xtask faults`, which compiles the points in.
#![cfg(multiproc_faults)]

use std::time::{Duration, Instant};

use multiproc::pipe::{Connection, duplex};
use multiproc::{JoinError, Process};
use multiproc_sync::Lock;
use multiproc_testkit::{die_at, is_asleep, until, watchdog};

multiproc::enable_in_tests!();

const KILLED: JoinError = JoinError::Signaled(9, false);

/// A process that waits for the lock, and dies at `point`.
fn doomed(lock: &Lock, point: &str) -> Process {
    let wait = |(lock, point): (Lock, String)| {
        die_at(&point, 1);
        drop(lock.lock());
    };
    Process::spawn(wait, (lock.clone(), point.to_owned())).unwrap()
}

#[test]
fn faults_a_waiter_dies_on_its_way_to_sleep() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    assert_eq!(doomed(&lock, "lock.about_to_sleep").join().unwrap_err(), KILLED);
    drop(guard);
    drop(lock.lock().expect("it has taken nothing"));
}

/// The wake-up dies with the one that was woken: the other one who sleeps finds the lock free.
#[test]
fn faults_the_woken_dies() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    let first = doomed(&lock, "lock.woken");
    let second = Process::spawn(|lock: Lock| lock.lock().is_ok(), lock.clone()).unwrap();
    until(|| !first.is_alive() || (is_asleep(first.pid()) && is_asleep(second.pid())));
    let start = Instant::now();
    drop(guard);
    assert!(second.join().unwrap());
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(first.join().unwrap_err(), KILLED);
}

/// The holder has let go, and dies before it wakes anybody.
#[test]
fn faults_the_holder_dies_before_it_wakes() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let hold = |(lock, parent): (Lock, Connection<(), ()>)| {
        let guard = lock.lock().unwrap();
        parent.send(()).unwrap();
        parent.recv().unwrap();
        die_at("lock.about_to_wake", 1);
        drop(guard);
    };
    let holder = Process::spawn(hold, (lock.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    let waiter = Process::spawn(|lock: Lock| lock.lock().is_ok(), lock.clone()).unwrap();
    until(|| is_asleep(waiter.pid()));
    let start = Instant::now();
    ours.send(()).unwrap();
    assert!(waiter.join().unwrap(), "it was let go of, not abandoned");
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(holder.join().unwrap_err(), KILLED);
}
