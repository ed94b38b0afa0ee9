//! The handle of a lock: a raw lock, placed in a region.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use multiproc_shm::primitives::AtomicU32;
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{Deadline, placed};
use serde::{Deserialize, Serialize};

use crate::error::{Abandoned, LockTimeoutError, TryLockError};
use crate::guard::{Held, Repair, debug_lock};
use crate::inspect::{Inspect, Inspection};
use crate::methods::lock_methods;
use crate::raw::lock::{Acquired, Lock as RawLock};
use crate::robust::{Robust, checked};

/// A mutual exclusion lock between processes and threads, without data of its own.
///
/// Clones and received handles are the same lock. Dropping the guard releases it. Use a
/// [`Mutex`](crate::Mutex) for a lock with the value that it protects.
///
/// # When a process dies
///
/// If the holder dies, or panics under the guard, the next acquirer gets [`Abandoned`], which
/// contains the guard. A process that was already waiting gets it within about 100 ms. A waiter
/// that dies has no effect. A holder that is stopped (SIGSTOP) is not dead, and keeps the lock.
///
/// # Ordering and fairness
///
/// What a holder wrote to shared memory before it unlocked is visible to the next holder. A
/// newcomer may overtake sleeping waiters, but a waiter that has been overtaken for a millisecond
/// is next.
///
/// The lock is not re-entrant: a thread that locks it twice waits for itself indefinitely, as with
/// Python's `multiprocessing.Lock`. See [`RLock`](crate::RLock).
///
/// It is released by dropping the guard. Unlike Python's, it cannot be released by another process,
/// nor by a thread that does not have the guard. Use a [`Semaphore`](crate::Semaphore) or an
/// [`Event`](crate::Event) to let another process go on.
///
/// # Examples
///
/// ```
/// use multiproc_sync::Lock;
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let lock = Lock::new()?;
/// let guard = lock.lock().expect("no holder died");
/// let same = lock.clone();
/// assert!(same.try_lock().unwrap_err().is_would_block());
/// assert!(same.lock_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
/// drop(guard);
/// assert!(same.try_lock().is_ok());
/// # Ok(())
/// # }
/// ```
#[doc(alias = "robust mutex")]
#[doc(alias = "EOWNERDEAD")]
#[derive(Clone, Serialize, Deserialize)]
pub struct Lock {
    region: Region<LockControl>,
}

/// The control block.
#[derive(Debug, Default)]
#[repr(C)]
struct LockControl {
    lock: RawLock,
}

const _: () = assert!(size_of::<LockControl>() == 4);

placed!(LockControl { lock });

impl Control for LockControl {
    const KIND: u32 = u32::from_le_bytes(*b"LOCK");
    const NAME: &'static str = "lock";

    fn release_slot(&self, _: &[AtomicU32], slot: usize) {
        self.lock.release_slot(slot);
    }
}

impl Lock {
    /// Creates a lock that is free.
    ///
    /// # Errors
    ///
    /// Fails if the process has run out of descriptors or memory, if `/proc` is not mounted, or if
    /// a resource limit is too small. The error then names the limit.
    pub fn new() -> io::Result<Self> {
        Ok(Self { region: Region::create(0, |_| {})? })
    }

    lock_methods!(LockGuard<'_>, "Lock::new()",);

    #[inline]
    fn robust(&self) -> Robust<'_, LockControl> {
        Robust { lock: &self.region.control().lock, region: &self.region }
    }

    #[inline]
    fn acquire<'a, E: From<Abandoned<LockGuard<'a>>>>(
        &'a self,
        take: impl FnOnce(Robust<'a, LockControl>) -> Result<Acquired, E>,
    ) -> Result<LockGuard<'a>, E> {
        let held = Held::new(self.robust(), take(self.robust())?);
        let is_abandoned = held.is_abandoned();
        checked(LockGuard { held, lock: self }, is_abandoned)
    }
}

impl Inspect for Lock {
    fn inspect(&self) -> Inspection {
        Inspection::of_lock(self.robust(), false)
    }

    fn observe(&self) {
        self.region.observe();
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Lock");
        debug_lock(&mut text, self.robust());
        text.finish()
    }
}

/// A guard of a [`Lock`], which is released when the guard is dropped.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct LockGuard<'a> {
    held: Held<'a>,
    lock: &'a Lock,
}

impl<'a> LockGuard<'a> {
    pub(crate) fn lock(&self) -> &'a Lock {
        self.lock
    }
}

impl Repair for LockGuard<'_> {
    fn repaired(&mut self) {
        self.held.repaired();
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("lock", self.lock).finish()
    }
}
