//! A read-write lock with the value that it protects: a raw lock, placed in a region.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, RangeInclusive};
use std::time::{Duration, Instant};

use bytemuck::bytes_of;
use multiproc_shm::members::Members;
use multiproc_shm::primitives::AtomicU32;
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{Deadline, OWNER_RECHECK, failpoint, placed};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Abandoned, LockTimeoutError, TryLockError};
use crate::guard::{Holder, Repair};
use crate::inspect::{Inspect, Inspection};
use crate::plain::{Opened, Plain};
use crate::raw::Busy;
use crate::raw::lock::Acquired;
use crate::raw::rwlock::RwLock as RawRwLock;
use crate::robust::{Robust, checked};

/// A value in shared memory, and a lock that admits many readers or one writer.
///
/// `T` is [`Plain`] data, as that of a [`Mutex`](crate::Mutex). A guard contains a copy of the
/// value. A writer's guard writes its copy back when it is dropped, if it was changed. While a
/// guard of a reader exists, no process writes. `RwLock<()>` is a lock without a value, for data of
/// your own.
///
/// A reader takes the lock by one atomic instruction on a word of its process. So readers in
/// different processes rarely disturb each other. A writer inspects the words of all processes that
/// have read. Use a [`Mutex`](crate::Mutex) if values are small and locks are held briefly.
///
/// # When a process dies
///
/// The locks of a reader that dies are released: a waiting writer acquires the lock within about
/// 100 ms, a later one at once.
///
/// If a writer dies while it holds the lock, or panics under the guard, all later readers and
/// writers get [`Abandoned`], which contains the guard. A writer ends that by calling
/// [`into_guard`](Abandoned::into_guard). If a reader calls it, it accepts the value for itself:
/// the lock stays abandoned, because a reader cannot repair what the lock protects. The value is
/// the one that the dead writer had found, unless it died within writing its value back.
///
/// If the bytes are no value of `T`, because another process has overwritten them, acquirers get
/// `Abandoned` as well. The guard then contains the value that this process found when it opened
/// the lock, and a writer's `into_guard` writes it back.
///
/// A process that dies while it waits has no effect. One that is stopped (SIGSTOP) is not dead, and
/// keeps its locks.
///
/// # Ordering and fairness
///
/// What a writer wrote to shared memory before it unlocked is visible to all later readers and
/// writers. As soon as a writer waits for readers to leave, no further readers enter, so a stream
/// of readers does not starve a writer. Readers that had to wait are in one queue with the writers,
/// so a stream of writers does not starve a reader.
///
/// The lock is not re-entrant. A thread that has a guard and locks again may wait for itself
/// indefinitely: always if one of the two guards is a writer's, and if both are readers', when a
/// writer waits in between. A reader's guard cannot be turned into a writer's.
///
/// # Examples
///
/// ```
/// use multiproc_sync::RwLock;
///
/// # fn main() -> std::io::Result<()> {
/// let limits = RwLock::new([10u32, 20])?; // can be cloned, and sent to other processes
/// {
///     let one = limits.read().expect("no writer died");
///     let other = limits.read().expect("no writer died"); // at the same time
///     assert_eq!(one[0] + other[1], 30);
///     assert!(limits.try_write().unwrap_err().is_would_block());
/// }
/// limits.write().expect("no writer died")[0] = 15;
/// assert_eq!(*limits.read().unwrap(), [15, 20]);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "robust rwlock")]
#[doc(alias = "pthread_rwlock")]
#[doc(alias = "shared mutex")]
#[doc(alias = "EOWNERDEAD")]
pub struct RwLock<T> {
    region: Region<RwLockControl>,
    opened: Opened<T>,
}

/// The control block; the value is the region's data.
#[derive(Debug, Default)]
#[repr(C)]
struct RwLockControl {
    lock: RawRwLock,
}

const _: () = assert!(size_of::<RwLockControl>() == 16 + 8 * 1024);

placed!(RwLockControl { lock });

impl Control for RwLockControl {
    const KIND: u32 = u32::from_le_bytes(*b"RWLK");
    const NAME: &'static str = "read-write lock";
    const DATA: RangeInclusive<usize> = 0..=usize::MAX; // compared with the size of `T`

    fn release_slot(&self, _: &[AtomicU32], slot: usize) {
        self.lock.release_slot(slot);
    }
}

