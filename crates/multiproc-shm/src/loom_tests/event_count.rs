use std::time::Duration;

use crate::Deadline;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

use crate::event_count::EventCount;
use crate::fences::full_fence;
use crate::primitives::explore;

/// A counter of available items, and its waiters.
#[derive(Default)]
struct Shop {
    things: AtomicU32,
    waiters: EventCount,
}

impl Shop {
    fn put(&self) {
        self.things.fetch_add(1, Ordering::Release);
        self.waiters.notify_one(full_fence());
    }

    fn try_take(&self) -> Option<()> {
        let mut things = self.things.load(Ordering::Relaxed);
        while things > 0 {
            match self.things.compare_exchange(
                things,
                things - 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(()),
                Err(now) => things = now,
            }
        }
        None
    }

    /// Takes one, waiting for it; a sleeper that finds more passes the notification on.
    fn take(&self) {
        let waited = self.waiters.wait_until(Deadline::NEVER, Duration::MAX, |_| self.try_take());
        assert_eq!(waited.outcome, Some(()));
        if waited.slept && self.things.load(Ordering::Relaxed) > 0 {
            self.waiters.notify_one(full_fence());
        }
    }
}

/// One waits, one notifies: no wake-up is lost.
#[test]
fn loom_one_waiter() {
    explore(|| {
        let shop = Arc::new(Shop::default());
        let waiter = {
            let shop = shop.clone();
            thread::spawn(move || shop.take())
        };
        shop.put();
        waiter.join().unwrap();
    });
}

/// Two wait, and two things come: the second is found although its notification may have met a
/// cleared bit.
#[test]
fn loom_two_waiters() {
    explore(|| {
        let shop = Arc::new(Shop::default());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let shop = shop.clone();
                thread::spawn(move || shop.take())
            })
            .collect();
        shop.put();
        shop.put();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// The one that was to notify dies before: the recheck interval makes up for it.
#[test]
fn loom_a_lost_notification() {
    explore(|| {
        let shop = Arc::new(Shop::default());
        let waiter = {
            let shop = shop.clone();
            thread::spawn(move || shop.take())
        };
        shop.things.fetch_add(1, Ordering::Release);
        while shop.things.load(Ordering::Relaxed) > 0 {
            shop.waiters.futex().time_out();
            thread::yield_now();
        }
        waiter.join().unwrap();
    });
}

/// A door that is opened once, and its waiters, which pass no notification on.
#[derive(Default)]
struct Door {
    is_open: AtomicBool,
    waiters: EventCount,
}

impl Door {
    fn open(&self) {
        self.is_open.store(true, Ordering::Release);
        self.waiters.notify_all(full_fence());
    }

    fn pass(&self) {
        let is_open = |_| self.is_open.load(Ordering::Acquire).then_some(());
        let waited = self.waiters.wait_until(Deadline::NEVER, Duration::MAX, is_open);
        assert_eq!(waited.outcome, Some(()));
    }
}

/// One notification for all wakes all.
#[test]
fn loom_all_are_woken() {
    explore(|| {
        let door = Arc::new(Door::default());
        let waiters = [(); 2].map(|()| {
            let door = door.clone();
            thread::spawn(move || door.pass())
        });
        door.open();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}
