//! The free semaphore: a count that anyone may raise.
//!
//! # Invariants
//!
//! 1. The count changes by one compare-exchange: a process that dies before it has changed nothing,
//!    one that dies after it has taken, or given, for good.
//! 2. Whoever raises the count notifies as many as it raised it by; whoever slept and took one
//!    passes the notification on if more is there (see [`event_count`](multiproc_shm::event_count)).
//!
//! # Orderings
//!
//! What was written before a release must be visible to whoever acquires what it released: the
//! release releases, the acquire acquires.

use std::time::Duration;

use multiproc_shm::Deadline;

use super::Busy;
use multiproc_shm::event_count::EventCount;
use multiproc_shm::failpoint;
use multiproc_shm::fences::{full_fence, full_fence_after_rmw};
use multiproc_shm::primitives::{AtomicU32, Ordering};

/// See the module's text.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Semaphore {
    count: AtomicU32,
    waiters: EventCount,
}

/// The count would exceed [`Semaphore::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

#[cfg(not(loom))]
multiproc_shm::placed!(Semaphore { count, waiters });

impl Semaphore {
    /// The highest count.
    pub const MAX: u32 = i32::MAX.unsigned_abs();

    /// Sets the count. Before anybody else can see it.
    pub fn set_up(&self, count: u32) {
        self.count.store(count, Ordering::Relaxed);
    }

    /// The count at this moment.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Lowers the count by one.
    ///
    /// # Errors
    ///
    /// If it is 0.
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

    /// Lowers the count by one, waiting until it is not 0.
    ///
    /// # Errors
    ///
    /// If it is 0 until the deadline.
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
    /// If it would exceed [`MAX`](Self::MAX); it is as before then.
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

    /// Where those sleep who wait.
    #[must_use]
    pub fn waiters(&self) -> &EventCount {
        &self.waiters
    }
}
