use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use multiproc_pipe::Deadline;

use super::member;
use crate::primitives::Bytes;
use crate::raw::lock::{Lock, Taken};
use crate::raw::member_id::MemberId;

/// A lock, and a plain counter that only its holder may touch: loom fails on any race for it.
struct Guarded {
    lock: Lock,
    count: Bytes<'static>,
}

impl Guarded {
    fn new() -> Arc<Self> {
        Arc::new(Self { lock: Lock::default(), count: Bytes::zeroed(8) })
    }

    fn lock(&self, me: MemberId, dead: Option<MemberId>) -> Taken {
        let is_alive = |owner| Some(owner) != dead;
        self.lock.lock(me, is_alive, Deadline::NEVER, Duration::MAX).unwrap()
    }

    fn add_one(&self, me: MemberId, dead: Option<MemberId>) -> Taken {
        let taken = self.lock(me, dead);
        self.count.copy_in(0, &(self.count() + 1).to_le_bytes());
        self.lock.repaired();
        self.lock.unlock(Taken::Clean);
        taken
    }

    fn count(&self) -> u64 {
        u64::from_le_bytes(self.count.copy_out(0))
    }
}

fn threads(count: usize, run: impl Fn(usize) -> Taken + Clone + 'static) -> Vec<Taken> {
    let others: Vec<_> = (1..count)
        .map(|n| {
            let run = run.clone();
            thread::spawn(move || run(n))
        })
        .collect();
    let mine = run(0);
    std::iter::once(mine).chain(others.into_iter().map(|thread| thread.join().unwrap())).collect()
}

/// Mutual exclusion, and no lost wake-up: two threads, each twice.
#[test]
fn loom_two_exclude_each_other() {
    loom::model(|| {
        let guarded = Guarded::new();
        let shared = guarded.clone();
        threads(2, move |n| {
            shared.add_one(member(n), None);
            shared.add_one(member(n), None)
        });
        assert_eq!(guarded.count(), 4);
        assert_eq!(guarded.lock.owner(), None);
    });
}

/// The same with three threads, so that two may sleep at a time.
#[test]
fn loom_three_exclude_each_other() {
    loom::model(|| {
        let guarded = Guarded::new();
        let shared = guarded.clone();
        threads(3, move |n| shared.add_one(member(n), None));
        assert_eq!(guarded.count(), 3);
    });
}

/// The owner is dead before anybody comes: exactly one of two takes over from it, the other one
/// takes the lock clean.
#[test]
fn loom_one_takes_over() {
    loom::model(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.lock(dead, None);
        let shared = guarded.clone();
        let mut taken = threads(2, move |n| shared.add_one(member(n), Some(dead)));
        taken.sort_by_key(|&taken| taken == Taken::Abandoned);
        assert_eq!(taken, [Taken::Clean, Taken::Abandoned]);
        assert_eq!(guarded.count(), 2);
    });
}

/// The owner dies while another one sleeps: the recheck interval finds it.
#[test]
fn loom_a_sleeper_notices_the_death() {
    loom::model(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.lock(dead, None);
        // Dies at some point: the word does not change by it.
        let died = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let waiter = {
            let (guarded, died) = (guarded.clone(), died.clone());
            thread::spawn(move || {
                let is_alive = |_| !died.load(loom::sync::atomic::Ordering::Relaxed);
                guarded.lock.lock(member(0), is_alive, Deadline::NEVER, Duration::MAX).unwrap()
            })
        };
        died.store(true, loom::sync::atomic::Ordering::Relaxed);
        guarded.lock.futex().time_out();
        // The clock ticks once more, in case the sleep began after the first tick.
        thread::yield_now();
        while guarded.lock.owner() == Some(dead) {
            guarded.lock.futex().time_out();
            thread::yield_now();
        }
        assert_eq!(waiter.join().unwrap(), Taken::Abandoned);
    });
}

/// The slot of a dead owner gets a new user, while another member waits for the lock: it is freed,
/// marked as abandoned, and nobody robs anybody.
#[test]
fn loom_a_slot_is_used_anew() {
    loom::model(|| {
        let guarded = Guarded::new();
        let dead = MemberId::new(1, 1);
        guarded.lock(dead, None);
        let shared = guarded.clone();
        let taken = threads(2, move |n| {
            if n == 1 {
                shared.lock.release_slot(1);
                shared.add_one(MemberId::new(1, 2), Some(dead))
            } else {
                shared.add_one(member(0), Some(dead))
            }
        });
        assert_eq!(taken.iter().filter(|&&taken| taken == Taken::Abandoned).count(), 1);
        assert_eq!(guarded.count(), 2);
    });
}

/// A holder that does not repair hands the mark on.
#[test]
fn loom_abandoned_until_repaired() {
    loom::model(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.lock(dead, None);
        assert_eq!(guarded.lock(member(0), Some(dead)), Taken::Abandoned);
        guarded.lock.unlock(Taken::Abandoned);
        assert_eq!(guarded.add_one(member(1), None), Taken::Abandoned);
        assert_eq!(guarded.add_one(member(0), None), Taken::Clean);
    });
}
