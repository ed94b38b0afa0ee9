//! The counting semaphore: a count that any member may raise.
//!
//! # Invariants
//!
//! 1. The count changes by one compare-exchange. A process that dies before it has changed nothing,
//!    and one that dies after it has acquired or released for good.
//! 2. A release notifies as many waiters as it raised the count by. A waiter that slept and then
//!    acquired notifies another one if the count is not 0 (see
//!    [`event_count`](multiproc_shm::event_count)).
//!
//! # Orderings
//!
//! What was written before a release must be visible to the member that acquires what it released:
//! a release is `AcqRel`, which includes `Release`, and an acquisition is `Acquire`.

use std::time::Duration;

use multiproc_shm::event_count::EventCount;
use multiproc_shm::fences::{full_fence, full_fence_after_rmw};
use multiproc_shm::primitives::{AtomicU32, Ordering};
use multiproc_shm::{Deadline, failpoint};

use super::Busy;

/// A counting semaphore. See the documentation of the module.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Semaphore {
    count: AtomicU32,
    waiters: EventCount,
}

/// An error: the count would exceed [`Semaphore::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

#[cfg(not(loom))]
multiproc_shm::placed!(Semaphore { count, waiters });

impl Semaphore {
    /// The maximum count.
    pub const MAX: u32 = i32::MAX.unsigned_abs();

    /// Sets the initial count, before other processes can see the semaphore.
    pub fn set_up(&self, count: u32) {
        self.count.store(count, Ordering::Relaxed);
    }

    /// Returns the current count.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Lowers the count by one.
    ///
    /// # Errors
    ///
    /// Returns [`Busy`] if the count is 0.
    #[inline]
    pub fn try_acquire(&self) -> Result<(), Busy> {
        let mut count = self.count.load(Ordering::Relaxed);
        while count > 0 {
            match self.count.compare_exchange_weak(
                count,
                count - 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    failpoint::reached("semaphore.acquired");
                    return Ok(());
                }
                Err(now) => count = now,
            }
        }
        Err(Busy)
    }

    /// Lowers the count by one, and waits while it is 0.
    ///
    /// # Errors
    ///
    /// Returns [`Busy`] if the count is 0 until the deadline.
    #[inline]
    pub fn acquire(&self, deadline: Deadline, recheck: Duration) -> Result<(), Busy> {
        self.try_acquire().or_else(|Busy| self.acquire_contended(deadline, recheck))
    }

    #[cold]
    fn acquire_contended(&self, deadline: Deadline, recheck: Duration) -> Result<(), Busy> {
        let waited = self.waiters.wait_until(deadline, recheck, |_| self.try_acquire().ok());
        if waited.slept && self.value() > 0 {
            self.waiters.notify(1, full_fence());
        }
        waited.outcome.ok_or(Busy)
    }

    /// Raises the count by `n`.
    ///
    /// # Errors
    ///
    /// Returns [`Overflow`] if the count would exceed [`MAX`](Self::MAX). It is then unchanged.
    #[inline]
    pub fn release(&self, n: u32) -> Result<(), Overflow> {
        let mut count = self.count.load(Ordering::Relaxed);
        loop {
            let raised = count.checked_add(n).filter(|&raised| raised <= Self::MAX);
            match self.count.compare_exchange_weak(
                count,
                raised.ok_or(Overflow)?,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => count = now,
            }
        }
        failpoint::reached("semaphore.released");
        self.waiters.notify(n, full_fence_after_rmw());
        Ok(())
    }

    /// Returns what waiters sleep on.
    #[must_use]
    pub fn waiters(&self) -> &EventCount {
        &self.waiters
    }
}