impl<T: Plain> RwLock<T> {
    /// Creates a lock that is free, with this value.
    ///
    /// # Errors
    ///
    /// Fails if the process has run out of descriptors or memory, if `/proc` is not mounted, or if
    /// a resource limit is too small. The error then names the limit.
    pub fn new(value: T) -> io::Result<Self> {
        let region = Region::create(size_of::<T>(), |_: &RwLockControl| {})?;
        region.data().copy_in(0, bytes_of(&value));
        let opened = Opened::new(region.data());
        Ok(Self { region, opened })
    }

    /// Acquires the lock for reading, and waits for it indefinitely.
    ///
    /// If the writer dies while this waits, the lock is recovered within about 100 ms.
    ///
    /// # Errors
    ///
    /// Returns [`Abandoned`], which contains the guard, if a writer died while it held the lock and
    /// no writer has called [`into_guard`](Abandoned::into_guard) since.
    ///
    /// # Panics
    ///
    /// Panics if other code in this process has closed the lock's descriptor and the writer may be
    /// dead.
    ///
    /// # Examples
    ///
    /// ```
    /// let limit = multiproc_sync::RwLock::new(10u32)?;
    /// let guard = limit.read().unwrap_or_else(|abandoned| {
    ///     // The value is one that a writer had found or written.
    ///     abandoned.into_guard()
    /// });
    /// assert_eq!(*guard, 10);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn read(&self) -> Result<RwLockReadGuard<'_, T>, Abandoned<RwLockReadGuard<'_, T>>> {
        loop {
            // Without a deadline, only a closed descriptor is an error.
            if let Ok(acquired) = self.raw().read(&self.region, Deadline::NEVER, OWNER_RECHECK) {
                return self.reader(acquired);
            }
            self.region.assert_connected();
        }
    }

    /// Acquires the lock for reading, without waiting.
    ///
    /// # Errors
    ///
    /// Returns [`WouldBlock`](TryLockError::WouldBlock) if a living writer has the lock or waits
    /// for it, and [`Abandoned`](TryLockError::Abandoned) as [`read`](Self::read) does.
    ///
    /// # Examples
    ///
    /// ```
    /// let limit = multiproc_sync::RwLock::new(10u32)?;
    /// let guard = limit.write().unwrap();
    /// assert!(limit.try_read().unwrap_err().is_would_block());
    /// # drop(guard);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn try_read(&self) -> Result<RwLockReadGuard<'_, T>, TryLockError<RwLockReadGuard<'_, T>>> {
        match self.raw().try_read(&self.region) {
            Ok(acquired) => self.reader(acquired),
            Err(Busy) => Err(TryLockError::WouldBlock),
        }
    }

    /// Acquires the lock for reading, and waits for it for at most `timeout`, which bounds the
    /// whole call.
    ///
    /// If the writer dies while this waits, the lock is recovered within about 100 ms.
    ///
    /// # Errors
    ///
    /// Returns [`Timeout`](LockTimeoutError::Timeout) if living writers had the lock all the time,
    /// and [`Abandoned`](LockTimeoutError::Abandoned) as [`read`](Self::read) does.
    pub fn read_timeout(
        &self,
        timeout: Duration,
    ) -> Result<RwLockReadGuard<'_, T>, LockTimeoutError<RwLockReadGuard<'_, T>>> {
        self.read_until(Deadline::after(timeout))
    }

    /// Acquires the lock for reading, and waits for it until `deadline` at most.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`read_timeout`](Self::read_timeout).
    pub fn read_deadline(
        &self,
        deadline: Instant,
    ) -> Result<RwLockReadGuard<'_, T>, LockTimeoutError<RwLockReadGuard<'_, T>>> {
        self.read_until(Deadline::at(deadline))
    }

    fn read_until(
        &self,
        deadline: Deadline,
    ) -> Result<RwLockReadGuard<'_, T>, LockTimeoutError<RwLockReadGuard<'_, T>>> {
        match self.raw().read(&self.region, deadline, OWNER_RECHECK) {
            Ok(acquired) => self.reader(acquired),
            Err(Busy) => Err(LockTimeoutError::Timeout),
        }
    }

    #[inline]
    fn reader<'a, E: From<Abandoned<RwLockReadGuard<'a, T>>>>(
        &'a self,
        acquired: Acquired,
    ) -> Result<RwLockReadGuard<'a, T>, E> {
        let holder = Holder::new(&self.region);
        let (value, is_valid) = self.value();
        let guard = RwLockReadGuard { lock: self, value, holder };
        checked(guard, acquired == Acquired::OwnerDied || !is_valid)
    }

    /// Returns a copy of the value and true, or, if the bytes are no value of `T`, that of when
    /// this process opened the lock and false.
    #[inline]
    fn value(&self) -> (T, bool) {
        match self.region.data().read(0) {
            Some(value) => (value, true),
            None => (self.opened.value(), false),
        }
    }

    /// Acquires the lock for writing, and waits for it indefinitely.
    ///
    /// If readers or the writer die while this waits, their locks are released within about 100 ms.
    ///
    /// # Errors
    ///
    /// Returns [`Abandoned`], which contains the guard, if a writer died while it held the lock and
    /// no writer has called [`into_guard`](Abandoned::into_guard) since.
    ///
    /// # Panics
    ///
    /// Panics if other code in this process has closed the lock's descriptor and readers or the
    /// writer may be dead.
    ///
    /// # Examples
    ///
    /// ```
    /// let limit = multiproc_sync::RwLock::new(10u32)?;
    /// let mut guard = limit.write().unwrap_or_else(|abandoned| {
    ///     // Repair what the lock protects here.
    ///     abandoned.into_guard()
    /// });
    /// *guard += 1;
    /// drop(guard); // writes the value back and unlocks
    /// assert_eq!(*limit.read().unwrap(), 11);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn write(&self) -> Result<RwLockWriteGuard<'_, T>, Abandoned<RwLockWriteGuard<'_, T>>> {
        loop {
            if let Ok(acquired) = self.raw().write(&self.region, Deadline::NEVER, OWNER_RECHECK) {
                return self.writer(acquired);
            }
            self.region.assert_connected();
        }
    }

    /// Acquires the lock for writing, without waiting.
    ///
    /// # Errors
    ///
    /// Returns [`WouldBlock`](TryLockError::WouldBlock) if living readers or a living writer have
    /// the lock, and [`Abandoned`](TryLockError::Abandoned) as [`write`](Self::write) does.
    ///
    /// # Examples
    ///
    /// ```
    /// let limit = multiproc_sync::RwLock::new(10u32)?;
    /// let guard = limit.read().unwrap();
    /// assert!(limit.try_write().unwrap_err().is_would_block());
    /// drop(guard);
    /// *limit.try_write().unwrap() = 11;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_write(
        &self,
    ) -> Result<RwLockWriteGuard<'_, T>, TryLockError<RwLockWriteGuard<'_, T>>> {
        match self.raw().try_write(&self.region) {
            Ok(acquired) => self.writer(acquired),
            Err(Busy) => Err(TryLockError::WouldBlock),
        }
    }

    /// Acquires the lock for writing, and waits for it for at most `timeout`, which bounds the
    /// whole call. Readers that came meanwhile and waited enter when it times out.
    ///
    /// If readers or the writer die while this waits, their locks are released within about 100 ms.
    ///
    /// # Errors
    ///
    /// Returns [`Timeout`](LockTimeoutError::Timeout) if living readers or writers had the lock all
    /// the time, and [`Abandoned`](LockTimeoutError::Abandoned) as [`write`](Self::write) does.
    pub fn write_timeout(
        &self,
        timeout: Duration,
    ) -> Result<RwLockWriteGuard<'_, T>, LockTimeoutError<RwLockWriteGuard<'_, T>>> {
        self.write_until(Deadline::after(timeout))
    }

    /// Acquires the lock for writing, and waits for it until `deadline` at most.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`write_timeout`](Self::write_timeout).
    pub fn write_deadline(
        &self,
        deadline: Instant,
    ) -> Result<RwLockWriteGuard<'_, T>, LockTimeoutError<RwLockWriteGuard<'_, T>>> {
        self.write_until(Deadline::at(deadline))
    }

    fn write_until(
        &self,
        deadline: Deadline,
    ) -> Result<RwLockWriteGuard<'_, T>, LockTimeoutError<RwLockWriteGuard<'_, T>>> {
        match self.raw().write(&self.region, deadline, OWNER_RECHECK) {
            Ok(acquired) => self.writer(acquired),
            Err(Busy) => Err(LockTimeoutError::Timeout),
        }
    }

    #[inline]
    fn writer<'a, E: From<Abandoned<RwLockWriteGuard<'a, T>>>>(
        &'a self,
        acquired: Acquired,
    ) -> Result<RwLockWriteGuard<'a, T>, E> {
        let holder = Holder::new(&self.region);
        let (value, is_valid) = self.value();
        // Until a writer has repaired the value.
        let acquired = if is_valid { acquired } else { Acquired::OwnerDied };
        let guard =
            RwLockWriteGuard { lock: self, value, is_valid, is_changed: false, acquired, holder };
        checked(guard, acquired == Acquired::OwnerDied)
    }
}

