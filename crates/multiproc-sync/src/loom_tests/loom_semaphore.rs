use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use multiproc_shm::Deadline;
use multiproc_shm::failpoint::die_at;
use multiproc_shm::primitives::{Bytes, explore};

use crate::raw::semaphore::Semaphore;

fn acquire(semaphore: &Semaphore) {
    semaphore.acquire(Deadline::NEVER, Duration::MAX).unwrap();
}

/// What was written before a release is visible to the member that acquires it, and no wake-up is
/// lost. In both directions, because loom starts with the main thread.
#[test]
fn loom_semaphore_hands_over() {
    let give = |shared: &(Semaphore, Bytes<'static>)| {
        shared.1.copy_in(0, &7u64.to_le_bytes());
        shared.0.release(1).unwrap();
    };
    let take = |shared: &(Semaphore, Bytes<'static>)| {
        acquire(&shared.0);
        assert_eq!(shared.1.copy_out(0), 7u64.to_le_bytes());
    };
    for main_gives in [false, true] {
        explore(move || {
            let shared = Arc::new((Semaphore::default(), Bytes::zeroed(8)));
            let other = shared.clone();
            let thread =
                thread::spawn(move || if main_gives { take(&other) } else { give(&other) });
            if main_gives {
                give(&shared)
            } else {
                take(&shared)
            }
            thread.join().unwrap();
            assert_eq!(shared.0.value(), 0);
        });
    }
}

/// Two waiters, and two releases of one after each other: both waits end.
#[test]
fn loom_semaphore_two_releases_two_sleepers() {
    explore(|| {
        let semaphore = Arc::new(Semaphore::default());
        let threads = [(); 2].map(|()| {
            let semaphore = semaphore.clone();
            thread::spawn(move || acquire(&semaphore))
        });
        semaphore.release(1).unwrap();
        semaphore.release(1).unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(semaphore.value(), 0);
    });
}

/// One release of two ends both waits.
#[test]
fn loom_semaphore_release_of_two() {
    explore(|| {
        let semaphore = Arc::new(Semaphore::default());
        let threads = [(); 2].map(|()| {
            let semaphore = semaphore.clone();
            thread::spawn(move || acquire(&semaphore))
        });
        semaphore.release(2).unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// The member that releases dies before it notifies: a recheck makes up for it.
#[test]
fn loom_semaphore_releaser_dies() {
    explore(|| {
        let semaphore = Arc::new(Semaphore::default());
        let waiter = {
            let semaphore = semaphore.clone();
            thread::spawn(move || acquire(&semaphore))
        };
        assert!(die_at("semaphore.released", || semaphore.release(1).unwrap()));
        while semaphore.value() > 0 {
            semaphore.waiters().futex().time_out();
            thread::yield_now();
        }
        waiter.join().unwrap();
    });
}

/// The count stays in its range, whatever races.
#[test]
fn loom_semaphore_overflow() {
    explore(|| {
        let semaphore = Arc::new(Semaphore::default());
        semaphore.set_up(Semaphore::MAX - 1);
        let other = semaphore.clone();
        let thread = thread::spawn(move || other.release(1).is_ok());
        let mine = semaphore.release(1).is_ok();
        assert!(mine != thread.join().unwrap(), "one of the two");
        assert_eq!(semaphore.value(), Semaphore::MAX);
    });
}
