//! Putting: from values to frames in shared memory.

use std::sync::atomic::Ordering;

use multiproc_message::{self as message, EncodeError, Handles};
use multiproc_shm::Deadline;
use multiproc_shm::event_count::Poll;
use serde::Serialize;

use super::{BATCH, BATCH_BYTES, Inner, PATIENCE, Wait, only_a_deadline_gives_up};
use crate::engine::error::EngineError;
use crate::engine::frame;
use crate::engine::put::{Items, Outgoing, Put};
use crate::engine::slot::Slot;
use crate::error::{Corrupted, OsError, PutError, PutTimeoutError, Reason, TryPutError};
use crate::fd_lane::{MAX_DESCRIPTORS, OutgoingFds};
use crate::memory::LARGEST_TASK;
use crate::scratch::ScratchBuffer;

/// The number of puts after which a producer checks whether a consumer is left. (Closed consumers
/// are noticed at once, killed ones by this check.)
const PUTS_PER_CHECK: u32 = 1024;

/// The reason why an item was not put.
pub(crate) enum PutFailure {
    NotNow,
    Stalled,
    /// Boxed, because it is large and rare.
    For(Box<Reason>),
}

impl From<Reason> for PutFailure {
    #[cold]
    fn from(reason: Reason) -> Self {
        Self::For(Box::new(reason))
    }
}

impl From<EngineError> for PutFailure {
    #[cold]
    fn from(error: EngineError) -> Self {
        Self::from(match error {
            EngineError::Stalled => return Self::Stalled,
            EngineError::Closed => Reason::Closed,
            EngineError::Disconnected => Reason::Disconnected,
            EngineError::OutOfMemory => Reason::OutOfMemory,
            EngineError::CutOff => Reason::Os(OsError::closed()),
            EngineError::Os(code) => Reason::Os(OsError::from_code(code)),
            EngineError::TooManyTasks => unreachable!("putting makes no tasks"),
            EngineError::Corrupted(what) => Reason::Corrupted(Corrupted { what }),
        })
    }
}

impl<T> From<(T, PutFailure)> for PutError<T> {
    #[cold]
    fn from((item, failure): (T, PutFailure)) -> Self {
        match failure {
            PutFailure::For(reason) => Self::new(item, *reason),
            PutFailure::NotNow | PutFailure::Stalled => only_a_deadline_gives_up(),
        }
    }
}

impl<T> From<(T, PutFailure)> for TryPutError<T> {
    #[cold]
    fn from((item, failure): (T, PutFailure)) -> Self {
        match failure {
            PutFailure::For(reason) => Self::new(item, *reason),
            PutFailure::NotNow => Self::Full(item),
            PutFailure::Stalled => Self::Stalled(item),
        }
    }
}

impl<T> From<(T, PutFailure)> for PutTimeoutError<T> {
    #[cold]
    fn from((item, failure): (T, PutFailure)) -> Self {
        match failure {
            PutFailure::For(reason) => Self::new(item, *reason),
            PutFailure::NotNow | PutFailure::Stalled => Self::Timeout(item),
        }
    }
}

impl<T> Inner<T> {
    /// Puts encoded items. Returns how many were put, and why not all.
    #[inline]
    fn put_items(
        &self,
        items: Items<'_>,
        fds: Option<&mut dyn Outgoing>,
        until: Wait,
    ) -> (usize, Result<(), PutFailure>) {
        let ring = self.ring();
        let (count, result) = match until {
            Wait::Now => match ring.try_put(items, fds, || Deadline::after(PATIENCE)) {
                Ok((count, Put::Done)) => (count, Ok(())),
                Ok((count, _)) => (
                    count,
                    self.check_consumers(true)
                        .map_err(PutFailure::from)
                        .and(Err(PutFailure::NotNow)),
                ),
                Err(error) => (0, Err(error.into())),
            },
            Wait::Deadline(deadline) => {
                let check = |poll| {
                    // Some items may have been put, and the others wait until those are got.
                    self.ring_doorbell();
                    self.check_consumers(poll == Poll::CheckLiveness)
                };
                let (count, result) = ring.put(items, fds, deadline, check);
                (count, result.map_err(PutFailure::from))
            }
        };
        if count > 0 {
            self.ring_doorbell();
        }
        if let Err(PutFailure::For(_)) = &result {
            // If the queue has ended, items may have to be discarded.
            let _ = self.check_consumers(true);
        }
        (count, result)
    }

    /// Begins a put of this many items: checks that the handle is open and that a consumer is left.
    #[inline]
    fn begin_put(&self, items: usize) -> Result<(), Reason> {
        if self.is_closed() {
            return Err(Reason::Closed);
        }
        // Concurrent updates may be lost, which only delays the check.
        let before = self.puts.load(Ordering::Relaxed);
        let puts = before.wrapping_add(u32::try_from(items).unwrap_or(PUTS_PER_CHECK));
        self.puts.store(puts, Ordering::Relaxed);
        let is_time = puts / PUTS_PER_CHECK != before / PUTS_PER_CHECK;
        self.check_consumers(is_time).map_err(|error| match error {
            EngineError::Closed => Reason::Closed,
            _ => Reason::Disconnected,
        })
    }
}

