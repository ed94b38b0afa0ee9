//! The methods of all locks, each with its documentation, as a macro: they are written once.

/// Defines `lock`, `try_lock`, `lock_timeout` and `lock_deadline` in terms of `Self::acquire`.
///
/// Takes the type of the guard, an expression that creates a lock for the examples, and
/// documentation that is added to each method.
macro_rules! lock_methods {
    ($guard:ty, $new:literal, $(#[$note:meta])*) => {
        /// Acquires the lock, and waits for it indefinitely.
        $(#[$note])*
        ///
        /// If the holder dies while this waits, the lock is recovered within about 100 ms.
        ///
        /// # Errors
        ///
        /// Returns [`Abandoned`], which contains the guard, if a holder died while it held the lock
        /// and no holder has called [`into_guard`](Abandoned::into_guard) since.
        ///
        /// # Panics
        ///
        /// Panics if other code in this process has closed the lock's descriptor and the holder may
        /// be dead.
        ///
        /// # Examples
        ///
        /// ```
        #[doc = concat!("let lock = multiproc_sync::", $new, "?;")]
        /// let guard = lock.lock().unwrap_or_else(|abandoned| {
        ///     // Repair what the lock protects here.
        ///     abandoned.into_guard()
        /// });
        /// drop(guard); // unlocks
        /// # Ok::<(), std::io::Error>(())
        /// ```
        #[doc(alias = "acquire")]
        #[inline]
        pub fn lock(&self) -> Result<$guard, Abandoned<$guard>> {
            self.acquire(|robust| Ok(robust.lock()))
        }

        /// Acquires the lock if it is free or its holder is dead, without waiting.
        $(#[$note])*
        ///
        /// # Errors
        ///
        /// Returns [`WouldBlock`](TryLockError::WouldBlock) if a living holder has the lock, and
        /// [`Abandoned`](TryLockError::Abandoned) as [`lock`](Self::lock) does.
        ///
        /// # Examples
        ///
        /// ```
        /// use multiproc_sync::TryLockError;
        ///
        #[doc = concat!("let lock = multiproc_sync::", $new, "?;")]
        /// match lock.try_lock() {
        ///     Ok(_guard) => println!("locked until the guard is dropped"),
        ///     Err(TryLockError::WouldBlock) => println!("held by another process or thread"),
        ///     Err(TryLockError::Abandoned(abandoned)) => drop(abandoned.into_guard()),
        /// }
        /// # Ok::<(), std::io::Error>(())
        /// ```
        #[inline]
        pub fn try_lock(&self) -> Result<$guard, TryLockError<$guard>> {
            self.acquire(|robust| robust.try_lock())
        }

        /// Acquires the lock, and waits for it for at most `timeout`, which bounds the whole call.
        $(#[$note])*
        ///
        /// If the holder dies while this waits, the lock is recovered within about 100 ms.
        ///
        /// # Errors
        ///
        /// Returns [`Timeout`](LockTimeoutError::Timeout) if living holders had the lock all the
        /// time, and [`Abandoned`](LockTimeoutError::Abandoned) as [`lock`](Self::lock) does.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::time::Duration;
        ///
        #[doc = concat!("let lock = multiproc_sync::", $new, "?;")]
        /// match lock.lock_timeout(Duration::from_millis(10)) {
        ///     Ok(_guard) => println!("locked until the guard is dropped"),
        ///     Err(error) => println!("{error}"),
        /// }
        /// # Ok::<(), std::io::Error>(())
        /// ```
        pub fn lock_timeout(&self, timeout: Duration) -> Result<$guard, LockTimeoutError<$guard>> {
            self.acquire(|robust| robust.lock_until(Deadline::after(timeout)))
        }

        /// Acquires the lock, and waits for it until `deadline` at most.
        $(#[$note])*
        ///
        /// # Errors
        ///
        /// Returns the errors of [`lock_timeout`](Self::lock_timeout).
        pub fn lock_deadline(&self, deadline: Instant) -> Result<$guard, LockTimeoutError<$guard>> {
            self.acquire(|robust| robust.lock_until(Deadline::at(deadline)))
        }
    };
}

pub(crate) use lock_methods;
