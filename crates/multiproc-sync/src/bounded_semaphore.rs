//! The bounded semaphore, placed in a region.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use multiproc_shm::Deadline;
use serde::{Deserialize, Serialize};

use crate::error::{AcquireTimeoutError, TryAcquireError};
use crate::inspect::{Inspect, Inspection};
use crate::raw::Busy;
use crate::raw::permits::{Permits, PermitsControl};
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::AtomicU32;
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{RECHECK, placed};

/// A number of permits that processes share: `acquire` takes one, dropping it gives it back.
///
/// For limits ("so many at a time"). There are never more permits than at the start: to give back
/// what was not taken cannot be written.
///
/// # When a process dies
///
/// Its permits come back: at once to whoever comes later, within about 250 ms to those that wait. A
/// waiter that dies changes nothing. A holder that is merely stopped (SIGSTOP) keeps its permits.
///
/// # Ordering and fairness
///
/// What a holder wrote before it gave its permit back is visible to the next holder of that permit.
/// It is not fair: whoever comes along takes a free permit, also before those that sleep. Taking one
/// looks at all that are taken: it is made for tens of permits, and works with thousands.
///
/// ```
/// use multiproc_sync::BoundedSemaphore;
///
/// # fn main() -> std::io::Result<()> {
/// let at_a_time = BoundedSemaphore::new(2)?;
/// let first = at_a_time.acquire();
/// let second = at_a_time.acquire();
/// assert!(at_a_time.try_acquire().is_err());
/// drop(first);
/// assert_eq!(at_a_time.available(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct BoundedSemaphore {
    region: Region<BoundedControl>,
}

/// The size of a permit.
const WORD: usize = size_of::<AtomicU32>();

/// What its members share, beside a word for each permit.
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
    /// The most permits.
    pub const MAX: u32 = 1 << 16;

    /// A new semaphore of `n` permits.
    ///
    /// # Errors
    ///
    /// If `n` is 0 or more than [`MAX`](Self::MAX), or there are no descriptors or no memory left,
    /// there is no `/proc`, or a resource limit is too small, which the error then names.
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

    /// How many permits there are in all.
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

    /// How many permits are free at this moment, those of dead holders included.
    #[must_use]
    pub fn available(&self) -> usize {
        self.raw().available_after_deaths(&self.region)
    }

    /// Takes a permit, waiting for one as long as it takes.
    ///
    /// # Panics
    ///
    /// If other code in this process has closed its descriptor, and holders may be dead.
    #[inline]
    pub fn acquire(&self) -> Permit<'_> {
        loop {
            if let Ok(permit) = self.acquire_until(Deadline::NEVER) {
                return permit;
            }
            self.region.assert_connected();
        }
    }

    /// Takes a permit if one is free (or its holder is dead), without waiting.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn try_acquire(&self) -> Result<Permit<'_>, TryAcquireError> {
        match self.raw().try_acquire(&self.region) {
            Ok(index) => Ok(self.permit(index)),
            Err(Busy) => Err(TryAcquireError),
        }
    }

    /// Takes a permit, waiting for one for at most `timeout`.
    ///
    /// # Errors
    ///
    /// If there was none in time.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>, AcquireTimeoutError> {
        self.acquire_until(Deadline::after(timeout))
    }

    /// Takes a permit, waiting for one until `deadline` at most.
    ///
    /// # Errors
    ///
    /// As [`acquire_timeout`](Self::acquire_timeout).
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
        self.region.stand_aside();
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

/// A permit of a [`BoundedSemaphore`]: it goes back when this is dropped, or this process dies.
#[must_use = "the permit goes back as soon as it is dropped"]
pub struct Permit<'a> {
    semaphore: &'a BoundedSemaphore,
    /// Who took it. A copy in a forked child has no effect.
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
