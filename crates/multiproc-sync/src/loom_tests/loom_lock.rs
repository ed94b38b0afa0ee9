use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use multiproc_shm::Deadline;
use multiproc_shm::failpoint::die_at;
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{Bytes, explore};

use super::{Member, member};
use crate::raw::lock::{Acquired, Lock};

/// A lock, and a plain counter that only its holder may access: loom reports any data race on it.
struct Guarded {
    lock: Lock,
    count: Bytes<'static>,
}

impl Guarded {
    fn new() -> Arc<Self> {
        Arc::new(Self { lock: Lock::default(), count: Bytes::zeroed(8) })
    }

    fn lock(&self, member: Member) -> Acquired {
        self.lock.lock(&member, Deadline::NEVER, Duration::MAX).unwrap()
    }

    fn add_one(&self, member: Member) -> Acquired {
        let taken = self.lock(member);
        self.add_one_locked(member);
        taken
    }

    fn try_add_one(&self, member: Member) -> Option<Acquired> {
        let taken = self.lock.try_lock(&member).ok()?;
        self.add_one_locked(member);
        Some(taken)
    }

    fn add_one_locked(&self, member: Member) {
        self.count.copy_in(0, &(self.count() + 1).to_le_bytes());
        self.lock.repaired();
        self.lock.unlock(member.me(), Acquired::Clean);
    }

    fn count(&self) -> u64 {
        u64::from_le_bytes(self.count.copy_out(0))
    }
}

fn threads<T: 'static>(count: usize, run: impl Fn(usize) -> T + Clone + 'static) -> Vec<T> {
    let others: Vec<_> = (1..count)
        .map(|n| {
            let run = run.clone();
            thread::spawn(move || run(n))
        })
        .collect();
    let mine = run(0);
    std::iter::once(mine).chain(others.into_iter().map(|thread| thread.join().unwrap())).collect()
}

/// Mutual exclusion without lost wake-ups: two threads, each of which locks twice.
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

/// The same with three threads, so that two may sleep at the same time.
#[test]
fn loom_three_exclude_each_other() {
    explore(|| {
        let guarded = Guarded::new();
        let shared = guarded.clone();
        threads(3, move |n| shared.add_one(member(n)));
        assert_eq!(guarded.count(), 3);
    });
}

/// The owner is dead from the start: exactly one of two threads recovers the lock, and the other
/// one acquires it clean.
#[test]
fn loom_dead_owner_is_recovered_once() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.lock(dead);
        let shared = guarded.clone();
        let mut taken = threads(2, move |n| shared.add_one(member(n).after_death_of(dead)));
        taken.sort_by_key(|&taken| taken == Acquired::OwnerDied);
        assert_eq!(taken, [Acquired::Clean, Acquired::OwnerDied]);
        assert_eq!(guarded.count(), 2);
    });
}

/// Member 0, to which all others are dead once the flag is set.
struct Mortal(Arc<AtomicBool>);

impl Members for Mortal {
    fn me(&self) -> MemberId {
        member(0).me
    }

    fn is_alive(&self, _: MemberId) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

/// The owner dies while a waiter sleeps: a recheck detects it.
#[test]
fn loom_sleeper_detects_the_death() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.lock(dead);
        // Dies at some point, which does not change the word.
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
        assert_eq!(waiter.join().unwrap(), Acquired::OwnerDied);
    });
}

/// The owner releases the lock and dies before it wakes the waiter: a recheck makes up for it.
#[test]
fn loom_lost_wake_up_is_made_up_for() {
    explore(|| {
        let guarded = Guarded::new();
        guarded.lock(member(9));
        let done = Arc::new(AtomicBool::new(false));
        let sleeper = {
            let (guarded, done) = (guarded.clone(), done.clone());
            thread::spawn(move || {
                let taken = guarded.add_one(member(0));
                done.store(true, Ordering::Relaxed);
                taken
            })
        };
        // It lives on if there is no waiter to wake.
        let _ =
            die_at("lock.about_to_wake", || guarded.lock.unlock(member(9).me(), Acquired::Clean));
        while !done.load(Ordering::Relaxed) {
            guarded.lock.futex().time_out();
            thread::yield_now();
        }
        assert_eq!(sleeper.join().unwrap(), Acquired::Clean);
    });
}

