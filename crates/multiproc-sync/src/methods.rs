//! The methods of all locks, each with its documentation: a macro, so that it is written once.

/// `lock`, `try_lock`, `lock_timeout` and `lock_deadline`, by `Self::acquire`.
macro_rules! lock_methods {
    ($guard:ty) => {
        /// Takes the lock, waiting for it as long as it takes.
        ///
        /// # Errors
        ///
        /// [`Abandoned`], which carries the guard, if a holder died inside and nobody has put right
        /// what it left.
        ///
        /// # Panics
        ///
        /// If other code in this process has closed the lock's descriptor, and the holder may be
        /// dead.
        #[inline]
        pub fn lock(&self) -> Result<$guard, Abandoned<$guard>> {
            self.acquire(|robust| Ok(robust.lock()))
        }

        /// Takes the lock if it is free (or its holder is dead), without waiting.
        ///
        /// # Errors
        ///
        /// [`WouldBlock`](TryLockError::WouldBlock) if somebody has it, else as
        /// [`lock`](Self::lock).
        #[inline]
        pub fn try_lock(&self) -> Result<$guard, TryLockError<$guard>> {
            self.acquire(|robust| robust.try_lock())
        }

        /// Takes the lock, waiting for at most `timeout` (which bounds the whole call).
        ///
        /// # Errors
        ///
        /// [`Timeout`](LockTimeoutError::Timeout) if somebody had it all the time, else as
        /// [`lock`](Self::lock).
        pub fn lock_timeout(&self, timeout: Duration) -> Result<$guard, LockTimeoutError<$guard>> {
            self.acquire(|robust| robust.lock_until(Deadline::after(timeout)))
        }

        /// Takes the lock, waiting until `deadline` at most.
        ///
        /// # Errors
        ///
        /// As [`lock_timeout`](Self::lock_timeout).
        pub fn lock_deadline(&self, deadline: Instant) -> Result<$guard, LockTimeoutError<$guard>> {
            self.acquire(|robust| robust.lock_until(Deadline::at(deadline)))
        }
    };
}

pub(crate) use lock_methods;
