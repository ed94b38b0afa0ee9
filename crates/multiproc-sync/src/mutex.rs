//! A lock with the value that it protects.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, RangeInclusive};
use std::time::{Duration, Instant};

use bytemuck::bytes_of;
use multiproc_shm::primitives::AtomicU32;
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{Deadline, failpoint, placed};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Abandoned, LockTimeoutError, TryLockError};
use crate::guard::{Held, Repair, debug_lock};
use crate::inspect::{Inspect, Inspection};
use crate::methods::lock_methods;
use crate::plain::{Opened, Plain};
use crate::raw::lock::{Acquired, Lock as RawLock};
use crate::robust::{Robust, checked};

/// A value in shared memory, and the lock that protects it. Python calls it `Value`.
///
/// `T` is [`Plain`] data: a number, a `bool`, an array of them, or a struct or enum that derives
/// `bytemuck`'s traits. The guard contains a copy of the value, which is written back
/// when the guard is dropped, if it was changed. So other processes never see a half-changed value.
///
/// # When a process dies
///
/// As with a [`Lock`](crate::Lock), the next acquirer gets [`Abandoned`], which contains the guard.
/// The value is then the one that the dead holder had found. Only if that process died within
/// writing its value back (which takes about as long as a memcpy of it), the value may be a mix of
/// both. A panic under the guard counts as a death, and nothing is written back.
///
/// If the bytes are no value of `T` (another process has overwritten them with a 2 where a `bool`
/// is, for example), the acquirer gets `Abandoned` as well. The guard then contains the value that
/// this process found when it opened the mutex, and `into_guard` writes it back.
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
    opened: Opened<T>,
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

impl<T: Plain> Mutex<T> {
    /// Creates a mutex that is free, with this value.
    ///
    /// # Errors
    ///
    /// Fails if the process has run out of descriptors or memory, if `/proc` is not mounted, or if
    /// a resource limit is too small. The error then names the limit.
    pub fn new(value: T) -> io::Result<Self> {
        let region = Region::create(size_of::<T>(), |_: &MutexControl| {})?;
        region.data().copy_in(0, bytes_of(&value));
        let opened = Opened::new(region.data());
        Ok(Self { region, opened })
    }

    lock_methods!(MutexGuard<'_, T>, "Mutex::new(0u32)",);

    #[inline]
    fn acquire<'a, E: From<Abandoned<MutexGuard<'a, T>>>>(
        &'a self,
        take: impl FnOnce(Robust<'a, MutexControl>) -> Result<Acquired, E>,
    ) -> Result<MutexGuard<'a, T>, E> {
        let mut held = Held::new(self.robust(), take(self.robust())?);
        let value = self.region.data().read(0);
        let is_valid = value.is_some();
        if !is_valid {
            held.abandon();
        }
        let is_abandoned = held.is_abandoned();
        let value = value.unwrap_or_else(|| self.opened.value());
        checked(MutexGuard { mutex: self, value, is_valid, is_changed: false, held }, is_abandoned)
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
    /// Creates a mutex with the bytes of a value of `T`. Other bytes are noticed when the handle is
    /// received, and make locking this handle panic.
    #[doc(hidden)]
    pub fn of_bytes(value: &[u8]) -> io::Result<Self> {
        let region = Region::create(value.len(), |_: &MutexControl| {})?;
        region.data().copy_in(0, value);
        let opened = Opened::new(region.data());
        Ok(Self { region, opened })
    }
}

impl<T> Inspect for Mutex<T> {
    fn inspect(&self) -> Inspection {
        Inspection::of_lock(self.robust(), false)
    }

    fn observe(&self) {
        self.region.observe();
    }
}

impl<T> Clone for Mutex<T> {
    fn clone(&self) -> Self {
        Self { region: self.region.clone(), opened: self.opened.clone() }
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

impl<'de, T: Plain> Deserialize<'de> for Mutex<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let region = Region::<MutexControl>::deserialize(deserializer)?;
        let (came, expected) = (region.data().len(), size_of::<T>());
        if came != expected {
            return Err(serde::de::Error::custom(format!(
                "expected a multiproc mutex of a value of {expected} bytes, got one of {came} bytes"
            )));
        }
        let opened = Opened::new(region.data());
        if !opened.is_valid() {
            return Err(serde::de::Error::custom(format!(
                "expected a multiproc mutex of a {}, got one with bytes that are no value of it: \
                 another process has overwritten them",
                std::any::type_name::<T>()
            )));
        }
        Ok(Self { region, opened })
    }
}

/// A guard of a [`Mutex`], which is released when the guard is dropped.
///
/// It dereferences to a copy of the value. Dropping the guard writes the copy back, if it was
/// borrowed mutably.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct MutexGuard<'a, T: Plain> {
    mutex: &'a Mutex<T>,
    value: T,
    /// Whether the bytes in shared memory were a value of `T`.
    is_valid: bool,
    is_changed: bool,
    /// Dropped last: the value is written back before the lock is released.
    held: Held<'a>,
}

impl<T: Plain> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Plain> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.is_changed = true;
        &mut self.value
    }
}

impl<T: Plain> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        let holder = self.held.holder();
        if self.is_changed && holder.member().is_some() && !holder.has_panicked() {
            self.mutex.region.data().copy_in(0, bytes_of(&self.value));
            failpoint::reached("mutex.written");
        }
    }
}

impl<T: Plain> Repair for MutexGuard<'_, T> {
    fn repaired(&mut self) {
        self.is_changed |= !self.is_valid;
        self.held.repaired();
    }
}

impl<'a, T: Plain> MutexGuard<'a, T> {
    pub(crate) fn mutex(&self) -> &'a Mutex<T> {
        self.mutex
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutexGuard").field("value", &self.value).finish()
    }
}
