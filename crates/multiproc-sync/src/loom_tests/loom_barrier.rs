use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use multiproc_shm::Deadline;
use multiproc_shm::failpoint::die_at;
use multiproc_shm::primitives::{Bytes, explore};

use crate::raw::barrier::{Barrier, Broken, WaitOutcome};

fn wait(barrier: &Barrier, parties: u32) -> Result<WaitOutcome, Broken> {
    barrier.wait(parties, || false, Deadline::NEVER, Duration::MAX)
}

/// Two parties, two rounds: each has one leader, and what a party wrote before is visible after.
#[test]
fn loom_barrier_two_rounds() {
    explore(|| {
        let shared = Arc::new((Barrier::default(), Bytes::zeroed(8)));
        let other = shared.clone();
        let thread = thread::spawn(move || {
            other.1.copy_in(0, &7u64.to_le_bytes());
            [wait(&other.0, 2).unwrap(), wait(&other.0, 2).unwrap()]
        });
        let first = wait(&shared.0, 2).unwrap();
        assert_eq!(shared.1.copy_out(0), 7u64.to_le_bytes());
        let second = wait(&shared.0, 2).unwrap();
        let theirs = thread.join().unwrap();
        assert!(first != theirs[0] && second != theirs[1], "one leader a round");
    });
}

/// Three parties, so that two may sleep at the same time.
#[test]
fn loom_barrier_three() {
    explore(|| {
        let barrier = Arc::new(Barrier::default());
        let threads = [(); 2].map(|()| {
            let barrier = barrier.clone();
            thread::spawn(move || wait(&barrier, 3).unwrap())
        });
        let mut through = vec![wait(&barrier, 3).unwrap()];
        through.extend(threads.map(|thread| thread.join().unwrap()));
        let leaders = through.iter().filter(|&&through| through == WaitOutcome::Leader).count();
        assert_eq!(leaders, 1);
    });
}

/// `abort` races with the last party: both parties continue, or neither.
#[test]
fn loom_barrier_abort() {
    explore(|| {
        let barrier = Arc::new(Barrier::default());
        let waiter = {
            let barrier = barrier.clone();
            thread::spawn(move || wait(&barrier, 2))
        };
        let aborter = {
            let barrier = barrier.clone();
            thread::spawn(move || barrier.abort())
        };
        let mine = wait(&barrier, 2);
        assert_eq!(mine.is_ok(), waiter.join().unwrap().is_ok());
        aborter.join().unwrap();
        assert!(barrier.is_broken());
    });
}

/// A party times out just as the round becomes complete: the barrier is broken for both parties, or
/// for neither. In the second case the next round is not broken.
#[test]
fn loom_barrier_times_out() {
    explore(|| {
        let barrier = Arc::new(Barrier::default());
        let hasty = {
            let barrier = barrier.clone();
            let at_once = Deadline::after(Duration::ZERO);
            thread::spawn(move || barrier.wait(2, || false, at_once, Duration::MAX))
        };
        let mine = wait(&barrier, 2);
        let theirs = hasty.join().unwrap();
        assert_eq!(mine.is_ok(), theirs.is_ok());
        assert_eq!(barrier.is_broken(), mine.is_err());
    });
}

/// Waiters of a round that was reset get `Broken`, although the next round may be complete by then.
#[test]
fn loom_barrier_reset() {
    explore(|| {
        let barrier = Arc::new(Barrier::default());
        let waiter = {
            let barrier = barrier.clone();
            thread::spawn(move || wait(&barrier, 2))
        };
        while barrier.waiting() == 0 {
            thread::yield_now();
        }
        barrier.reset();
        assert_eq!(wait(&barrier, 1), Ok(WaitOutcome::Leader));
        assert_eq!(waiter.join().unwrap(), Err(Broken));
        assert!(!barrier.is_broken());
    });
}

/// A party dies while others wait: a recheck detects it, and the barrier breaks.
#[test]
fn loom_barrier_a_party_dies() {
    explore(|| {
        let barrier = Arc::new(Barrier::default());
        let died = Arc::new(AtomicBool::new(false));
        let waiter = {
            let (barrier, died) = (barrier.clone(), died.clone());
            thread::spawn(move || {
                let anybody_died = || died.load(Ordering::Relaxed);
                barrier.wait(3, anybody_died, Deadline::NEVER, Duration::MAX)
            })
        };
        assert!(die_at("barrier.arrived", || {
            let _ = wait(&barrier, 3);
        }));
        died.store(true, Ordering::Relaxed);
        while !barrier.is_broken() {
            barrier.waiters().futex().time_out();
            thread::yield_now();
        }
        assert_eq!(waiter.join().unwrap(), Err(Broken));
    });
}

/// The last party dies after it has completed the round and before it wakes the others: they
/// continue nevertheless.
#[test]
fn loom_barrier_the_leader_dies() {
    explore(|| {
        let barrier = Arc::new(Barrier::default());
        let done = Arc::new(AtomicBool::new(false));
        let waiter = {
            let (barrier, done) = (barrier.clone(), done.clone());
            thread::spawn(move || {
                let result = wait(&barrier, 2);
                done.store(true, Ordering::Relaxed);
                result
            })
        };
        while barrier.waiting() == 0 {
            thread::yield_now();
        }
        assert!(die_at("barrier.complete", || {
            let _ = wait(&barrier, 2);
        }));
        while !done.load(Ordering::Relaxed) {
            barrier.waiters().futex().time_out();
            thread::yield_now();
        }
        assert_eq!(waiter.join().unwrap(), Ok(WaitOutcome::Follower));
    });
}
