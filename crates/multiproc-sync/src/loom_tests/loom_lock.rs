use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use multiproc_pipe::Deadline;

use super::{Member, member};
use crate::primitives::{Bytes, explore};
use crate::raw::lock::{Lock, Taken};
use crate::raw::members::{MemberId, Members};

/// A lock, and a plain counter that only its holder may touch: loom fails on any race for it.
struct Guarded {
    lock: Lock,
    count: Bytes<'static>,
}

impl Guarded {
    fn new() -> Arc<Self> {
        Arc::new(Self { lock: Lock::default(), count: Bytes::zeroed(8) })
    }

    fn lock(&self, member: Member) -> Taken {
        self.lock.lock(&member, Deadline::NEVER, Duration::MAX).unwrap()
    }

    fn add_one(&self, member: Member) -> Taken {
        let taken = self.lock(member);
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
    explore(|| {
        let guarded = Guarded::new();
        let shared = guarded.clone();
        threads(2, move |n| {
            shared.add_one(member(n));
            shared.add_one(member(n))
        });
        assert_eq!(guarded.count(), 4);
        assert_eq!(guarded.lock.owner(), None);
    });
}

/// The same with three threads, so that two may sleep at a time.
#[test]
fn loom_three_exclude_each_other() {
    explore(|| {
        let guarded = Guarded::new();
        let shared = guarded.clone();
        threads(3, move |n| shared.add_one(member(n)));
        assert_eq!(guarded.count(), 3);
    });
}

/// The owner is dead before anybody comes: exactly one of two takes over from it, the other one
/// takes the lock clean.
#[test]
fn loom_one_takes_over() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.lock(dead);
        let shared = guarded.clone();
        let mut taken = threads(2, move |n| shared.add_one(member(n).after_death_of(dead)));
        taken.sort_by_key(|&taken| taken == Taken::Abandoned);
        assert_eq!(taken, [Taken::Clean, Taken::Abandoned]);
        assert_eq!(guarded.count(), 2);
    });
}

/// Member 0, who sees all others as dead once the flag is up.
struct Mortal(Arc<AtomicBool>);

impl Members for Mortal {
    fn me(&self) -> MemberId {
        member(0).me
    }

    fn is_alive(&self, _: MemberId) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

/// The owner dies while another one sleeps: the recheck interval finds it.
#[test]
fn loom_a_sleeper_notices_the_death() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.lock(dead);
        // Dies at some point: the word does not change by it.
        let died = Arc::new(AtomicBool::new(false));
        let waiter = {
            let (guarded, died) = (guarded.clone(), died.clone());
            thread::spawn(move || {
                guarded.lock.lock(&Mortal(died), Deadline::NEVER, Duration::MAX).unwrap()
            })
        };
        died.store(true, Ordering::Relaxed);
        guarded.lock.futex().time_out();
        // The clock ticks once more, in case the sleep began after the first tick.
        thread::yield_now();
        while guarded.lock.owner() == Some(dead.me) {
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
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(1);
        guarded.lock(dead);
        let shared = guarded.clone();
        let taken = threads(2, move |n| {
            if n == 1 {
                shared.lock.release_slot(1);
                shared.add_one(Member { me: MemberId::new(1, 2), dead: Some(dead.me) })
            } else {
                shared.add_one(member(0).after_death_of(dead))
            }
        });
        assert_eq!(taken.iter().filter(|&&taken| taken == Taken::Abandoned).count(), 1);
        assert_eq!(guarded.count(), 2);
    });
}

/// A holder that does not repair hands the mark on.
#[test]
fn loom_abandoned_until_repaired() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.lock(dead);
        assert_eq!(guarded.lock(member(0).after_death_of(dead)), Taken::Abandoned);
        guarded.lock.unlock(Taken::Abandoned);
        assert_eq!(guarded.add_one(member(1)), Taken::Abandoned);
        assert_eq!(guarded.add_one(member(0)), Taken::Clean);
    });
}

/// The slot of the dead owner gets a new user: one who sleeps, and has not noticed the death, is
/// woken, and told.
#[test]
fn loom_a_slot_frees_a_sleeper() {
    explore(|| {
        let guarded = Guarded::new();
        guarded.lock(member(1));
        let sleeper = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.lock(member(2)))
        };
        guarded.lock.release_slot(1);
        assert_eq!(sleeper.join().unwrap(), Taken::Abandoned);
    });
}