/// The slot of a dead owner gets a new user while another member waits for the lock: the lock is
/// freed and marked as abandoned, and never has two owners.
#[test]
fn loom_slot_of_dead_owner_is_used_again() {
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
        assert_eq!(taken.iter().filter(|&&taken| taken == Acquired::OwnerDied).count(), 1);
        assert_eq!(guarded.count(), 2);
    });
}

/// A guard whose ownership has ended (a copy in a forked child) does not free the lock.
#[test]
fn loom_unlock_by_another_member_does_nothing() {
    explore(|| {
        let guarded = Guarded::new();
        guarded.lock(member(0));
        let shared = guarded.clone();
        let other = thread::spawn(move || {
            shared.lock.unlock(member(1).me(), Acquired::Clean);
            shared.try_add_one(member(1))
        });
        guarded.add_one_locked(member(0));
        let others = u64::from(other.join().unwrap().is_some());
        assert_eq!(guarded.count(), 1 + others);
    });
}

/// A sleeper that is overtaken reserves the lock: mutual exclusion holds and no wake-up is lost,
/// though newcomers go to sleep on a free lock.
#[test]
fn loom_reserved_lock_is_taken_by_a_sleeper() {
    explore(|| {
        let guarded = Guarded::new();
        let shared = guarded.clone();
        threads(3, move |n| {
            shared.add_one(member(n));
            if n == 0 {
                shared.add_one(member(n));
            }
        });
        assert_eq!(guarded.count(), 4);
        assert_eq!(guarded.lock.owner(), None);
    });
}

/// Once a sleeper has reserved the lock, a holder that releases it and locks it again at once
/// acquires it only after the sleeper.
#[test]
fn loom_reserved_lock_goes_to_the_sleeper_first() {
    let was_reserved = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = was_reserved.clone();
    explore(move || {
        let guarded = Guarded::new();
        let has_had_it = Arc::new(AtomicBool::new(false));
        guarded.lock(member(0));
        let sleeper = {
            let (guarded, has_had_it) = (guarded.clone(), has_had_it.clone());
            thread::spawn(move || {
                guarded.lock(member(1));
                has_had_it.store(true, Ordering::Relaxed);
                guarded.add_one_locked(member(1));
            })
        };
        guarded.add_one_locked(member(0));
        guarded.lock(member(0));
        let is_reserved = guarded.lock.is_reserved();
        guarded.add_one_locked(member(0));
        guarded.lock(member(0));
        if is_reserved {
            seen.store(true, Ordering::Relaxed);
            assert!(has_had_it.load(Ordering::Relaxed), "the newcomer was first");
        }
        guarded.add_one_locked(member(0));
        sleeper.join().unwrap();
        assert_eq!(guarded.count(), 4);
    });
    assert!(was_reserved.load(Ordering::Relaxed), "the sleeper has never been overtaken");
}

/// If a holder does not repair the lock, the next one acquires it abandoned.
#[test]
fn loom_abandoned_until_repaired() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.lock(dead);
        assert_eq!(guarded.lock(member(0).after_death_of(dead)), Acquired::OwnerDied);
        guarded.lock.unlock(member(0).me(), Acquired::OwnerDied);
        assert_eq!(guarded.add_one(member(1)), Acquired::OwnerDied);
        assert_eq!(guarded.add_one(member(0)), Acquired::Clean);
    });
}

/// The slot of a dead owner is released while another member sleeps, which takes the owner for
/// alive: it is woken.
#[test]
fn loom_released_slot_wakes_a_sleeper() {
    explore(|| {
        let guarded = Guarded::new();
        guarded.lock(member(1));
        let sleeper = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.add_one(member(0)))
        };
        guarded.lock.release_slot(1);
        assert_eq!(sleeper.join().unwrap(), Acquired::OwnerDied);
    });
}

