//! The handle of a bounded semaphore, placed in a region.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::AtomicU32;
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{Deadline, RECHECK, placed};
use serde::{Deserialize, Serialize};

use crate::error::{AcquireTimeoutError, TryAcquireError};
use crate::inspect::{Inspect, Inspection};
use crate::raw::Busy;
use crate::raw::permits::{Permits, PermitsControl};

/// A semaphore with a fixed number of permits, each of which has an owner: `acquire` takes one, and
/// dropping the [`Permit`] releases it.
///
/// Use it for limits: at most N holders at a time. Over-releasing cannot be expressed, since a
/// permit is released only by dropping it.
///
/// # When a process dies
///
/// Its permits are free again. Waiters get them within about 250 ms, later callers at once. A
/// waiter that dies has no effect. A holder that is stopped (SIGSTOP) is not dead, and keeps its
/// permits.
///
/// # Ordering and fairness
///
/// What a holder wrote before it released its permit is visible to the next holder of that permit.
/// The semaphore is not fair: a newcomer may overtake sleeping waiters. `acquire` searches the
/// permits for a free one, in linear time: it is designed for tens of permits, and works with
/// thousands.
///
/// # Examples
///
/// ```
/// use multiproc_sync::BoundedSemaphore;
///
/// # fn main() -> std::io::Result<()> {
/// let downloads = BoundedSemaphore::new(2)?;
/// let first = downloads.acquire();
/// let second = downloads.acquire();
/// assert!(downloads.try_acquire().is_err());
/// drop(first);
/// assert_eq!(downloads.available(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct BoundedSemaphore {
    region: Region<BoundedControl>,
}

/// The size of the word of a permit.
const WORD: usize = size_of::<AtomicU32>();

/// The control block; the words of the permits are the region's data.
#[derive(Debug, Default)]
#[repr(C)]
struct BoundedControl {
    permits: PermitsControl,
}

const _: () = assert!(size_of::<BoundedControl>() == 4);

placed!(BoundedControl { permits });

impl Control for BoundedControl {
    const KIND: u32 = u32::from_le_bytes(*b"PERM");
    const NAME: &'static str = "bounded semaphore";
    const DATA: RangeInclusive<usize> = WORD..=WORD * BoundedSemaphore::MAX as usize;

    fn release_slot(&self, words: &[AtomicU32], slot: usize) {
        Permits { control: &self.permits, words }.release_slot(slot);
    }
}

impl BoundedSemaphore {
    /// The maximum number of permits.
    pub const MAX: u32 = 1 << 16;

