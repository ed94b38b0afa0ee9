use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use multiproc_shm::Deadline;
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{AtomicU32, Bytes, explore};

use super::{Member, member};
use crate::raw::permits::{Permits, PermitsControl};

/// One permit, and bytes that only its holder may access: loom reports any data race on them.
struct Shared {
    control: PermitsControl,
    words: Vec<AtomicU32>,
    count: Bytes<'static>,
}

impl Shared {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            control: PermitsControl::default(),
            words: (0..permits).map(|_| AtomicU32::new(0)).collect(),
            count: Bytes::zeroed(8),
        })
    }

    fn permits(&self) -> Permits<'_> {
        Permits { control: &self.control, words: &self.words }
    }

    fn acquire(&self, member: Member) -> usize {
        self.permits().acquire(&member, Deadline::NEVER, Duration::MAX).unwrap()
    }

    fn add_one(&self, member: Member) {
        let index = self.acquire(member);
        let count = u64::from_le_bytes(self.count.copy_out(0));
        self.count.copy_in(0, &(count + 1).to_le_bytes());
        self.permits().release(member.me(), index);
    }
}

/// A single permit is a lock: mutual exclusion without lost wake-ups.
#[test]
fn loom_permit_excludes() {
    explore(|| {
        let shared = Shared::new(1);
        let threads = [1, 2].map(|n| {
            let shared = shared.clone();
            thread::spawn(move || shared.add_one(member(n)))
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(shared.count.copy_out(0), 2u64.to_le_bytes());
        assert_eq!(shared.permits().available(), 1);
    });
}

/// Two holders release, and two waiters sleep: each acquires a permit.
#[test]
fn loom_two_released_permits_reach_two_sleepers() {
    explore(|| {
        let shared = Shared::new(2);
        let mine = [shared.acquire(member(0)), shared.acquire(member(0))];
        let threads = [1, 2].map(|n| {
            let shared = shared.clone();
            thread::spawn(move || shared.acquire(member(n)))
        });
        mine.into_iter().for_each(|index| shared.permits().release(member(0).me(), index));
        let got = threads.map(|thread| thread.join().unwrap());
        assert_ne!(got[0], got[1]);
    });
}

/// The holder is dead: exactly one waiter takes its permit over, and the other one waits for it.
#[test]
fn loom_permit_of_dead_holder_is_taken_over_once() {
    explore(|| {
        let shared = Shared::new(1);
        let dead = member(9);
        shared.acquire(dead);
        let threads = [1, 2].map(|n| {
            let shared = shared.clone();
            thread::spawn(move || shared.add_one(member(n).after_death_of(dead)))
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(shared.count.copy_out(0), 2u64.to_le_bytes());
    });
}

/// The slot of the dead holder gets a new user, which frees the permit, while another member takes
/// it over: there is still one permit.
#[test]
fn loom_permit_slot_is_used_again() {
    explore(|| {
        let shared = Shared::new(1);
        let dead = member(1);
        shared.acquire(dead);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.add_one(member(2).after_death_of(dead)))
        };
        shared.permits().release_slot(1);
        shared.add_one(Member { me: MemberId::new(1, 2), dead: Some(dead.me()) });
        other.join().unwrap();
        assert_eq!(shared.count.copy_out(0), 2u64.to_le_bytes());
        assert_eq!(shared.permits().available(), 1);
    });
}

/// The slot of the dead holder gets a new user: a waiter that has not noticed the death is woken.
#[test]
fn loom_permit_slot_frees_a_sleeper() {
    explore(|| {
        let shared = Shared::new(1);
        shared.acquire(member(1));
        let sleeper = {
            let shared = shared.clone();
            thread::spawn(move || shared.acquire(member(2)))
        };
        shared.permits().release_slot(1);
        assert_eq!(sleeper.join().unwrap(), 0);
    });
}
