//! Tasks of a joinable queue that are not delivered any more.

use std::fmt;
use std::sync::Arc;

use multiproc_message::{self as message, DecodeError};
use serde::de::DeserializeOwned;

use crate::engine::letters::LetterEnd;
use crate::engine::slots::Delivered;
use crate::error::GetError;
use crate::inner::{GetFailure, Inner};
use crate::scratch::ScratchBuffer;
#[cfg(doc)]
use crate::task::Task;

/// Why a task is not delivered any more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeathReason {
    /// It was delivered as often as the queue's `max_attempts` says.
    Attempts,
    /// It had descriptors, and they have gone with whoever got it.
    DescriptorsLost,
    /// It is no value of the expected type.
    Undecodable(DecodeError),
}

/// A task that is not delivered any more; see
/// [`JoinableQueue::dead_letters`](crate::JoinableQueue::dead_letters).
///
/// While this exists, nobody else sees it. Dropped, it is a dead letter as before.
pub struct DeadLetter<T> {
    inner: Arc<Inner<T>>,
    item: Option<T>,
    task: Delivered,
    reason: DeathReason,
    /// What becomes of it when it is dropped.
    end: LetterEnd,
}

/// How many bytes of dead letters are enough for one call.
const HELD: usize = 64 << 20;

impl<T: DeserializeOwned> DeadLetter<T> {
    /// The first ones, from the oldest on, and not much more than [`HELD`] bytes of them.
    pub(crate) fn first(inner: &Arc<Inner<T>>) -> Result<Vec<Self>, GetError> {
        let work = inner.work();
        let tasks = work.tasks();
        let mut letters = Vec::new();
        let mut total = 0;
        for slot in tasks.letters() {
            if total >= HELD {
                break;
            }
            let mut bytes = ScratchBuffer::empty();
            let found = tasks.take_letter(slot, &mut bytes).map_err(GetFailure::from)?;
            let Some((task, had_descriptors)) = found else { continue };
            // From here on, it is laid back whatever happens.
            let mut letter = Self {
                inner: Arc::clone(inner),
                item: None,
                task,
                reason: DeathReason::Attempts,
                end: LetterEnd::LayBack,
            };
            match message::decode(&bytes, Vec::new()) {
                Ok(item) => letter.item = Some(item),
                Err(_) if had_descriptors => letter.reason = DeathReason::DescriptorsLost,
                Err(error) => letter.reason = DeathReason::Undecodable(error),
            }
            total += bytes.len();
            letters.push(letter);
        }
        Ok(letters)
    }
}

impl<T> DeadLetter<T> {
    /// The item; `None`, if it cannot be decoded: see [`reason`](Self::reason).
    #[must_use]
    pub fn item(&self) -> Option<&T> {
        self.item.as_ref()
    }

    /// Why it is not delivered any more.
    #[must_use]
    pub fn reason(&self) -> &DeathReason {
        &self.reason
    }

    /// The task's [`id`](Task::id).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.task.number
    }

    /// How often it was delivered.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.task.deliveries
    }

    /// Takes it out of the queue, for good.
    #[must_use = "to throw it away, say `drop(letter.take())`"]
    pub fn take(mut self) -> Option<T> {
        self.end = LetterEnd::Discard;
        self.item.take()
    }

    /// Delivers it again, at the end, as if it had never been delivered. It counts as unfinished
    /// again. (If its descriptors are lost, it cannot be decoded, and will be a dead letter again.)
    pub fn put_again(mut self) {
        self.end = LetterEnd::Revive { due: self.inner.work().end() };
    }
}

impl<T> Drop for DeadLetter<T> {
    fn drop(&mut self) {
        self.inner.work().end_letter(self.task.slot, self.end);
        self.inner.ring_doorbell();
    }
}

impl<T: fmt::Debug> fmt::Debug for DeadLetter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("id", &self.id())
            .field("attempts", &self.attempts())
            .field("reason", &self.reason)
            .field("item", &self.item)
            .finish()
    }
}
