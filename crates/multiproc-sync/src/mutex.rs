//! A lock with the value that it protects.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, RangeInclusive};
use std::time::{Duration, Instant};

use bytemuck::{Pod, bytes_of, bytes_of_mut};
use multiproc_shm::primitives::AtomicU32;
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{Deadline, failpoint, placed};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Abandoned, LockTimeoutError, TryLockError};
use crate::guard::{Held, Repair, debug_lock};
use crate::inspect::{Inspect, Inspection};
use crate::methods::lock_methods;
use crate::raw::lock::{Acquired, Lock as RawLock};
use crate::robust::{Robust, checked};

/// A value in shared memory, and the lock that protects it. Python calls it `Value`.
///
/// `T` is plain data: `bytemuck`'s `Pod`, which can be derived for structs without padding,
/// pointers and invalid bit patterns. The guard contains a copy of the value, which is written back
/// when the guard is dropped, if it was changed. So other processes never see a half-changed value.
///
/// # When a process dies
///
/// As with a [`Lock`](crate::Lock), the next acquirer gets [`Abandoned`], which contains the guard.
/// The value is then the one that the dead holder had found. Only if that process died within
/// writing its value back (which takes about as long as a memcpy of it), the value may be a mix of
/// both. A panic under the guard counts as a death, and nothing is written back.
///
/// Ordering and fairness are those of [`Lock`](crate::Lock).
///
/// # Examples
///
/// ```
/// use multiproc_sync::Mutex;
///
/// # fn main() -> std::io::Result<()> {
/// let highest = Mutex::new(0u64)?;
/// *highest.lock().unwrap() += 5;
/// assert_eq!(*highest.clone().lock().unwrap(), 5);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Value")]
#[doc(alias = "robust mutex")]
#[doc(alias = "EOWNERDEAD")]
pub struct Mutex<T> {
    region: Region<MutexControl>,
    value: PhantomData<T>,
}

/// The control block; the value is the region's data.
#[derive(Debug, Default)]
#[repr(C)]
struct MutexControl {
    lock: RawLock,
}

const _: () = assert!(size_of::<MutexControl>() == 4);

placed!(MutexControl { lock });

impl Control for MutexControl {
    const KIND: u32 = u32::from_le_bytes(*b"MUTX");
    const NAME: &'static str = "mutex";
    const DATA: RangeInclusive<usize> = 0..=usize::MAX; // compared with the size of `T`

    fn release_slot(&self, _: &[AtomicU32], slot: usize) {
        self.lock.release_slot(slot);
    }
}

impl<T: Pod> Mutex<T> {
    /// Creates a mutex that is free, with this value.
    ///
    /// # Errors
    ///
    /// Fails if the process has run out of descriptors or memory, if `/proc` is not mounted, or if
    /// a resource limit is too small. The error then names the limit.
    pub fn new(value: T) -> io::Result<Self> {
        let region = Region::create(size_of::<T>(), |_: &MutexControl| {})?;
        region.data().copy_in(0, bytes_of(&value));
        Ok(Self { region, value: PhantomData })
    }

    lock_methods!(MutexGuard<'_, T>, "Mutex::new(0u32)",);

    #[inline]
    fn acquire<'a, E: From<Abandoned<MutexGuard<'a, T>>>>(
        &'a self,
        take: impl FnOnce(Robust<'a, MutexControl>) -> Result<Acquired, E>,
    ) -> Result<MutexGuard<'a, T>, E> {
        let held = Held::new(self.robust(), take(self.robust())?);
        let is_abandoned = held.is_abandoned();
        let mut value = T::zeroed();
        self.region.data().copy_to(0, bytes_of_mut(&mut value));
        checked(MutexGuard { mutex: self, value, is_changed: false, held }, is_abandoned)
    }
}

impl<T> Mutex<T> {
    #[inline]
    fn robust(&self) -> Robust<'_, MutexControl> {
        Robust { lock: &self.region.control().lock, region: &self.region }
    }
}

/// For a manager, which does not know the type of the value.
impl<T> Mutex<T> {
    /// Creates a mutex with the bytes of a value of `T`. Bytes of another size are noticed when the
    /// handle is received.
    #[doc(hidden)]
    pub fn of_bytes(value: &[u8]) -> io::Result<Self> {
        let region = Region::create(value.len(), |_: &MutexControl| {})?;
        region.data().copy_in(0, value);
        Ok(Self { region, value: PhantomData })
    }
}

impl<T> Inspect for Mutex<T> {
    fn inspect(&self) -> Inspection {
        Inspection::of_lock(self.robust(), false)
    }

    fn observe(&self) {
        self.region.stand_aside();
    }
}

impl<T> Clone for Mutex<T> {
    fn clone(&self) -> Self {
        Self { region: self.region.clone(), value: PhantomData }
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Mutex");
        debug_lock(&mut text, self.robust());
        text.finish_non_exhaustive()
    }
}

impl<T> Serialize for Mutex<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.region.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Mutex<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let region = Region::<MutexControl>::deserialize(deserializer)?;
        let (came, expected) = (region.data().len(), size_of::<T>());
        if came != expected {
            return Err(serde::de::Error::custom(format!(
                "expected a multiproc mutex of a value of {expected} bytes, got one of {came} bytes"
            )));
        }
        Ok(Self { region, value: PhantomData })
    }
}

/// A guard of a [`Mutex`], which is released when the guard is dropped.
///
/// It dereferences to a copy of the value. Dropping the guard writes the copy back, if it was
/// borrowed mutably.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct MutexGuard<'a, T: Pod> {
    mutex: &'a Mutex<T>,
    value: T,
    is_changed: bool,
    /// Dropped last: the value is written back before the lock is released.
    held: Held<'a>,
}

impl<T: Pod> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Pod> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.is_changed = true;
        &mut self.value
    }
}

impl<T: Pod> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        let holder = self.held.holder();
        if self.is_changed && holder.member().is_some() && !holder.has_panicked() {
            self.mutex.region.data().copy_in(0, bytes_of(&self.value));
            failpoint::reached("mutex.written");
        }
    }
}

impl<T: Pod> Repair for MutexGuard<'_, T> {
    fn repaired(&mut self) {
        self.held.repaired();
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutexGuard").field("value", &self.value).finish()
    }
}