impl<T> RwLock<T> {
    #[inline]
    fn raw(&self) -> &RawRwLock {
        &self.region.control().lock
    }

    /// The lock that a writer holds.
    fn robust(&self) -> Robust<'_, RwLockControl> {
        Robust { lock: self.raw().queue(), region: &self.region }
    }
}

impl<T> Clone for RwLock<T> {
    fn clone(&self) -> Self {
        Self { region: self.region.clone(), opened: self.opened.clone() }
    }
}

impl<T> Inspect for RwLock<T> {
    fn inspect(&self) -> Inspection {
        Inspection::of_lock(self.robust(), self.raw().drained().has_sleepers())
    }

    fn observe(&self) {
        self.region.observe();
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw = self.raw();
        let mut text = f.debug_struct("RwLock");
        text.field("readers", &raw.readers());
        match raw.queue().owner() {
            Some(writer) if raw.is_closed() => text
                .field("writer", &writer)
                .field("pid", &self.region.pid(writer))
                .field("alive", &self.region.is_alive(writer)),
            _ => text.field("writer", &None::<()>).field("abandoned", &raw.is_dirty()),
        };
        text.finish_non_exhaustive()
    }
}

impl<T> Serialize for RwLock<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.region.serialize(serializer)
    }
}

impl<'de, T: Plain> Deserialize<'de> for RwLock<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let region = Region::<RwLockControl>::deserialize(deserializer)?;
        let (came, expected) = (region.data().len(), size_of::<T>());
        if came != expected {
            return Err(serde::de::Error::custom(format!(
                "expected a multiproc read-write lock of a value of {expected} bytes, got one of \
                 {came} bytes"
            )));
        }
        let opened = Opened::new(region.data());
        if !opened.is_valid() {
            return Err(serde::de::Error::custom(format!(
                "expected a multiproc read-write lock of a {}, got one with bytes that are no \
                 value of it: another process has overwritten them",
                std::any::type_name::<T>()
            )));
        }
        Ok(Self { region, opened })
    }
}

