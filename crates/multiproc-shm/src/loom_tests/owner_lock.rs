use std::time::Duration;

use crate::Deadline;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::member;
use crate::fences::Fences;
use crate::members::{MemberId, Members};
use crate::owner_lock::OwnerLock;
use crate::primitives::{Bytes, explore};

/// A lock, and a plain counter that only its holder may touch: loom fails on any race for it.
struct Guarded {
    lock: OwnerLock,
    fences: Fences,
    count: Bytes<'static>,
}

impl Guarded {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lock: OwnerLock::default(),
            fences: Fences::default(),
            count: Bytes::zeroed(8),
        })
    }

    fn take(&self, member: &impl Members) {
        if !self.lock.take_free(member.me()) {
            self.lock.lock(member, &self.fences, Deadline::NEVER, Duration::MAX).unwrap();
        }
    }

    fn add_one(&self, member: &impl Members) {
        self.take(member);
        self.count.copy_in(0, &(self.count() + 1).to_le_bytes());
        self.lock.free(member.me());
        self.lock.wake(self.fences.light());
    }

    fn count(&self) -> u64 {
        u64::from_le_bytes(self.count.copy_out(0))
    }
}

/// Three threads add one each: no increment is lost, and none sleeps forever.
#[test]
fn loom_owner_lock_one_at_a_time() {
    explore(|| {
        let guarded = Guarded::new();
        let others = [1, 2].map(|n| {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.add_one(&member(n)))
        });
        guarded.add_one(&member(0));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(guarded.count(), 3);
        assert_eq!(guarded.lock.owner(), None);
    });
}

/// Each thread adds twice: taking the lock again at once leaves no sleeper behind.
#[test]
fn loom_owner_lock_again_and_again() {
    explore(|| {
        let guarded = Guarded::new();
        let other = {
            let guarded = guarded.clone();
            thread::spawn(move || (0..2).for_each(|_| guarded.add_one(&member(1))))
        };
        (0..2).for_each(|_| guarded.add_one(&member(0)));
        other.join().unwrap();
        assert_eq!(guarded.count(), 4);
    });
}

/// A member died with the lock: one of two members recovers it, then the other takes it.
#[test]
fn loom_owner_lock_is_taken_over_once() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.take(&dead);
        let done = Arc::new(AtomicBool::new(false));
        let heir = {
            let (guarded, done) = (guarded.clone(), done.clone());
            thread::spawn(move || {
                guarded.add_one(&member(1).after_death_of(dead));
                done.store(true, Ordering::Release);
            })
        };
        guarded.add_one(&member(0).after_death_of(dead));
        while !done.load(Ordering::Acquire) {
            guarded.lock.futex().time_out();
            thread::yield_now();
        }
        heir.join().unwrap();
        assert_eq!(guarded.count(), 2);
    });
}

/// A waiter that takes the owner for alive is woken when the slot of the owner is released.
#[test]
fn loom_owner_lock_of_a_released_slot() {
    explore(|| {
        let guarded = Guarded::new();
        guarded.take(&member(8));
        let waiter = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.add_one(&member(1)))
        };
        guarded.lock.release_slot(&guarded.fences, 7); // another slot
        assert!(guarded.lock.owner().is_some());
        guarded.lock.release_slot(&guarded.fences, 8);
        waiter.join().unwrap();
        assert_eq!(guarded.count(), 1);
    });
}

/// The owner word was overwritten with a number of no living member: the lock is recovered.
#[test]
fn loom_owner_lock_of_nobody() {
    struct Nobody;
    impl Members for Nobody {
        fn me(&self) -> MemberId {
            member(0).me
        }

        fn is_alive(&self, _: MemberId) -> bool {
            false
        }
    }
    explore(|| {
        let guarded = Guarded::new();
        guarded.take(&member(5));
        guarded.add_one(&Nobody);
        assert_eq!(guarded.count(), 1);
    });
}