/// A member that recovers the lock wakes, when it releases it, a member that was asleep before and
/// takes the owner for alive.
#[test]
fn loom_recovery_keeps_the_sleepers() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.lock(dead);
        let sleeper = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.add_one(member(0)))
        };
        assert_eq!(guarded.add_one(member(1).after_death_of(dead)), Acquired::OwnerDied);
        assert_eq!(sleeper.join().unwrap(), Acquired::Clean);
    });
}

/// What a dead holder wrote is visible to the next one, even if only the member that released the
/// slot knows of the death.
#[test]
fn loom_released_slot_publishes_what_was_written() {
    explore(|| {
        let guarded = Guarded::new();
        // The death, as reported by the kernel.
        let died = Arc::new(AtomicBool::new(false));
        let holder = {
            let (guarded, died) = (guarded.clone(), died.clone());
            thread::spawn(move || {
                guarded.lock(member(1));
                guarded.count.copy_in(0, &(guarded.count() + 1).to_le_bytes());
                died.store(true, Ordering::Release);
            })
        };
        let next = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.add_one(member(2)))
        };
        while !died.load(Ordering::Acquire) {
            thread::yield_now();
        }
        guarded.lock.release_slot(1);
        holder.join().unwrap();
        next.join().unwrap();
        assert_eq!(guarded.count(), 2);
    });
}

/// `try_lock` recovers the lock of a dead owner, too: one of two callers acquires it abandoned, and
/// the other one acquires it clean or not at all.
#[test]
fn loom_one_of_two_try_locks_recovers() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.lock(dead);
        let shared = guarded.clone();
        let tried = threads(2, move |n| shared.try_add_one(member(n).after_death_of(dead)));
        let taken: Vec<_> = tried.into_iter().flatten().collect();
        assert_eq!(taken.iter().filter(|&&taken| taken == Acquired::OwnerDied).count(), 1);
        assert_eq!(guarded.count(), taken.len() as u64);
    });
}

/// `try_lock` beside `lock`: they exclude each other, and the waiter is woken.
#[test]
fn loom_try_lock_beside_lock() {
    explore(|| {
        let guarded = Guarded::new();
        let waiter = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.add_one(member(0)))
        };
        let tried = guarded.try_add_one(member(1));
        assert_ne!(tried, Some(Acquired::OwnerDied));
        assert_eq!(waiter.join().unwrap(), Acquired::Clean);
        assert_eq!(guarded.count(), 1 + u64::from(tried.is_some()));
    });
}

/// `try_lock` does not fail because of a change of the word that is not a new owner: here, because
/// a member goes to sleep on it.
#[test]
fn loom_try_lock_beside_a_sleeper_recovers() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(9);
        guarded.lock(dead);
        let sleeper = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.add_one(member(0)))
        };
        let tried = guarded.try_add_one(member(1).after_death_of(dead));
        assert_eq!(tried, Some(Acquired::OwnerDied));
        assert_eq!(sleeper.join().unwrap(), Acquired::Clean);
    });
}

/// The owner in a corrupted word is no member: it counts as dead.
#[test]
fn loom_owner_that_is_no_member_is_dead() {
    explore(|| {
        let guarded = Guarded::new();
        guarded.lock.futex().store(5, Ordering::Relaxed);
        assert_eq!(guarded.add_one(member(0)), Acquired::OwnerDied);
        guarded.lock.futex().store(5, Ordering::Relaxed);
        assert_eq!(guarded.try_add_one(member(0)), Some(Acquired::OwnerDied));
    });
}

/// `repaired` clears *abandoned* at once, not only when the holder releases the lock, and the
/// holder keeps the lock.
#[test]
fn loom_repaired_clears_abandoned_at_once() {
    explore(|| {
        let guarded = Guarded::new();
        let (dead, heir) = (member(9), member(0));
        guarded.lock(dead);
        assert_eq!(guarded.lock(heir.after_death_of(dead)), Acquired::OwnerDied);
        assert!(guarded.lock.is_abandoned());
        guarded.lock.repaired();
        assert!(!guarded.lock.is_abandoned());
        assert_eq!(guarded.lock.owner(), Some(heir.me));
    });
}
