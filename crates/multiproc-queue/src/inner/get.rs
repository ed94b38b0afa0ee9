//! Getting: from frames in shared memory to values.

use std::os::fd::OwnedFd;

use multiproc_message::{self as message, DecodeError};
use multiproc_shm::Deadline;
use multiproc_shm::event_count::Poll;
use serde::de::DeserializeOwned;

use super::{BATCH, BATCH_BYTES, Inner, MOMENT, PATIENCE, Wait, only_a_deadline_gives_up};
use crate::engine::error::EngineError;
use crate::engine::frame::Header;
use crate::engine::get::Sink;
use crate::error::{Corrupted, GetError, GetManyError, GetTimeoutError, OsError, TryGetError};
use crate::fd_lane::IncomingFds;
use crate::scratch::ScratchBuffer;

/// The reason why no item was got.
pub(crate) enum GetFailure {
    NotNow,
    Stalled,
    /// Boxed, because it is large and rare.
    For(Box<GetError>),
}

impl From<GetError> for GetFailure {
    #[cold]
    fn from(error: GetError) -> Self {
        Self::For(Box::new(error))
    }
}

impl From<EngineError> for GetFailure {
    #[cold]
    fn from(error: EngineError) -> Self {
        Self::from(match error {
            EngineError::Stalled => return Self::Stalled,
            EngineError::Closed => GetError::Closed,
            EngineError::Disconnected => GetError::Disconnected,
            EngineError::OutOfMemory => GetError::OutOfMemory,
            EngineError::CutOff => GetError::Os(OsError::closed()),
            EngineError::Os(code) => GetError::Os(OsError::from_code(code)),
            EngineError::TooManyTasks => GetError::TooManyTasks,
            EngineError::Corrupted(what) => GetError::Corrupted(Corrupted { what }),
        })
    }
}

impl From<GetFailure> for GetError {
    #[cold]
    fn from(failure: GetFailure) -> Self {
        match failure {
            GetFailure::For(error) => *error,
            GetFailure::NotNow | GetFailure::Stalled => only_a_deadline_gives_up(),
        }
    }
}

impl From<GetFailure> for TryGetError {
    #[cold]
    fn from(failure: GetFailure) -> Self {
        match failure {
            GetFailure::For(error) => (*error).into(),
            GetFailure::NotNow => Self::Empty,
            GetFailure::Stalled => Self::Stalled,
        }
    }
}

impl From<GetFailure> for GetTimeoutError {
    #[cold]
    fn from(failure: GetFailure) -> Self {
        match failure {
            GetFailure::For(error) => (*error).into(),
            GetFailure::NotNow | GetFailure::Stalled => Self::Timeout,
        }
    }
}

impl<T> Inner<T> {
    /// Gets at least one item into a sink. Returns the descriptors of an item that comes alone.
    #[inline]
    fn get_items(&self, sink: &mut impl Sink, until: Wait) -> Result<Vec<OwnedFd>, GetFailure> {
        let ring = self.ring();
        let Some(end) = &self.consumer else { unreachable!("only handles that get are asked to") };
        let mut lane = IncomingFds { end, descriptors: Vec::new() };
        let patience = || Deadline::after(PATIENCE);
        let result = match until {
            Wait::Now => match ring.try_get(sink, &mut lane, patience) {
                Ok(0) => self.check_producers(&ring, Poll::CheckLiveness, patience).and(Ok(0)),
                result => result,
            },
            Wait::Deadline(deadline) => {
                let check = |poll| self.check_producers(&ring, poll, || deadline);
                ring.get(sink, &mut lane, deadline, check)
            }
        };
        if result == Err(EngineError::Closed) {
            // The lane may still contain packets that belong to no item.
            self.drain_lane();
            self.discard(MOMENT);
        }
        let count = result?;
        if count > 0 { Ok(lane.descriptors) } else { Err(GetFailure::NotNow) }
    }
}

impl<T: DeserializeOwned> Inner<T> {
    /// Gets the bytes of an item and decodes them. The error is created in place, because
    /// converting one kind of result into another would move the item.
    #[inline]
    pub(crate) fn get<E>(&self, wait: Wait) -> Result<T, E>
    where
        E: From<GetFailure> + From<DecodeError>,
    {
        let mut buffer = ScratchBuffer::empty();
        match self.get_items(&mut *buffer, wait) {
            Ok(descriptors) => message::decode_as(&buffer, descriptors),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Gets up to `max` items, and waits for the first one.
    pub(crate) fn get_many(&self, max: usize, wait: Wait) -> Result<Vec<T>, GetManyError<T>> {
        match self.get_batch(max, wait) {
            (items, Ok(()) | Err(GetFailure::NotNow | GetFailure::Stalled)) => Ok(items),
            (items, Err(GetFailure::For(error))) => Err(GetManyError { items, error: *error }),
        }
    }

    /// Gets at least one and up to `max` items. If some cannot be decoded, the first error is
    /// returned with the others.
    fn get_batch(&self, max: usize, until: Wait) -> (Vec<T>, Result<(), GetFailure>) {
        let mut items = Vec::new();
        if max == 0 {
            return (items, Ok(()));
        }
        let mut buffer = ScratchBuffer::empty();
        let mut get = || {
            let max = max.min(BATCH);
            let mut batch = Batch { buffer: &mut buffer, ends: Vec::with_capacity(max), max };
            let mut descriptors = self.get_items(&mut batch, until)?;
            let Batch { buffer, ends, .. } = batch;
            items.reserve_exact(ends.len());
            let mut start = 0;
            let mut failure = Ok(());
            for end in ends {
                let descriptors = std::mem::take(&mut descriptors);
                match message::decode_as::<T, GetError>(&buffer[start..end], descriptors) {
                    Ok(item) => items.push(item),
                    Err(error) if failure.is_ok() => failure = Err(error.into()),
                    Err(_) => {}
                }
                start = end;
            }
            failure
        };
        let result = get();
        (items, result)
    }
}

/// A sink for several items, one after the other.
struct Batch<'a> {
    buffer: &'a mut Vec<u8>,
    ends: Vec<usize>,
    max: usize,
}

impl Sink for Batch<'_> {
    #[inline]
    fn takes_more(&self) -> bool {
        self.ends.len() < self.max && self.buffer.len() < BATCH_BYTES
    }

    #[inline]
    fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer
    }

    #[inline]
    fn finish_item(&mut self, _: &Header) -> Result<(), EngineError> {
        self.ends.push(self.buffer.len());
        Ok(())
    }
}
