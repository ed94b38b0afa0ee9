//! The handle of a re-entrant lock: a raw lock with its thread and depth, placed in a region.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use multiproc_shm::members::Members;
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Ordering};
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{Deadline, failpoint, placed, thread_id};
use serde::{Deserialize, Serialize};

use crate::error::{Abandoned, LockTimeoutError, TryLockError};
use crate::guard::{Holder, Repair, debug_lock};
use crate::inspect::{Inspect, Inspection};
use crate::methods::lock_methods;
use crate::raw::lock::{Acquired, Lock as RawLock};
use crate::robust::{Robust, checked};

/// A re-entrant lock between processes: the thread that holds it can lock it again.
///
/// It belongs to one thread of one process, and is released when that thread has dropped all of its
/// guards. Use a [`Lock`](crate::Lock) unless code under the lock calls code that locks it as well.
///
/// # When a process dies
///
/// As with a [`Lock`](crate::Lock): if the holder dies at any depth, the next acquirer gets
/// [`Abandoned`], which contains the guard. A thread that ends without dropping its guard (by
/// `mem::forget`) has not died: its process holds the lock until the process ends.
///
/// Ordering and fairness are those of [`Lock`](crate::Lock).
///
/// # Examples
///
/// ```
/// use multiproc_sync::RLock;
///
/// # fn main() -> std::io::Result<()> {
/// let lock = RLock::new()?;
/// let outer = lock.lock().unwrap();
/// let inner = lock.lock().unwrap(); // the same thread: does not wait
/// drop(outer);
/// drop(inner); // releases the lock
/// # Ok(())
/// # }
/// ```
#[doc(alias = "recursive mutex")]
#[doc(alias = "reentrant")]
#[doc(alias = "EOWNERDEAD")]
#[derive(Clone, Serialize, Deserialize)]
pub struct RLock {
    region: Region<RLockControl>,
}

/// The control block.
#[derive(Debug, Default)]
#[repr(C)]
struct RLockControl {
    lock: RawLock,
    /// The number of guards. Only the holder writes it.
    depth: AtomicU32,
    /// The thread that holds the lock, 0 if it is free: the number of its member in the upper
    /// half, and that of the thread in the lower. Only the holder writes it, and no two
    /// threads have the same numbers, so a thread that reads its own numbers has written them.
    thread: AtomicU64,
}

const _: () = {
    assert!(std::mem::offset_of!(RLockControl, depth) == 4);
    assert!(std::mem::offset_of!(RLockControl, thread) == 8);
    assert!(size_of::<RLockControl>() == 16);
};

placed!(RLockControl { lock, depth, thread });

impl Control for RLockControl {
    const KIND: u32 = u32::from_le_bytes(*b"RLCK");
    const NAME: &'static str = "re-entrant lock";

    fn release_slot(&self, _: &[AtomicU32], slot: usize) {
        self.lock.release_slot(slot);
    }
}

impl RLock {
    /// Creates a lock that is free.
    ///
    /// # Errors
    ///
    /// Fails if the process has run out of descriptors or memory, if `/proc` is not mounted, or if
    /// a resource limit is too small. The error then names the limit.
    pub fn new() -> io::Result<Self> {
        Ok(Self { region: Region::create(0, |_| {})? })
    }

    lock_methods!(
        RLockGuard<'_>,
        "RLock::new()",
        /// If this thread already holds the lock, it returns another guard at once.
    );

    #[inline]
    fn robust(&self) -> Robust<'_, RLockControl> {
        Robust { lock: &self.region.control().lock, region: &self.region }
    }

    #[inline]
    fn acquire<'a, E: From<Abandoned<RLockGuard<'a>>>>(
        &'a self,
        take: impl FnOnce(Robust<'a, RLockControl>) -> Result<Acquired, E>,
    ) -> Result<RLockGuard<'a>, E> {
        let RLockControl { lock, depth, thread } = self.region.control();
        let process = self.region.me();
        // With the member: while the lock changes hands, `thread` may belong to another process.
        let me = u64::from(process.bits()) << 32 | thread_id() & u64::from(u32::MAX);
        if lock.owner() == Some(process) && thread.load(Ordering::Relaxed) == me {
            // There are never 2^32 guards, but a corrupted word may contain any number.
            let deeper = depth.load(Ordering::Relaxed).saturating_add(1);
            depth.store(deeper, Ordering::Relaxed);
        } else {
            take(self.robust())?;
            failpoint::reached("rlock.taken");
            thread.store(me, Ordering::Relaxed);
            depth.store(1, Ordering::Relaxed);
        }
        let is_abandoned = lock.is_abandoned();
        let holder = Holder::new(&self.region);
        checked(RLockGuard { lock: self, holder, this_thread: PhantomData }, is_abandoned)
    }
}

impl Inspect for RLock {
    fn inspect(&self) -> Inspection {
        Inspection::of_lock(self.robust(), false)
    }

    fn observe(&self) {
        self.region.observe();
    }
}

impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depth = &self.region.control().depth;
        let mut text = f.debug_struct("RLock");
        debug_lock(&mut text, self.robust());
        text.field("depth", &depth.load(Ordering::Relaxed)).finish()
    }
}

/// A guard of an [`RLock`], which is released when the last guard is dropped.
///
/// It cannot be sent to another thread.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct RLockGuard<'a> {
    lock: &'a RLock,
    holder: Holder<'a>,
    this_thread: PhantomData<*const ()>,
}

impl Repair for RLockGuard<'_> {
    fn repaired(&mut self) {
        self.lock.region.control().lock.repaired();
    }
}

impl Drop for RLockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(member) = self.holder.member() else { return };
        let RLockControl { lock, depth, thread } = self.lock.region.control();
        if self.holder.has_panicked() {
            lock.abandon();
        }
        let left = depth.load(Ordering::Relaxed).saturating_sub(1);
        depth.store(left, Ordering::Relaxed);
        if left == 0 {
            thread.store(0, Ordering::Relaxed);
            failpoint::reached("rlock.releasing");
            // The lock stays abandoned until a holder has called `into_guard`.
            let is_abandoned = lock.is_abandoned();
            lock.unlock(member, if is_abandoned { Acquired::OwnerDied } else { Acquired::Clean });
        }
    }
}

impl fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLockGuard").field("lock", self.lock).finish()
    }
}
