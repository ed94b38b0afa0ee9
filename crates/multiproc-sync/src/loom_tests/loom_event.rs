use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use multiproc_shm::Deadline;
use multiproc_shm::failpoint::die_at;
use multiproc_shm::primitives::{Bytes, explore};

use crate::raw::event::Event;

fn wait(event: &Event) {
    assert!(event.wait(Deadline::NEVER, Duration::MAX));
}

/// `set` wakes all waiters, and what was written before it is visible to them.
#[test]
fn loom_event_wakes_all() {
    explore(|| {
        let shared = Arc::new((Event::default(), Bytes::zeroed(8)));
        let threads = [(); 2].map(|()| {
            let shared = shared.clone();
            thread::spawn(move || {
                wait(&shared.0);
                assert_eq!(shared.1.copy_out(0), 7u64.to_le_bytes());
            })
        });
        shared.1.copy_in(0, &7u64.to_le_bytes());
        shared.0.set();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// What was written before `clear` is visible to a thread that sees the event clear.
#[test]
fn loom_event_clear_hands_over() {
    explore(|| {
        let shared = Arc::new((Event::default(), Bytes::zeroed(8)));
        shared.0.set();
        let other = shared.clone();
        let thread = thread::spawn(move || {
            other.1.copy_in(0, &7u64.to_le_bytes());
            other.0.clear();
        });
        while shared.0.is_set() {
            thread::yield_now();
        }
        assert_eq!(shared.1.copy_out(0), 7u64.to_le_bytes());
        thread.join().unwrap();
    });
}

/// A waiter does not miss a `set` that is followed by a `clear` at once.
#[test]
fn loom_event_set_and_clear() {
    explore(|| {
        let event = Arc::new(Event::default());
        let waiter = {
            let event = event.clone();
            thread::spawn(move || wait(&event))
        };
        while !event.waiters().has_sleepers() {
            thread::yield_now();
        }
        event.set();
        event.clear();
        waiter.join().unwrap();
    });
}

/// The member that sets the event dies before it notifies: a recheck makes up for it.
#[test]
fn loom_event_setter_dies() {
    explore(|| {
        let event = Arc::new(Event::default());
        let waiter = {
            let event = event.clone();
            thread::spawn(move || {
                wait(&event);
                event.clear();
            })
        };
        assert!(die_at("event.set", || event.set()));
        while event.is_set() {
            event.waiters().futex().time_out();
            thread::yield_now();
        }
        waiter.join().unwrap();
    });
}
