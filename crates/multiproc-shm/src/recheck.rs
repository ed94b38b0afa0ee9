//! When to look for deaths: by time, whatever wakes a sleeper.
//!
//! Were it only when a sleep runs out, somebody who is woken again and again (by notifications that
//! others profit from, by signals) would never look.

use std::time::Duration;

use crate::Deadline;

use crate::primitives::Futex;

/// The next time to look.
pub struct Recheck {
    interval: Duration,
    next: Deadline,
}

impl Recheck {
    /// Each time that so long has passed, from now on.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self { interval, next: Deadline::after(interval) }
    }

    /// Sleeps while the word holds `expected`, until the deadline or the next look. Whether it is
    /// time to look.
    pub fn sleep(&mut self, word: &Futex, expected: u32, deadline: Deadline) -> bool {
        let woken = word.wait(expected, deadline.or_earlier(self.next));
        // In a model time does not pass, and a wait that was not woken stands for the interval.
        let is_time = !woken || self.next.is_past();
        if is_time {
            self.next = Deadline::after(self.interval);
        }
        is_time
    }
}

/// How often a sleeper checks whether a death has taken its wake-up along, or what it waits for.
///
/// An idle waiter wakes four times a second for it, which is about 0.01 % of a CPU.
pub const RECHECK: Duration = Duration::from_millis(250);

/// The same for those who wait for the holder of a lock: recovery takes half of it on average.
pub const OWNER_RECHECK: Duration = Duration::from_millis(100);
