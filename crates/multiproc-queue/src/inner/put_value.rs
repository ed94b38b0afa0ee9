//! Putting values: what the handles share.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use multiproc_message::check_type;
use multiproc_shm::Deadline;
use serde::{Deserialize, Serialize};

use crate::error::{PutError, PutManyError, PutTimeoutError, Reason, TryPutError};
use crate::inner::{Inner, PutFailure, Wait};
use crate::methods::only_a_deadline_gives_up;

/// The maximum number of items that are taken from an iterator at a time.
const STEP: usize = 128;

// Not `DeserializeOwned`: a type such as `&str` would match that as well, and then not compile.
impl<T: Deserialize<'static>> Inner<T> {
    /// Returns an error if items of this type could be put, but not be got.
    ///
    /// The type is checked once for each handle.
    #[inline]
    pub(crate) fn check_type(&self) -> Result<(), Reason> {
        if self.is_type_checked.load(Ordering::Relaxed) { Ok(()) } else { self.check_type_once() }
    }

    #[cold]
    fn check_type_once(&self) -> Result<(), Reason> {
        check_type::<T>().map_err(Reason::Encode)?;
        self.is_type_checked.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// The methods of the handles that put, for types that are not known to implement `Deserialize`.
///
/// The handles dereference to this type. A call ends here where their own methods do not apply, which
/// require `Deserialize` and check the type.
#[doc(hidden)]
impl<T: Serialize> Inner<T> {
    #[inline]
    pub fn put(&self, item: T) -> Result<(), PutError<T>> {
        match self.put_item(&item, Wait::Deadline(Deadline::NEVER)) {
            Ok(()) => Ok(()),
            Err(PutFailure::For(reason)) => Err(PutError::new(item, *reason)),
            Err(PutFailure::NotNow | PutFailure::Stalled) => only_a_deadline_gives_up(),
        }
    }

    #[inline]
    pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
        match self.put_item(&item, Wait::Now) {
            Ok(()) => Ok(()),
            Err(PutFailure::For(reason)) => Err(TryPutError::new(item, *reason)),
            Err(PutFailure::NotNow) => Err(TryPutError::Full(item)),
            Err(PutFailure::Stalled) => Err(TryPutError::Stalled(item)),
        }
    }

    #[inline]
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), PutTimeoutError<T>> {
        self.put_until(item, Deadline::after(timeout))
    }

    #[inline]
    pub fn put_deadline(&self, item: T, deadline: Instant) -> Result<(), PutTimeoutError<T>> {
        self.put_until(item, Deadline::at(deadline))
    }

    #[inline]
    fn put_until(&self, item: T, deadline: Deadline) -> Result<(), PutTimeoutError<T>> {
        match self.put_item(&item, Wait::Deadline(deadline)) {
            Ok(()) => Ok(()),
            Err(PutFailure::For(reason)) => Err(PutTimeoutError::new(item, *reason)),
            Err(PutFailure::NotNow | PutFailure::Stalled) => Err(PutTimeoutError::Timeout(item)),
        }
    }

    pub fn put_many(&self, items: impl IntoIterator<Item = T>) -> Result<(), PutManyError<T>> {
        self.put_many_if(items, || Ok(()))
    }

    /// Puts the items in steps, each of them only if `check` returns `Ok`.
    #[inline]
    pub(crate) fn put_many_if(
        &self,
        items: impl IntoIterator<Item = T>,
        check: impl Fn() -> Result<(), Reason>,
    ) -> Result<(), PutManyError<T>> {
        let mut items = items.into_iter();
        let mut put = 0;
        loop {
            let most = items.size_hint().0.clamp(1, STEP);
            let mut step: Vec<T> = items.by_ref().take(most).collect();
            if step.is_empty() {
                return Ok(());
            }
            let (count, result) = match check() {
                Ok(()) => self.put_batch(&step, Wait::Deadline(Deadline::NEVER)),
                Err(reason) => (0, Err(reason.into())),
            };
            put += count;
            let Err(refused) = result else { continue };
            let PutFailure::For(reason) = refused else { only_a_deadline_gives_up() };
            let rest = step.split_off(count + 1);
            let Some(item) = step.pop() else { unreachable!("one was refused") };
            return Err(PutManyError { put, error: PutError::new(item, *reason), rest });
        }
    }
}
