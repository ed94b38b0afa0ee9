//! Acquiring a lock whose holder may be dead: what all locks of this crate have in common.

use multiproc_shm::region::{Control, Region};
use multiproc_shm::{Deadline, OWNER_RECHECK};

use crate::error::{Abandoned, LockTimeoutError, TryLockError};
use crate::raw::Busy;
use crate::raw::lock::{Acquired, Lock as RawLock};

/// The lock of a handle, and the region that tells whether its holder is alive.
pub(crate) struct Robust<'a, C> {
    pub(crate) lock: &'a RawLock,
    pub(crate) region: &'a Region<C>,
}

impl<C> Clone for Robust<'_, C> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Robust<'_, C> {}

impl<C: Control> Robust<'_, C> {
    /// Acquires the lock, and waits for it indefinitely.
    ///
    /// # Panics
    ///
    /// Panics if other code has closed the region's descriptor and the holder may be dead.
    #[inline]
    pub(crate) fn lock(self) -> Acquired {
        loop {
            // Without a deadline, only a closed descriptor is an error.
            if let Ok(acquired) = self.lock.lock(self.region, Deadline::NEVER, OWNER_RECHECK) {
                return acquired;
            }
            self.region.assert_connected();
        }
    }

    /// Acquires the lock if it is free or its holder is dead.
    #[inline]
    pub(crate) fn try_lock<G>(self) -> Result<Acquired, TryLockError<G>> {
        self.lock.try_lock(self.region).map_err(|Busy| TryLockError::WouldBlock)
    }

    /// Acquires the lock, and waits for it until `deadline` at most.
    #[inline]
    pub(crate) fn lock_until<G>(self, deadline: Deadline) -> Result<Acquired, LockTimeoutError<G>> {
        let acquired = self.lock.lock(self.region, deadline, OWNER_RECHECK);
        acquired.map_err(|Busy| LockTimeoutError::Timeout)
    }
}

/// Returns the guard, or an error that contains it if a holder died.
#[inline]
pub(crate) fn checked<G, E: From<Abandoned<G>>>(guard: G, is_abandoned: bool) -> Result<G, E> {
    if is_abandoned { Err(Abandoned { guard }.into()) } else { Ok(guard) }
}
