//! One monotonic point in time that bounds a whole call.

use std::time::{Duration, Instant};

/// When a blocking call gives up: at a point in time, or never.
///
/// A timeout is turned into a deadline once, at the edge; everything below works with the deadline,
/// so that retries, interrupted system calls and spurious wake-ups do not stretch it. The clock is
/// monotonic: setting the wall clock changes nothing.
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
    /// Waits for ever.
    pub const NEVER: Self = Self(None);

    /// `timeout` from now; never, if the clock cannot count that far.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        Self(Instant::now().checked_add(timeout))
    }

    /// At `instant`.
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    /// The time left: zero when past, `None` when never.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Whether it has passed.
    #[must_use]
    pub fn is_past(self) -> bool {
        self.0.is_some_and(|at| at <= Instant::now())
    }

    /// The earlier of the two.
    #[must_use]
    pub fn or_earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }
}
