//! Iterators over items and tasks.

use std::fmt;
use std::sync::Arc;

use multiproc_message::DecodeError;
use serde::de::DeserializeOwned;

use crate::error::{GetError, TryGetError};
use crate::inner::{GetFailure, Inner, Wait};

use crate::joinable::JoinableQueue;
use crate::queue::{Consumer, Queue};
use crate::task::Task;
use crate::task_ends::TaskConsumer;

/// Whether an iterator has ended.
#[derive(Debug, Default)]
struct Ended(bool);

impl Ended {
    /// Returns the next result. Ends at the end of the queue, and after an error that every further
    /// call would return as well, so that a loop which only logs errors ends too.
    fn next<T>(
        &mut self,
        get: impl FnOnce() -> Result<T, GetError>,
    ) -> Option<Result<T, GetError>> {
        if self.0 {
            return None;
        }
        let result = get();
        let is_end = matches!(result, Err(GetError::Closed | GetError::Disconnected));
        self.0 = is_end || matches!(result, Err(GetError::Corrupted(_)));
        Some(result).filter(|_| !is_end)
    }

    /// The same, and also ends where nothing is queued.
    fn try_next<T>(
        &mut self,
        get: impl FnOnce() -> Result<T, TryGetError>,
    ) -> Option<Result<T, TryGetError>> {
        if self.0 {
            return None;
        }
        let result = get();
        let is_end = matches!(
            result,
            Err(TryGetError::Empty | TryGetError::Closed | TryGetError::Disconnected)
        );
        let is_last = matches!(result, Err(TryGetError::Corrupted(_) | TryGetError::Stalled));
        self.0 = is_end || is_last;
        Some(result).filter(|_| !is_end)
    }
}

/// Defines the three iterators of one kind of queue.
macro_rules! iterators {
    (
        $what:literal, $handles:literal, $inner:ty, $item:ty, $get:path;
        $iter:ident $try_iter:ident $into_iter:ident
    ) => {
        #[doc = concat!("An iterator that takes ", $what, ", and waits for each. Created by `iter` \
                         of ", $handles, ".")]
        #[must_use = "iterators take nothing until they are asked for it"]
        pub struct $iter<'a, T> {
            inner: &'a $inner,
            ended: Ended,
        }

        #[doc = concat!("An iterator that takes the queued ", $what, " and does not wait. Created \
                         by `try_iter` of ", $handles, ".")]
        #[must_use = "iterators take nothing until they are asked for it"]
        pub struct $try_iter<'a, T> {
            inner: &'a $inner,
            ended: Ended,
        }

        #[doc = concat!("The same as [`", stringify!($iter), "`], which owns its handle. It cannot \
                         put.")]
        #[must_use = "iterators take nothing until they are asked for it"]
        pub struct $into_iter<T> {
            inner: $inner,
            ended: Ended,
        }

        impl<'a, T> $iter<'a, T> {
            pub(crate) fn new(inner: &'a $inner) -> Self {
                Self { inner, ended: Ended::default() }
            }
        }

        impl<'a, T> $try_iter<'a, T> {
            pub(crate) fn new(inner: &'a $inner) -> Self {
                Self { inner, ended: Ended::default() }
            }
        }

        impl<T> $into_iter<T> {
            pub(crate) fn new(inner: $inner) -> Self {
                Self { inner, ended: Ended::default() }
            }
        }

        impl<T: DeserializeOwned> Iterator for $iter<'_, T> {
            type Item = Result<$item, GetError>;

            fn next(&mut self) -> Option<Self::Item> {
                self.ended.next(|| $get(self.inner, Wait::FOREVER))
            }
        }

        impl<T: DeserializeOwned> Iterator for $try_iter<'_, T> {
            type Item = Result<$item, TryGetError>;

            fn next(&mut self) -> Option<Self::Item> {
                self.ended.try_next(|| $get(self.inner, Wait::Now))
            }
        }

        impl<T: DeserializeOwned> Iterator for $into_iter<T> {
            type Item = Result<$item, GetError>;

            fn next(&mut self) -> Option<Self::Item> {
                self.ended.next(|| $get(&self.inner, Wait::FOREVER))
            }
        }

        iterators!(@debug $iter<'_, T>);
        iterators!(@debug $try_iter<'_, T>);
        iterators!(@debug $into_iter<T>);
    };
    (@debug $name:ident $($generics:tt)*) => {
        impl<T> fmt::Debug for $name $($generics)* {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("has_ended", &self.ended.0)
                    .finish_non_exhaustive()
            }
        }
    };
}

fn item<T: DeserializeOwned, E>(inner: &Inner<T>, wait: Wait) -> Result<T, E>
where
    E: From<GetFailure> + From<DecodeError>,
{
    inner.get(wait)
}

fn task<T: DeserializeOwned, E: From<GetFailure>>(
    inner: &Arc<Inner<T>>,
    wait: Wait,
) -> Result<Task<T>, E> {
    Arc::clone(inner).get_task(wait)
}

iterators!(
    "items", "[`Queue`] and [`Consumer`]", Inner<T>, T, item;
    Iter TryIter IntoIter
);
iterators!(
    "tasks", "[`JoinableQueue`] and [`TaskConsumer`]", Arc<Inner<T>>, Task<T>, task;
    TaskIter TryTaskIter TaskIntoIter
);

/// Implements `IntoIterator` for a handle that can get.
macro_rules! into_iterator {
    ($name:ident $item:ty, $iter:ident $into_iter:ident) => {
        impl<'a, T: DeserializeOwned> IntoIterator for &'a $name<T> {
            type Item = Result<$item, GetError>;
            type IntoIter = $iter<'a, T>;

            fn into_iter(self) -> $iter<'a, T> {
                self.iter()
            }
        }

        /// Gives up putting, so that the iteration ends when no other handle can put.
        impl<T: DeserializeOwned> IntoIterator for $name<T> {
            type Item = Result<$item, GetError>;
            type IntoIter = $into_iter<T>;

            fn into_iter(self) -> $into_iter<T> {
                $into_iter::new(self.inner.handle(false, true).into())
            }
        }
    };
}

into_iterator!(Queue T, Iter IntoIter);
into_iterator!(Consumer T, Iter IntoIter);
into_iterator!(JoinableQueue Task<T>, TaskIter TaskIntoIter);
into_iterator!(TaskConsumer Task<T>, TaskIter TaskIntoIter);
