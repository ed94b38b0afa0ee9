//! What a lock says when it is not simply taken.

use std::error::Error;
use std::fmt;

use crate::guard::Repair;

/// The lock was taken, and its last holder died inside: what it guards may be half done.
///
/// The guard is in here: this process has the lock. Check what the dead holder left, put it right,
/// and say so with [`into_guard`](Self::into_guard). A caller that cannot put it right drops the
/// error: the lock is free again, and the next one is told the same.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let lock = multiproc_sync::Lock::new()?;
/// let _guard = lock.lock().unwrap_or_else(|abandoned| {
///     // ... put right what the dead process left ...
///     abandoned.into_guard()
/// });
/// # Ok(())
/// # }
/// ```
pub struct Abandoned<G> {
    pub(crate) guard: G,
}

impl<G> Abandoned<G> {
    /// The guard, to look at what is guarded; the lock stays abandoned.
    pub fn guard(&self) -> &G {
        &self.guard
    }
}

impl<G: Repair> Abandoned<G> {
    /// Says that what the dead holder left has been put right, and gives the guard.
    #[must_use = "dropping the guard unlocks"]
    pub fn into_guard(mut self) -> G {
        self.guard.repaired();
        self.guard
    }
}

impl<G> fmt::Debug for Abandoned<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Abandoned { .. }")
    }
}

const ABANDONED: &str = "the last holder of the lock died inside: put right what it left, then call \
                         `into_guard`";

impl<G> fmt::Display for Abandoned<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ABANDONED)
    }
}

impl<G> Error for Abandoned<G> {}

macro_rules! lock_error {
    ($(#[$doc:meta])* $name:ident, $(#[$busy_doc:meta])* $busy:ident, $is:ident, $text:literal) => {
        $(#[$doc])*
        pub enum $name<G> {
            $(#[$busy_doc])*
            $busy,
            /// It was taken, and its last holder died inside: see [`Abandoned`].
            Abandoned(Abandoned<G>),
        }

        impl<G> $name<G> {
            /// Whether somebody else has it.
            pub fn $is(&self) -> bool {
                matches!(self, Self::$busy)
            }

            /// Whether it was taken from a dead holder.
            pub fn is_abandoned(&self) -> bool {
                matches!(self, Self::Abandoned(_))
            }
        }

        impl<G> From<Abandoned<G>> for $name<G> {
            fn from(abandoned: Abandoned<G>) -> Self {
                Self::Abandoned(abandoned)
            }
        }

        impl<G> fmt::Debug for $name<G> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::$busy => f.write_str(stringify!($busy)),
                    Self::Abandoned(abandoned) => f.debug_tuple("Abandoned").field(abandoned).finish(),
                }
            }
        }

        impl<G> fmt::Display for $name<G> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::$busy => f.write_str($text),
                    Self::Abandoned(_) => f.write_str(ABANDONED),
                }
            }
        }

        impl<G> Error for $name<G> {}
    };
}

lock_error! {
    /// `try_lock` did not simply take the lock.
    TryLockError,
    /// Somebody else, who is alive, has it.
    WouldBlock, is_would_block, "the lock is taken"
}
lock_error! {
    /// `lock_timeout` or `lock_deadline` did not simply take the lock.
    LockTimeoutError,
    /// Somebody else, who is alive, had it all the time.
    Timeout, is_timeout, "the lock was not free in time"
}

macro_rules! simple_error {
    ($(#[$doc:meta])* $name:ident, $text:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name;

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($text)
            }
        }

        impl Error for $name {}
    };
}

simple_error! {
    /// `try_acquire` got nothing: all of the semaphore is taken, by processes that are alive.
    TryAcquireError, "the semaphore is taken"
}
simple_error! {
    /// `acquire_timeout` or `acquire_deadline` got nothing in time.
    AcquireTimeoutError, "the semaphore was taken all the time"
}
simple_error! {
    /// A `release` would raise a semaphore above 2^31 - 1. It is as before.
    SemaphoreOverflow, "a semaphore counts up to 2147483647: there are more releases than acquires"
}
simple_error! {
    /// The barrier lets nobody through: a party died, ran out of time, or called `abort`, or the
    /// round ended by a `reset`. If all parties are ready for a fresh start, call `reset`.
    Broken, "the barrier is broken: a party died, gave up or called `abort`; `reset` starts afresh"
}
