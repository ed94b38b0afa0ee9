//! The event: a flag that members can wait for.
//!
//! # The word
//!
//! Bit 0 is set while the event is set. The other bits count how often it was set. By the count, a
//! waiter that sleeps while the event is set and cleared learns that it was set.
//!
//! # Orderings
//!
//! What was written before `set` must be visible to a member that learns of it: `set` is `AcqRel`,
//! which includes `Release`, and waiters use `Acquire`.

use std::time::Duration;

use multiproc_shm::event_count::EventCount;
use multiproc_shm::fences::full_fence_after_rmw;
use multiproc_shm::primitives::{AtomicU32, Ordering};
use multiproc_shm::{Deadline, failpoint};

const SET: u32 = 1;
const COUNT: u32 = 2;

fn is_set(state: u32) -> bool {
    state & SET != 0
}

/// An event. See the documentation of the module.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Event {
    word: AtomicU32,
    waiters: EventCount,
}

#[cfg(not(loom))]
multiproc_shm::placed!(Event { word, waiters });

impl Event {
    /// Sets the event and wakes all waiters. It never blocks.
    pub fn set(&self) {
        let mut state = self.word.load(Ordering::Relaxed);
        loop {
            let new = if is_set(state) { state } else { state.wrapping_add(COUNT) | SET };
            match self.word.compare_exchange_weak(state, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        failpoint::reached("event.set");
        self.waiters.notify_all(full_fence_after_rmw());
    }

    /// Clears the event.
    pub fn clear(&self) {
        self.word.fetch_and(!SET, Ordering::AcqRel);
    }

    /// Returns true if the event is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        is_set(self.word.load(Ordering::Acquire))
    }

    /// Waits until the event is set, or was set since the call. Returns false if it was not set
    /// before the deadline.
    #[must_use]
    pub fn wait(&self, deadline: Deadline, recheck: Duration) -> bool {
        let before = self.word.load(Ordering::Acquire);
        if is_set(before) {
            return true;
        }
        let was_set = |_| {
            let state = self.word.load(Ordering::Acquire);
            // If the word is the same, the event has not been set since.
            (state != before).then_some(())
        };
        self.waiters.wait_until(deadline, recheck, was_set).outcome.is_some()
    }

    /// Returns what waiters sleep on.
    #[must_use]
    pub fn waiters(&self) -> &EventCount {
        &self.waiters
    }
}
