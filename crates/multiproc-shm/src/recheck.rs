//! When a sleeper checks for deaths: at fixed intervals, whatever wakes it.
//!
//! If it checked only when a sleep times out, a sleeper that is woken again and again (by
//! notifications that others consume, or by signals) would never check.

use std::time::Duration;

use crate::Deadline;

use crate::primitives::Futex;

/// The time of the next check.
pub struct Recheck {
    interval: Duration,
    next: Deadline,
}

impl Recheck {
    /// Returns checks at every `interval` from now on.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self { interval, next: Deadline::after(interval) }
    }

    /// Sleeps while the word holds `expected`, until the deadline or the next check. Returns `true`
    /// if it is time to check.
    pub fn sleep(&mut self, word: &Futex, expected: u32, deadline: Deadline) -> bool {
        let woken = word.wait(expected, deadline.or_earlier(self.next));
        // Time does not pass in a model. A wait that was not woken stands for the interval.
        let is_time = !woken || self.next.is_past();
        if is_time {
            self.next = Deadline::after(self.interval);
        }
        is_time
    }
}

/// The interval at which a sleeper checks whether its wake-up was lost with a killed process.
///
/// An idle waiter wakes four times a second for this, which takes about 0.01 % of a CPU.
pub const RECHECK: Duration = Duration::from_millis(250);

/// The interval at which a waiter checks whether the holder of a lock is alive. Recovery takes half
/// of it on average.
pub const OWNER_RECHECK: Duration = Duration::from_millis(100);