    /// Creates a semaphore with `n` permits, all of which are free.
    ///
    /// # Errors
    ///
    /// Fails if `n` is 0 or more than [`MAX`](Self::MAX), if the process has run out of descriptors
    /// or memory, if `/proc` is not mounted, or if a resource limit is too small. The error then
    /// names the limit.
    pub fn new(n: u32) -> io::Result<Self> {
        if n == 0 || n > Self::MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a bounded semaphore has between 1 and {} permits, not {n}", Self::MAX),
            ));
        }
        let region = Region::create(n as usize * WORD, |_| {})?;
        Ok(Self { region })
    }

    #[inline]
    fn raw(&self) -> Permits<'_> {
        Permits { control: &self.region.control().permits, words: self.region.words() }
    }

    /// Returns the number of permits, free or not.
    #[must_use]
    pub fn permits(&self) -> usize {
        self.region.words().len()
    }

    /// The former name of [`permits`](Self::permits).
    #[doc(hidden)]
    #[must_use]
    pub fn permits_in_all(&self) -> usize {
        self.permits()
    }

    /// Returns the number of permits that are free or belong to a dead holder.
    #[must_use]
    pub fn available(&self) -> usize {
        self.raw().available_after_deaths(&self.region)
    }

    /// Acquires a permit, and waits for one indefinitely.
    ///
    /// If a holder dies while this waits, its permit is free within about 250 ms.
    ///
    /// # Panics
    ///
    /// Panics if other code in this process has closed the semaphore's descriptor and holders may
    /// be dead.
    ///
    /// # Examples
    ///
    /// ```
    /// let downloads = multiproc_sync::BoundedSemaphore::new(4)?;
    /// let permit = downloads.acquire();
    /// // At most four processes or threads are here at the same time.
    /// drop(permit);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "down")]
    #[doc(alias = "sem_wait")]
    #[inline]
    pub fn acquire(&self) -> Permit<'_> {
        loop {
            if let Ok(permit) = self.acquire_until(Deadline::NEVER) {
                return permit;
            }
            self.region.assert_connected();
        }
    }

    /// Acquires a permit if one is free or its holder is dead, without waiting.
    ///
    /// # Errors
    ///
    /// Returns [`TryAcquireError`] if living holders have all permits.
    ///
    /// # Examples
    ///
    /// ```
    /// let downloads = multiproc_sync::BoundedSemaphore::new(1)?;
    /// let _permit = downloads.acquire();
    /// assert!(downloads.try_acquire().is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_acquire(&self) -> Result<Permit<'_>, TryAcquireError> {
        match self.raw().try_acquire(&self.region) {
            Ok(index) => Ok(self.permit(index)),
            Err(Busy) => Err(TryAcquireError),
        }
    }

    /// Acquires a permit, and waits for one for at most `timeout`.
    ///
    /// If a holder dies while this waits, its permit is free within about 250 ms.
    ///
    /// # Errors
    ///
    /// Returns [`AcquireTimeoutError`] if it timed out.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let downloads = multiproc_sync::BoundedSemaphore::new(1)?;
    /// let permit = downloads.acquire_timeout(Duration::from_secs(1))?;
    /// assert!(downloads.acquire_timeout(Duration::from_millis(1)).is_err());
    /// # drop(permit);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>, AcquireTimeoutError> {
        self.acquire_until(Deadline::after(timeout))
    }

    /// Acquires a permit, and waits for one until `deadline` at most.
    ///
    /// # Errors
    ///
    /// Returns [`AcquireTimeoutError`] if it timed out.
    pub fn acquire_deadline(&self, deadline: Instant) -> Result<Permit<'_>, AcquireTimeoutError> {
        self.acquire_until(Deadline::at(deadline))
    }

    #[inline]
    fn permit(&self, index: usize) -> Permit<'_> {
        Permit { semaphore: self, member: self.region.me(), index }
    }

    #[inline]
    fn acquire_until(&self, deadline: Deadline) -> Result<Permit<'_>, AcquireTimeoutError> {
        match self.raw().acquire(&self.region, deadline, RECHECK) {
            Ok(index) => Ok(self.permit(index)),
            Err(Busy) => Err(AcquireTimeoutError),
        }
    }
}

impl Inspect for BoundedSemaphore {
    fn inspect(&self) -> Inspection {
        Inspection::of(&self.region, self.raw().control.waiters().has_sleepers())
    }

    fn observe(&self) {
        self.region.observe();
    }
}

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedSemaphore")
            .field("available", &self.available())
            .field("permits", &self.permits())
            .field("waited_for", &self.raw().control.waiters().has_sleepers())
            .field("members", &self.region.members())
            .finish()
    }
}

/// A permit of a [`BoundedSemaphore`]. It is released when this is dropped, or this process dies.
#[must_use = "the permit goes back as soon as it is dropped"]
pub struct Permit<'a> {
    semaphore: &'a BoundedSemaphore,
    /// The member that acquired it. A copy in a forked child has no effect.
    member: MemberId,
    index: usize,
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("semaphore", self.semaphore)
            .field("index", &self.index)
            .finish()
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.semaphore.region.membership().is(self.member) {
            self.semaphore.raw().release(self.member, self.index);
        }
    }
}