impl<T: Serialize> Inner<T> {
    /// Encodes an item and puts it.
    #[inline]
    pub(crate) fn put_item(&self, item: &T, until: Wait) -> Result<(), PutFailure> {
        self.begin_put(1)?;
        let mut buffer = ScratchBuffer::empty();
        let handles = self.encode(item, &mut buffer)?;
        let items = Items { bytes: &buffer, start: 0, ends: &[buffer.len()] };
        match handles {
            None => self.put_items(items, None, until).1,
            Some(handles) => self.put_with(items, handles, until),
        }
    }

    /// Puts a single item with its handles. They count as sent only if it is put.
    #[cold]
    fn put_with(
        &self,
        items: Items<'_>,
        mut handles: Handles,
        until: Wait,
    ) -> Result<(), PutFailure> {
        let descriptors = &handles.take_descriptors();
        let result = if descriptors.is_empty() {
            self.put_items(items, None, until).1
        } else if descriptors.len() > MAX_DESCRIPTORS {
            Err(PutFailure::from(Reason::Encode(EncodeError::new::<T>(format!(
                "it has {} descriptors, and an item of a queue can have {MAX_DESCRIPTORS}; a \
                 `duplex` connection takes more",
                descriptors.len()
            )))))
        } else {
            let Some(end) = self.producer_end() else { return Err(Reason::Closed.into()) };
            self.put_items(items, Some(&mut OutgoingFds { end: &end, descriptors }), until).1
        };
        if result.is_ok() {
            handles.sent();
        }
        result
    }

    /// Puts the items in order. Returns how many were put, and why not all.
    pub(crate) fn put_batch(&self, batch: &[T], until: Wait) -> (usize, Result<(), PutFailure>) {
        let mut done = 0;
        while done < batch.len() {
            let (count, result) = self.put_some(&batch[done..], until);
            done += count;
            if result.is_err() {
                return (done, result);
            }
        }
        (done, Ok(()))
    }

    /// Puts the first few items, encoded together.
    fn put_some(&self, batch: &[T], until: Wait) -> (usize, Result<(), PutFailure>) {
        if let Err(reason) = self.begin_put(batch.len()) {
            return (0, Err(reason.into()));
        }
        let mut lent = ScratchBuffer::empty();
        let buffer = &mut *lent;
        let mut ends = Vec::with_capacity(batch.len());
        for item in batch {
            match self.encode(item, buffer) {
                Ok(None) => {}
                // An item with handles is put alone. An item that fails is an error only if it is
                // the first.
                Ok(Some(handles)) if ends.is_empty() => {
                    let items = Items { bytes: buffer, start: 0, ends: &[buffer.len()] };
                    let result = self.put_with(items, handles, until);
                    return (usize::from(result.is_ok()), result);
                }
                Err(reason) if ends.is_empty() => return (0, Err(reason.into())),
                Ok(_) | Err(_) => break,
            }
            ends.push(buffer.len());
            if buffer.len() > BATCH_BYTES || ends.len() == BATCH {
                break;
            }
        }
        self.put_items(Items { bytes: buffer, start: 0, ends: &ends }, None, until)
    }

    /// Puts the children of a task and completes it, in one step. This handle need not be one that
    /// puts. On an error, neither was done.
    pub(crate) fn finish_and_put(&self, slot: Slot, children: &[T]) -> Result<(), PutFailure> {
        let mut lent = ScratchBuffer::empty();
        let buffer = &mut *lent;
        let (mut ends, mut sent) = (Vec::with_capacity(children.len()), Vec::new());
        for child in children {
            if let Some(mut handles) = self.encode(child, buffer)? {
                if !handles.take_descriptors().is_empty() {
                    let text = "it has descriptors, which cannot be sent in one step with others";
                    return Err(Reason::Encode(EncodeError::new::<T>(text)).into());
                }
                sent.push(handles);
            }
            ends.push(buffer.len());
        }
        let items = Items { bytes: buffer, start: 0, ends: &ends };
        match self.work().finish(slot, items, Deadline::after(PATIENCE)) {
            Ok(Put::Done) => {
                sent.into_iter().for_each(Handles::sent);
                self.ring_doorbell();
                Ok(())
            }
            Ok(_) => Err(PutFailure::NotNow),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends the encoded item to the buffer.
    #[inline]
    fn encode(&self, item: &T, buffer: &mut Vec<u8>) -> Result<Option<Handles>, Reason> {
        let before = buffer.len();
        let handles = message::encode_unsent(item, buffer).map_err(Reason::Encode)?;
        let largest = if self.store.tasks.is_some() { LARGEST_TASK } else { frame::LONGEST };
        let (size, max) = (buffer.len() - before, self.store.max_bytes.min(largest));
        if size > max {
            return Err(Reason::TooLarge { size, max });
        }
        Ok(handles)
    }
}
