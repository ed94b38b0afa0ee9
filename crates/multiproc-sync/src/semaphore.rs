//! The handle of a counting semaphore, placed in a region.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use multiproc_shm::primitives::AtomicU32;
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{Deadline, RECHECK, placed};
use serde::{Deserialize, Serialize};

use crate::error::{AcquireTimeoutError, SemaphoreOverflow, TryAcquireError};
use crate::inspect::{Inspect, Inspection};
use crate::raw::Busy;
use crate::raw::semaphore::{Overflow, Semaphore as RawSemaphore};

/// A counting semaphore between processes: `acquire` lowers the value by one and waits while it is
/// 0, `release` raises it. Any process may release.
///
/// Use it for signals (N things are ready) rather than for limits. Where the process that acquires
/// also releases, use a [`BoundedSemaphore`](crate::BoundedSemaphore): its permits are free again
/// when their holder dies.
///
/// # When a process dies
///
/// What a process had acquired and not released is lost, because a permit of this semaphore has no
/// owner. A waiter that dies has no effect: a wake-up that it had received goes to another waiter
/// within about 250 ms.
///
/// # Ordering and fairness
///
/// What was written before a `release` is visible to the process that acquires what it released.
/// The semaphore is not fair: a newcomer may overtake sleeping waiters.
///
/// # Examples
///
/// ```
/// use multiproc_sync::Semaphore;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ready = Semaphore::new(0)?;
/// assert!(ready.try_acquire().is_err());
/// ready.release(2)?; // usually in another process
/// ready.acquire();
/// assert_eq!(ready.value(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct Semaphore {
    region: Region<SemaphoreControl>,
}

/// The control block.
#[derive(Debug, Default)]
#[repr(C)]
struct SemaphoreControl {
    semaphore: RawSemaphore,
}

const _: () = assert!(size_of::<SemaphoreControl>() == 8);

placed!(SemaphoreControl { semaphore });

impl Control for SemaphoreControl {
    const KIND: u32 = u32::from_le_bytes(*b"SEMA");
    const NAME: &'static str = "semaphore";

    /// Nothing of a semaphore has an owner.
    fn release_slot(&self, _: &[AtomicU32], _: usize) {}
}

impl Semaphore {
    /// The maximum value.
    pub const MAX: u32 = RawSemaphore::MAX;

    /// Creates a semaphore of value `n`.
    ///
    /// # Errors
    ///
    /// Fails if `n` is more than [`MAX`](Self::MAX), if the process has run out of descriptors or
    /// memory, if `/proc` is not mounted, or if a resource limit is too small. The error then names
    /// the limit.
    pub fn new(n: u32) -> io::Result<Self> {
        if n > Self::MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the value of a semaphore is at most {}, not {n}", Self::MAX),
            ));
        }
        let region = Region::create(0, |control: &SemaphoreControl| control.semaphore.set_up(n))?;
        Ok(Self { region })
    }

    fn raw(&self) -> &RawSemaphore {
        &self.region.control().semaphore
    }

    /// Returns the current value.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.raw().value()
    }

    /// Lowers the value by one, and waits indefinitely while it is 0.
    ///
    /// The death of a process does not end the wait: if the only process that would release may
    /// die, use [`acquire_timeout`](Self::acquire_timeout) and check on it.
    #[doc(alias = "down")]
    #[doc(alias = "sem_wait")]
    pub fn acquire(&self) {
        while self.raw().acquire(Deadline::NEVER, RECHECK).is_err() {}
    }

    /// Lowers the value by one if it is not 0, without waiting.
    ///
    /// # Errors
    ///
    /// Returns [`TryAcquireError`] if the value is 0.
    pub fn try_acquire(&self) -> Result<(), TryAcquireError> {
        self.raw().try_acquire().map_err(|Busy| TryAcquireError)
    }

    /// Lowers the value by one, and waits for at most `timeout` while it is 0.
    ///
    /// # Errors
    ///
    /// Returns [`AcquireTimeoutError`] if it timed out.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::Semaphore;
    /// use std::time::Duration;
    ///
    /// let ready = Semaphore::new(0)?;
    /// assert!(ready.acquire_timeout(Duration::from_millis(1)).is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<(), AcquireTimeoutError> {
        self.acquire_until(Deadline::after(timeout))
    }

    /// Lowers the value by one, and waits until `deadline` at most while it is 0.
    ///
    /// # Errors
    ///
    /// Returns [`AcquireTimeoutError`] if it timed out.
    pub fn acquire_deadline(&self, deadline: Instant) -> Result<(), AcquireTimeoutError> {
        self.acquire_until(Deadline::at(deadline))
    }

    fn acquire_until(&self, deadline: Deadline) -> Result<(), AcquireTimeoutError> {
        self.raw().acquire(deadline, RECHECK).map_err(|Busy| AcquireTimeoutError)
    }

    /// Raises the value by `n`, and wakes up to `n` waiters. It never blocks.
    ///
    /// The value may exceed the initial one.
    ///
    /// # Errors
    ///
    /// Returns [`SemaphoreOverflow`] if the value would exceed [`MAX`](Self::MAX). It is then
    /// unchanged.
    ///
    /// # Examples
    ///
    /// ```
    /// let ready = multiproc_sync::Semaphore::new(0)?;
    /// ready.release(3)?;
    /// assert_eq!(ready.value(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "up")]
    #[doc(alias = "sem_post")]
    pub fn release(&self, n: u32) -> Result<(), SemaphoreOverflow> {
        self.raw().release(n).map_err(|Overflow| SemaphoreOverflow)
    }
}

impl Inspect for Semaphore {
    fn inspect(&self) -> Inspection {
        Inspection::of(&self.region, self.raw().waiters().has_sleepers())
    }

    fn observe(&self) {
        self.region.observe();
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("value", &self.value())
            .field("waited_for", &self.raw().waiters().has_sleepers())
            .field("members", &self.region.members())
            .finish()
    }
}
