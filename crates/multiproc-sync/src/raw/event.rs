//! The event: a flag that many wait for.
//!
//! # The word
//!
//! Bit 0 says that it is set; the other bits count how often it was set. The count lets a waiter
//! that sleeps through "set" and "clear" know that it was set.
//!
//! # Orderings
//!
//! What was written before `set` must be visible to whoever learns of it: `set` releases, a waiter
//! acquires.

use std::time::Duration;

use multiproc_shm::Deadline;

use multiproc_shm::event_count::EventCount;
use multiproc_shm::failpoint;
use multiproc_shm::fences::full_fence_after_rmw;
use multiproc_shm::primitives::{AtomicU32, Ordering};

const SET: u32 = 1;
const COUNT: u32 = 2;

fn is_set(state: u32) -> bool {
    state & SET != 0
}

/// See the module's text.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Event {
    word: AtomicU32,
    waiters: EventCount,
}

#[cfg(not(loom))]
multiproc_shm::placed!(Event { word, waiters });

impl Event {
    /// Sets it, and wakes all who wait. Waits for nobody.
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

    /// Clears it.
    pub fn clear(&self) {
        self.word.fetch_and(!SET, Ordering::AcqRel);
    }

    /// Whether it is set at this moment.
    #[must_use]
    pub fn is_set(&self) -> bool {
        is_set(self.word.load(Ordering::Acquire))
    }

    /// Waits until it is set, or was set since the call. False: it was not in time.
    #[must_use]
    pub fn wait(&self, deadline: Deadline, recheck: Duration) -> bool {
        let before = self.word.load(Ordering::Acquire);
        if is_set(before) {
            return true;
        }
        let was_set = |_| {
            let state = self.word.load(Ordering::Acquire);
            // Clear and as often set as before: nothing has happened.
            (state != before).then_some(())
        };
        self.waiters.wait_until(deadline, recheck, was_set).outcome.is_some()
    }

    /// Where those sleep who wait.
    #[must_use]
    pub fn waiters(&self) -> &EventCount {
        &self.waiters
    }
}
