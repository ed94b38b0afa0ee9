//! Putting values: what the handles share.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use multiproc_message::{Encode, check_type};
use serde::{Deserialize, Serialize};

use super::{Inner, PutFailure, Wait};
use crate::error::{PutError, PutManyError, PutTimeoutError, Reason, TryPutError};

/// The maximum number of items that are taken from an iterator at a time.
const STEP: usize = 128;

// Not `DeserializeOwned`: a type such as `&str` would match that as well, and then not compile.
impl<T: Deserialize<'static>> Inner<T> {
    /// Returns an error if items of this type could be put, but not be got.
    ///
    /// The type is checked once for each handle.
    #[inline]
    fn check_type(&self) -> Result<(), Reason> {
        if self.is_type_checked.load(Ordering::Relaxed) { Ok(()) } else { self.check_type_once() }
    }

    #[cold]
    fn check_type_once(&self) -> Result<(), Reason> {
        check_type::<T>().map_err(Reason::Encode)?;
        self.is_type_checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Puts an item of a type that can be got.
    #[inline]
    pub(crate) fn put_checked<E: From<(T, PutFailure)>>(&self, item: T, wait: Wait) -> Result<(), E>
    where
        T: Serialize,
    {
        match self.check_type() {
            Ok(()) => self.put_value(item, wait),
            Err(reason) => Err(E::from((item, reason.into()))),
        }
    }

    /// Puts items of a type that can be got.
    pub(crate) fn put_many_checked(
        &self,
        items: impl IntoIterator<Item = T>,
    ) -> Result<(), PutManyError<T>>
    where
        T: Serialize,
    {
        self.put_many_if(items, || self.check_type())
    }
}

/// The methods of the handles that put, for types that are not known to implement `Deserialize`.
///
/// The handles dereference to this type. A call ends here where their own methods do not apply,
/// which require `Deserialize` and check the type.
///
/// The bound is that of the methods, so that the compiler finds them for every type and reports
/// that the type cannot be sent, in place of that there is no such method.
#[doc(hidden)]
impl<T> Inner<T> {
    #[inline]
    pub fn put(&self, item: T) -> Result<(), PutError<T>>
    where
        T: Encode,
    {
        self.put_value(item, Wait::FOREVER)
    }

    #[inline]
    pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>>
    where
        T: Encode,
    {
        self.put_value(item, Wait::Now)
    }

    #[inline]
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), PutTimeoutError<T>>
    where
        T: Encode,
    {
        self.put_value(item, Wait::for_at_most(timeout))
    }

    #[inline]
    pub fn put_deadline(&self, item: T, deadline: Instant) -> Result<(), PutTimeoutError<T>>
    where
        T: Encode,
    {
        self.put_value(item, Wait::until(deadline))
    }

    pub fn put_many(&self, items: impl IntoIterator<Item = T>) -> Result<(), PutManyError<T>>
    where
        T: Encode,
    {
        self.put_many_if(items, || Ok(()))
    }
}

impl<T: Serialize> Inner<T> {
    #[inline]
    fn put_value<E: From<(T, PutFailure)>>(&self, item: T, wait: Wait) -> Result<(), E> {
        match self.put_item(&item, wait) {
            Ok(()) => Ok(()),
            Err(failure) => Err(E::from((item, failure))),
        }
    }

    /// Puts the items in steps, each of them only if `check` returns `Ok`.
    #[inline]
    fn put_many_if(
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
                Ok(()) => self.put_batch(&step, Wait::FOREVER),
                Err(reason) => (0, Err(reason.into())),
            };
            put += count;
            let Err(refused) = result else { continue };
            let rest = step.split_off(count + 1);
            let Some(item) = step.pop() else { unreachable!("one was refused") };
            return Err(PutManyError { put, error: (item, refused).into(), rest });
        }
    }
}
