//! Iterators over received values.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::error::RecvError;
use crate::frame_reader::Reader;
use crate::stream::Stream;
use multiproc_shm::Deadline;

/// An iterator over received values, until the other side is gone. Created by `iter` of
/// [`Receiver`](crate::Receiver) and [`Connection`](crate::Connection).
#[must_use = "it receives when it is asked for an item"]
pub struct Iter<'a, T> {
    stream: &'a Stream,
    reader: &'a Reader,
    has_ended: bool,
    types: PhantomData<fn() -> T>,
}

impl<'a, T> Iter<'a, T> {
    pub(crate) fn new(stream: &'a Stream, reader: &'a Reader) -> Self {
        Self { stream, reader, has_ended: false, types: PhantomData }
    }
}

/// An iterator over the values that have arrived, which does not wait. Created by `try_iter` of
/// [`Receiver`](crate::Receiver) and [`Connection`](crate::Connection).
#[must_use = "it receives when it is asked for an item"]
pub struct TryIter<'a, T>(Iter<'a, T>);

impl<'a, T> TryIter<'a, T> {
    pub(crate) fn new(stream: &'a Stream, reader: &'a Reader) -> Self {
        Self(Iter::new(stream, reader))
    }
}

/// The same as [`Iter`], which owns its [`Receiver`](crate::Receiver).
#[must_use = "it receives when it is asked for an item"]
pub struct IntoIter<T> {
    stream: Stream,
    reader: Reader,
    has_ended: bool,
    types: PhantomData<fn() -> T>,
}

impl<T> IntoIter<T> {
    pub(crate) fn new(stream: Stream, reader: Reader) -> Self {
        Self { stream, reader, has_ended: false, types: PhantomData }
    }
}

impl<T: DeserializeOwned> Iterator for Iter<'_, T> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        next(self.stream, self.reader, Deadline::NEVER, &mut self.has_ended)
    }
}

impl<T: DeserializeOwned> Iterator for TryIter<'_, T> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Iter { stream, reader, has_ended, .. } = &mut self.0;
        next(stream, reader, Deadline::after(Duration::ZERO), has_ended)
    }
}

impl<T: DeserializeOwned> Iterator for IntoIter<T> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        next(&self.stream, &self.reader, Deadline::NEVER, &mut self.has_ended)
    }
}

/// Ends at the deadline, and after an error that would repeat, so that a loop which only logs
/// errors ends as well.
fn next<T: DeserializeOwned>(
    stream: &Stream,
    reader: &Reader,
    deadline: Deadline,
    has_ended: &mut bool,
) -> Option<Result<T, RecvError>> {
    if *has_ended {
        return None;
    }
    let item = reader.recv(stream, deadline).transpose();
    *has_ended = !matches!(item, Some(Ok(_) | Err(RecvError::Decode(_))));
    item.filter(|item| !matches!(item, Err(RecvError::Disconnected)))
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for TryIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryIter").field("has_ended", &self.0.has_ended).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for IntoIter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoIter").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}
