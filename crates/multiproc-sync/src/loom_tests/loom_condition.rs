use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use multiproc_shm::Deadline;
use multiproc_shm::members::Members;
use multiproc_shm::primitives::{explore, explore_long};

use super::{Member, member};
use crate::raw::condition::{Condition, PLACES};
use crate::raw::lock::{Acquired, Lock};

/// A lock, a condition, and a number that the lock protects.
#[derive(Default)]
struct Shared {
    lock: Lock,
    condition: Condition,
    things: AtomicU32,
}

impl Shared {
    fn lock(&self, member: Member) {
        self.lock.lock(&member, Deadline::NEVER, Duration::MAX).unwrap();
    }

    fn wait(&self, member: Member) -> bool {
        let place = self.condition.enter(&member);
        self.lock.unlock(member.me(), Acquired::Clean);
        let notified = self.condition.wait(place, &member, Deadline::NEVER, Duration::MAX);
        self.lock(member);
        notified
    }

    /// Waits until the number is not 0, and lowers it.
    fn take(&self, member: Member) {
        self.lock(member);
        while self.things.load(Ordering::Relaxed) == 0 {
            assert!(self.wait(member));
        }
        self.things.fetch_sub(1, Ordering::Relaxed);
        self.lock.unlock(member.me(), Acquired::Clean);
    }

    fn put(&self, member: Member) {
        self.lock(member);
        self.things.fetch_add(1, Ordering::Relaxed);
        self.lock.unlock(member.me(), Acquired::Clean);
        self.condition.notify(1);
    }
}

/// One waiter: a notification between releasing the lock and sleeping is not lost.
#[test]
fn loom_condition_one_waiter() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let waiter = {
            let shared = shared.clone();
            thread::spawn(move || shared.take(member(1)))
        };
        shared.put(member(0));
        waiter.join().unwrap();
        assert_eq!(shared.condition.waiting(), 0);
    });
}

/// Two waiters are notified one by one.
#[test]
fn loom_condition_two_waiters() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let waiters = [1, 2].map(|n| {
            let shared = shared.clone();
            thread::spawn(move || shared.take(member(n)))
        });
        shared.put(member(0));
        shared.put(member(0));
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

/// One notification ends one wait, and not two.
#[test]
fn loom_condition_at_most_n() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        // Two places are taken before the notification.
        let places = [1, 2].map(|n| shared.condition.enter(&member(n)));
        let woken = Arc::new(AtomicU32::new(0));
        let waiters: Vec<_> = places
            .into_iter()
            .zip([1, 2])
            .map(|(place, n)| {
                let (shared, woken) = (shared.clone(), woken.clone());
                thread::spawn(move || {
                    let forever = Duration::MAX;
                    shared.condition.wait(place, &member(n), Deadline::NEVER, forever);
                    woken.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        assert_eq!(shared.condition.notify(1), 1);
        assert!(woken.load(Ordering::Relaxed) <= 1);
        assert_eq!(shared.condition.notify(2), 1);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

/// The notified waiter is dead: the other waiter takes the notification over.
#[test]
fn loom_condition_a_dead_waiter_is_notified() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let dead = member(9);
        let _place = shared.condition.enter(&dead);
        let waiter = {
            let shared = shared.clone();
            thread::spawn(move || shared.take(member(1).after_death_of(dead)))
        };
        shared.put(member(0));
        while shared.things.load(Ordering::Relaxed) > 0 {
            shared.condition.time_out();
            thread::yield_now();
        }
        waiter.join().unwrap();
    });
}

/// The slot of a dead waiter that was notified gets a new user: the notification goes to the other
/// waiter.
#[test]
fn loom_condition_slot_is_used_again() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let dead = member(9);
        let _place = shared.condition.enter(&dead);
        let place = shared.condition.enter(&member(1));
        let waiter = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.condition.wait(place, &member(1), Deadline::NEVER, Duration::MAX)
            })
        };
        assert_eq!(shared.condition.notify(1), 1);
        shared.condition.release_slot(9);
        assert!(waiter.join().unwrap());
    });
}

/// Three places: one of a dead waiter that was notified, and two of living waiters. Returns the
/// threads of the latter, and the number of their waits that have ended.
fn a_dead_one_and_two(shared: &Arc<Shared>) -> (Arc<AtomicU32>, [thread::JoinHandle<()>; 2]) {
    let dead = member(9);
    let _place = shared.condition.enter(&dead);
    assert_eq!(shared.condition.notify(1), 1);
    let through = Arc::new(AtomicU32::new(0));
    let threads = [1, 2].map(|n| {
        let member = member(n).after_death_of(dead);
        let place = shared.condition.enter(&member);
        let (shared, through) = (shared.clone(), through.clone());
        thread::spawn(move || {
            assert!(shared.condition.wait(place, &member, Deadline::NEVER, Duration::MAX));
            through.fetch_add(1, Ordering::Relaxed);
        })
    });
    (through, threads)
}

/// The notification of a dead waiter ends one wait, and not two.
#[test]
fn loom_condition_taken_over_once() {
    explore_long(|| {
        let shared = Arc::new(Shared::default());
        let (through, threads) = a_dead_one_and_two(&shared);
        for _ in 0..2 {
            shared.condition.time_out();
            thread::yield_now();
        }
        assert!(through.load(Ordering::Relaxed) <= 1);
        shared.condition.notify(2);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// A waiter that takes over a notification while it receives one of its own passes one on.
#[test]
fn loom_condition_two_notifications_two_waiters() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let (through, threads) = a_dead_one_and_two(&shared);
        shared.condition.time_out();
        shared.condition.notify(1);
        while through.load(Ordering::Relaxed) < 2 {
            shared.condition.time_out();
            thread::yield_now();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// A waiter that finds no place waits in the crowd: `notify_all` reaches it, also between releasing
/// the lock and sleeping.
#[test]
fn loom_condition_notifies_the_crowd() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let _taken = std::array::from_fn::<_, PLACES, _>(|_| shared.condition.enter(&member(5)));
        let waiter = {
            let shared = shared.clone();
            thread::spawn(move || shared.take(member(1)))
        };
        shared.lock(member(0));
        shared.things.fetch_add(1, Ordering::Relaxed);
        shared.lock.unlock(member(0).me(), Acquired::Clean);
        shared.condition.notify(usize::MAX);
        waiter.join().unwrap();
    });
}
