//! The errors of locks, semaphores and barriers.

use std::error::Error;
use std::fmt;
use std::io;

use multiproc_message::debug_is_display;

use crate::guard::Repair;

/// An error of a lock that was acquired, but whose last holder died while it held it: what the lock
/// protects may be half changed.
///
/// The error contains the guard, so this process holds the lock. Check what the dead holder left,
/// repair it, and call [`into_guard`](Self::into_guard). A caller that cannot repair it drops the
/// error: that releases the lock, and the next acquirer gets `Abandoned` as well.
///
/// `?` converts it into an [`AbandonedError`] or an [`io::Error`], which contain no guard.
///
/// This is what POSIX calls `EOWNERDEAD`. `into_guard` corresponds to pthread_mutex_consistent(3).
///
/// # Examples
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let lock = multiproc_sync::Lock::new()?;
/// let _guard = lock.lock().unwrap_or_else(|abandoned| {
///     // Repair what the lock protects here.
///     abandoned.into_guard()
/// });
/// # Ok(())
/// # }
/// ```
#[doc(alias = "EOWNERDEAD")]
#[doc(alias = "PoisonError")]
pub struct Abandoned<G> {
    pub(crate) guard: G,
}

impl<G> Abandoned<G> {
    /// Returns the guard, to inspect what the lock protects. The lock stays abandoned.
    ///
    /// # Examples
    ///
    /// ```
    /// # let mutex = multiproc_sync::Mutex::new(0u32)?;
    /// if let Err(abandoned) = mutex.lock() {
    ///     println!("its holder died and left {}", **abandoned.guard());
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn guard(&self) -> &G {
        &self.guard
    }
}

impl<G> Abandoned<G> {
    /// Releases the lock, which stays abandoned, and returns an error without the guard, for `?`
    /// in functions whose error type is a `Box<dyn Error>` or that of `anyhow`.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::{Abandoned, Mutex};
    ///
    /// fn count(total: &Mutex<u32>) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    ///     let mut total = total.lock().map_err(Abandoned::into_error)?;
    ///     *total += 1;
    ///     Ok(*total)
    /// }
    /// # assert_eq!(count(&Mutex::new(1).unwrap()).unwrap(), 2);
    /// ```
    #[must_use]
    pub fn into_error(self) -> AbandonedError {
        AbandonedError
    }
}

impl<G: Repair> Abandoned<G> {
    /// Marks what the lock protects as repaired, and returns the guard.
    #[must_use = "dropping the guard unlocks"]
    pub fn into_guard(mut self) -> G {
        self.guard.repaired();
        self.guard
    }
}

debug_is_display!(Abandoned<G>);

const ABANDONED: &str = "a holder of the lock died while it held it; repair what the lock \
                         protects, then call `into_guard`";

impl<G> fmt::Display for Abandoned<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ABANDONED)
    }
}

impl<G> Error for Abandoned<G> {}

/// [`Abandoned`] without the guard: the lock was released, and stays abandoned. It can be sent to
/// other threads and outlives the lock, so `?` works with it.
///
/// # Examples
///
/// ```
/// use multiproc_sync::{AbandonedError, Mutex};
///
/// fn next(ticket: &Mutex<u64>) -> Result<u64, AbandonedError> {
///     let mut ticket = ticket.lock()?;
///     *ticket += 1;
///     Ok(*ticket)
/// }
/// # assert_eq!(next(&Mutex::new(6).unwrap()), Ok(7));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbandonedError;

impl fmt::Debug for AbandonedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for AbandonedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ABANDONED)
    }
}

impl Error for AbandonedError {}

impl<G> From<Abandoned<G>> for AbandonedError {
    fn from(abandoned: Abandoned<G>) -> Self {
        abandoned.into_error()
    }
}

impl<G> From<Abandoned<G>> for io::Error {
    fn from(abandoned: Abandoned<G>) -> Self {
        Self::other(abandoned.into_error())
    }
}

macro_rules! lock_error {
    ($(#[$doc:meta])* $name:ident, $(#[$busy_doc:meta])* $busy:ident, $is:ident, $kind:ident,
     $text:literal) => {
        $(#[$doc])*
        pub enum $name<G> {
            $(#[$busy_doc])*
            $busy,
            /// The lock was acquired, but its last holder died while it held it: see
            /// [`Abandoned`].
            Abandoned(Abandoned<G>),
        }

        impl<G> $name<G> {
            #[doc = concat!("Returns true for [`Self::", stringify!($busy), "`].")]
            pub fn $is(&self) -> bool {
                matches!(self, Self::$busy)
            }

            /// Returns true for [`Self::Abandoned`].
            pub fn is_abandoned(&self) -> bool {
                matches!(self, Self::Abandoned(_))
            }
        }

        impl<G> From<Abandoned<G>> for $name<G> {
            fn from(abandoned: Abandoned<G>) -> Self {
                Self::Abandoned(abandoned)
            }
        }

        debug_is_display!($name<G>);

        impl<G> fmt::Display for $name<G> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::$busy => f.write_str($text),
                    Self::Abandoned(_) => f.write_str(ABANDONED),
                }
            }
        }

        impl<G> Error for $name<G> {}

        /// The error without the guard: the lock was released.
        impl<G> From<$name<G>> for io::Error {
            fn from(error: $name<G>) -> Self {
                match error {
                    $name::$busy => Self::new(io::ErrorKind::$kind, $text),
                    $name::Abandoned(abandoned) => abandoned.into(),
                }
            }
        }
    };
}

lock_error! {
    /// An error of `try_lock`.
    TryLockError,
    /// A holder that is alive has the lock.
    WouldBlock, is_would_block, WouldBlock, "the lock is held"
}
lock_error! {
    /// An error of `lock_timeout` and `lock_deadline`.
    LockTimeoutError,
    /// Holders that are alive had the lock until the deadline.
    Timeout, is_timeout, TimedOut, "timed out waiting for the lock"
}

macro_rules! simple_error {
    ($(#[$doc:meta])* $name:ident, $text:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name;

        debug_is_display!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($text)
            }
        }

        impl Error for $name {}
    };
}

simple_error! {
    /// The error of `try_acquire`: no permit is available.
    TryAcquireError, "no permit of the semaphore is available"
}
simple_error! {
    /// The error of `acquire_timeout` and `acquire_deadline`: no permit was available before the
    /// deadline.
    AcquireTimeoutError, "timed out waiting for a permit of the semaphore"
}
simple_error! {
    /// The error of `release`: the value would exceed 2^31 - 1. It is unchanged.
    SemaphoreOverflow, "the value of a semaphore cannot exceed 2147483647; is it released more \
                        often than acquired?"
}
simple_error! {
    /// The error of a barrier that is broken: a party died, timed out or called `abort`, or `reset`
    /// ended the round. Call `reset` when all parties are ready to start again.
    Broken, "the barrier is broken: a party died, timed out or called `abort`; call `reset` to use \
             it again"
}
