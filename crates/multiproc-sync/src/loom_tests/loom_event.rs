use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use multiproc_pipe::Deadline;

use crate::fault::die_at;
use crate::primitives::{Bytes, explore};
use crate::raw::event::Event;

fn wait(event: &Event) {
    assert!(event.wait(Deadline::NEVER, Duration::MAX));
}

/// What was written before `set` is there for those who waited; all of them wake.
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

/// What was written before a `set` that found it set already is there as well.
#[test]
fn loom_event_set_twice() {
    explore(|| {
        let shared = Arc::new((Event::default(), Bytes::zeroed(8)));
        shared.0.set();
        let other = shared.clone();
        let thread = thread::spawn(move || {
            other.1.copy_in(0, &7u64.to_le_bytes());
            other.0.set();
            other.0.clear();
        });
        // It is clear: so both `set` and `clear` of the other one have happened.
        while shared.0.is_set() {
            thread::yield_now();
        }
        thread.join().unwrap();
        assert_eq!(shared.1.copy_out(0), 7u64.to_le_bytes());
    });
}

/// A sleeper is not overtaken by a `clear`: it was set since the wait began, or is set again.
#[test]
fn loom_event_set_and_clear() {
    explore(|| {
        let event = Arc::new(Event::default());
        let waiter = {
            let event = event.clone();
            thread::spawn(move || wait(&event))
        };
        event.set();
        event.clear();
        event.set();
        waiter.join().unwrap();
    });
}

/// Whoever sets it dies before it notifies: the recheck interval makes up for it.
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
