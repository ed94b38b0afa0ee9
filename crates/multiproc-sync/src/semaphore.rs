//! The free semaphore, placed in a region.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use multiproc_shm::Deadline;
use serde::{Deserialize, Serialize};

use crate::error::{AcquireTimeoutError, SemaphoreOverflow, TryAcquireError};
use crate::inspect::{Inspect, Inspection};
use crate::raw::Busy;
use crate::raw::semaphore::{Overflow, Semaphore as RawSemaphore};
use multiproc_shm::primitives::AtomicU32;
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{RECHECK, placed};

/// A semaphore between processes that is a free counter: `acquire` lowers it by one and waits while
/// it is 0, `release` raises it, whoever calls it.
///
/// For signals ("so many things are ready") rather than for limits. Where whoever acquires also
/// releases, use a [`BoundedSemaphore`](crate::BoundedSemaphore), whose permits come back when
/// their holder dies.
///
/// # When a process dies
///
/// What a process acquired and did not release before it died is gone: nothing says that it would
/// ever have released it. A waiter that dies takes nothing along, also not a wake-up that was meant
/// for it: another one who waits gets it within about 250 ms.
///
/// # Ordering and fairness
///
/// What was written before a `release` is visible to whoever acquires what it released. It is not
/// fair: whoever comes along takes what is there, also before those that sleep.
///
/// ```
/// use multiproc_sync::Semaphore;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ready = Semaphore::new(0)?;
/// assert!(ready.try_acquire().is_err());
/// ready.release(2)?; // in another process, as a rule
/// ready.acquire();
/// assert_eq!(ready.value(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct Semaphore {
    region: Region<SemaphoreControl>,
}

/// What its members share.
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

    /// Nobody owns anything of it.
    fn release_slot(&self, _: &[AtomicU32], _: usize) {}
}

impl Semaphore {
    /// The highest value.
    pub const MAX: u32 = RawSemaphore::MAX;

    /// A new semaphore of value `n`.
    ///
    /// # Errors
    ///
    /// If `n` is more than [`MAX`](Self::MAX), or there are no descriptors or no memory left, there
    /// is no `/proc`, or a resource limit is too small, which the error then names.
    pub fn new(n: u32) -> io::Result<Self> {
        if n > Self::MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a semaphore counts up to {}, and not to {n}", Self::MAX),
            ));
        }
        let region = Region::create(0, |control: &SemaphoreControl| control.semaphore.set_up(n))?;
        Ok(Self { region })
    }

    fn raw(&self) -> &RawSemaphore {
        &self.region.control().semaphore
    }

    /// The value at this moment.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.raw().value()
    }

    /// Lowers the value by one, waiting while it is 0, as long as it takes.
    pub fn acquire(&self) {
        while self.raw().acquire(Deadline::NEVER, RECHECK).is_err() {}
    }

    /// Lowers the value by one, without waiting.
    ///
    /// # Errors
    ///
    /// If it is 0.
    pub fn try_acquire(&self) -> Result<(), TryAcquireError> {
        self.raw().try_acquire().map_err(|Busy| TryAcquireError)
    }

    /// Lowers the value by one, waiting while it is 0 for at most `timeout`.
    ///
    /// # Errors
    ///
    /// If it was 0 all the time.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<(), AcquireTimeoutError> {
        self.acquire_until(Deadline::after(timeout))
    }

    /// Lowers the value by one, waiting while it is 0 until `deadline` at most.
    ///
    /// # Errors
    ///
    /// As [`acquire_timeout`](Self::acquire_timeout).
    pub fn acquire_deadline(&self, deadline: Instant) -> Result<(), AcquireTimeoutError> {
        self.acquire_until(Deadline::at(deadline))
    }

    fn acquire_until(&self, deadline: Deadline) -> Result<(), AcquireTimeoutError> {
        self.raw().acquire(deadline, RECHECK).map_err(|Busy| AcquireTimeoutError)
    }

    /// Raises the value by `n`, and wakes as many who wait. It may exceed the value of the start.
    ///
    /// # Errors
    ///
    /// If the value would exceed [`MAX`](Self::MAX); it is as before then.
    pub fn release(&self, n: u32) -> Result<(), SemaphoreOverflow> {
        self.raw().release(n).map_err(|Overflow| SemaphoreOverflow)
    }
}

impl Inspect for Semaphore {
    fn inspect(&self) -> Inspection {
        Inspection::of(&self.region, self.raw().waiters().has_sleepers())
    }

    fn observe(&self) {
        self.region.stand_aside();
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
