//! Atomic operations on the values of a table.

use multiproc_shm::primitives::{AtomicU32, AtomicU64, Ordering};
use multiproc_shm::region::Atomic as AtomicWord;

use crate::array::Shared;

/// The integers that a [`Shared`] table can change atomically: `u32`, `u64`, `i32` and `i64`.
pub trait AtomicInteger: Word {}

/// An integer, as the bits of an atomic of the same size.
pub trait Word: bytemuck::Pod + Ord {
    /// The atomic of this size.
    type Atomic: AtomicWord;

    /// Loads the value.
    fn load(atomic: &Self::Atomic) -> Self;
    /// Stores a value.
    fn store(atomic: &Self::Atomic, value: Self);
    /// Stores a value and returns the one before.
    fn swap(atomic: &Self::Atomic, value: Self) -> Self;
    /// Adds, wrapping around, and returns the value before.
    fn fetch_add(atomic: &Self::Atomic, n: Self) -> Self;
    /// Subtracts, wrapping around, and returns the value before.
    fn fetch_sub(atomic: &Self::Atomic, n: Self) -> Self;
    /// Stores `new` if the value is `current`.
    fn compare_exchange(atomic: &Self::Atomic, current: Self, new: Self) -> Result<Self, Self>;
}

macro_rules! word {
    ($($integer:ty: $atomic:ident, $from:expr, $to:expr;)*) => {$(
        impl AtomicInteger for $integer {}

        impl Word for $integer {
            type Atomic = $atomic;

            #[inline]
            fn load(atomic: &$atomic) -> Self {
                $from(atomic.load(Ordering::SeqCst))
            }

            #[inline]
            fn store(atomic: &$atomic, value: Self) {
                atomic.store($to(value), Ordering::SeqCst);
            }

            #[inline]
            fn swap(atomic: &$atomic, value: Self) -> Self {
                $from(atomic.swap($to(value), Ordering::SeqCst))
            }

            #[inline]
            fn fetch_add(atomic: &$atomic, n: Self) -> Self {
                $from(atomic.fetch_add($to(n), Ordering::SeqCst))
            }

            #[inline]
            fn fetch_sub(atomic: &$atomic, n: Self) -> Self {
                $from(atomic.fetch_sub($to(n), Ordering::SeqCst))
            }

            #[inline]
            fn compare_exchange(
                atomic: &$atomic,
                current: Self,
                new: Self,
            ) -> Result<Self, Self> {
                let (current, new) = ($to(current), $to(new));
                let result =
                    atomic.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst);
                result.map($from).map_err($from)
            }
        }
    )*};
}

word! {
    u32: AtomicU32, u32::from, u32::from;
    u64: AtomicU64, u64::from, u64::from;
    i32: AtomicU32, u32::cast_signed, i32::cast_unsigned;
    i64: AtomicU64, u64::cast_signed, i64::cast_unsigned;
}

/// Atomic operations on one value each, for tables of `u32`, `u64`, `i32` and `i64`. All are
/// sequentially consistent. A process that dies has made each of them or not.
///
/// All of them panic if `index` is out of bounds.
impl<T: AtomicInteger> Shared<T> {
    #[inline]
    fn word(&self, index: usize) -> &T::Atomic {
        &self.words::<T::Atomic>()[index]
    }

    /// Returns the value at `index`.
    #[must_use]
    pub fn load(&self, index: usize) -> T {
        T::load(self.word(index))
    }

    /// Sets the value at `index`.
    pub fn store(&self, index: usize, value: T) {
        T::store(self.word(index), value);
    }

    /// Sets the value at `index`, and returns the one before.
    #[allow(clippy::must_use_candidate)] // it has an effect of its own
    pub fn swap(&self, index: usize, value: T) -> T {
        T::swap(self.word(index), value)
    }

    /// Adds `n` to the value at `index`, wrapping around at its limits, and returns the value
    /// before.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::Shared;
    ///
    /// let votes = Shared::new(&[0u64; 3])?;
    /// votes.fetch_add(1, 1);
    /// assert_eq!(votes.fetch_add(1, 1), 1);
    /// assert_eq!(votes.to_vec(), [0, 2, 0]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[allow(clippy::must_use_candidate)] // it has an effect of its own
    pub fn fetch_add(&self, index: usize, n: T) -> T {
        T::fetch_add(self.word(index), n)
    }

    /// Subtracts `n` from the value at `index`, wrapping around at its limits, and returns the
    /// value before.
    #[allow(clippy::must_use_candidate)] // it has an effect of its own
    pub fn fetch_sub(&self, index: usize, n: T) -> T {
        T::fetch_sub(self.word(index), n)
    }

    /// Sets the value at `index` to the larger of itself and `value`, and returns the value before.
    #[allow(clippy::must_use_candidate)] // it has an effect of its own
    pub fn fetch_max(&self, index: usize, value: T) -> T {
        self.fetch_update(index, |old| Some(old.max(value))).unwrap_or_else(|old| old)
    }

    /// Sets the value at `index` to the smaller of itself and `value`, and returns the value
    /// before.
    #[allow(clippy::must_use_candidate)] // it has an effect of its own
    pub fn fetch_min(&self, index: usize, value: T) -> T {
        self.fetch_update(index, |old| Some(old.min(value))).unwrap_or_else(|old| old)
    }

    /// Sets the value at `index` to `new` if it is `current`, and returns the value before.
    ///
    /// # Errors
    ///
    /// Returns the value if it is another one. It is unchanged.
    pub fn compare_exchange(&self, index: usize, current: T, new: T) -> Result<T, T> {
        T::compare_exchange(self.word(index), current, new)
    }

    /// Sets the value at `index` to the result of `update`, called with the value, and returns the
    /// value before. If other processes change the value meanwhile, `update` is called again.
    ///
    /// # Errors
    ///
    /// Returns the value if `update` returned `None`. It is unchanged.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::Shared;
    ///
    /// let seats = Shared::new(&[1i32])?;
    /// let take = |free: i32| (free > 0).then(|| free - 1);
    /// assert_eq!(seats.fetch_update(0, take), Ok(1));
    /// assert_eq!(seats.fetch_update(0, take), Err(0));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn fetch_update(
        &self,
        index: usize,
        mut update: impl FnMut(T) -> Option<T>,
    ) -> Result<T, T> {
        let mut old = self.load(index);
        while let Some(new) = update(old) {
            match self.compare_exchange(index, old, new) {
                Ok(old) => return Ok(old),
                Err(now) => old = now,
            }
        }
        Err(old)
    }
}
