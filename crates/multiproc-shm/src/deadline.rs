//! One monotonic point in time that bounds a whole call.

use std::time::{Duration, Instant};

/// The time at which a blocking call gives up, or never.
///
/// A timeout is turned into a deadline once, at the public call. Everything below uses the
/// deadline, so retries, interrupted system calls and spurious wake-ups do not extend it. The clock
/// is monotonic, so setting the wall clock has no effect.
///
/// ```
/// use multiproc_shm::Deadline;
/// use std::time::Duration;
///
/// assert!(Deadline::after(Duration::ZERO).is_past());
/// assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No deadline: the call waits indefinitely.
    pub const NEVER: Self = Self(None);

    /// Returns the time `timeout` from now, or [`NEVER`](Self::NEVER) if the clock cannot represent
    /// it.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        Self(Instant::now().checked_add(timeout))
    }

    /// Returns the deadline at `instant`.
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    /// Returns the time left: zero if the deadline has passed, `None` if there is no deadline.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Returns `true` if the deadline has passed.
    #[must_use]
    pub fn is_past(self) -> bool {
        self.0.is_some_and(|at| at <= Instant::now())
    }

    /// Returns the earlier of the two.
    #[must_use]
    pub fn or_earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }
}