/// A reader's guard of an [`RwLock`], which is released when the guard is dropped.
///
/// It dereferences to a copy of the value.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct RwLockReadGuard<'a, T: Plain> {
    lock: &'a RwLock<T>,
    value: T,
    holder: Holder<'a>,
}

impl<T: Plain> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Plain> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(member) = self.holder.member() {
            self.lock.raw().read_unlock(member);
        }
    }
}

/// A reader repairs nothing: the lock stays abandoned.
impl<T: Plain> Repair for RwLockReadGuard<'_, T> {
    fn repaired(&mut self) {}
}

impl<T: Plain + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockReadGuard").field("value", &self.value).finish()
    }
}

/// A writer's guard of an [`RwLock`], which is released when the guard is dropped.
///
/// It dereferences to a copy of the value. Dropping the guard writes the copy back, if it was
/// borrowed mutably.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct RwLockWriteGuard<'a, T: Plain> {
    lock: &'a RwLock<T>,
    value: T,
    /// Whether the bytes in shared memory were a value of `T`.
    is_valid: bool,
    is_changed: bool,
    /// How the lock is to be released.
    acquired: Acquired,
    holder: Holder<'a>,
}

impl<T: Plain> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Plain> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.is_changed = true;
        &mut self.value
    }
}

impl<T: Plain> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        let Some(member) = self.holder.member() else { return };
        let has_panicked = self.holder.has_panicked();
        if self.is_changed && !has_panicked {
            self.lock.region.data().copy_in(0, bytes_of(&self.value));
            failpoint::reached("rwlock.written");
        }
        let acquired = if has_panicked { Acquired::OwnerDied } else { self.acquired };
        self.lock.raw().write_unlock(member, acquired);
    }
}

impl<T: Plain> Repair for RwLockWriteGuard<'_, T> {
    fn repaired(&mut self) {
        self.is_changed |= !self.is_valid;
        self.acquired = Acquired::Clean;
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockWriteGuard").field("value", &self.value).finish()
    }
}
