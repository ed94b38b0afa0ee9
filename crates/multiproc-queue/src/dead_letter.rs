//! Dead letters: tasks of a joinable queue that are not delivered any more.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use multiproc_message::{self as message, DecodeError};
use multiproc_pipe::Source;
use serde::de::DeserializeOwned;

use crate::engine::letters::LetterEnd;
use crate::engine::slots::Delivered;
use crate::error::GetError;
use crate::inner::{GetFailure, Inner};
use crate::scratch::ScratchBuffer;
#[cfg(doc)]
use crate::task::Task;
use crate::worker::Worker;

/// The reason why a task is not delivered any more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeathReason {
    /// It was delivered `max_attempts` times.
    Attempts,
    /// It contained descriptors, which were lost with the process that got it.
    DescriptorsLost,
    /// Its bytes cannot be decoded as the expected type.
    Undecodable(DecodeError),
}

/// A task that is not delivered any more: see
/// [`JoinableQueue::dead_letters`](crate::JoinableQueue::dead_letters).
///
/// While this value exists, no other process sees the dead letter. When it is dropped, or its
/// process is killed, the task is a dead letter as before.
///
/// # Examples
///
/// ```
/// use multiproc_queue::{DeathReason, JoinableQueue};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let jobs = JoinableQueue::builder().max_attempts(1).build()?;
/// jobs.put("render".to_owned())?;
/// drop(jobs.get()?);
/// let letter = jobs.dead_letters()?.pop().unwrap();
/// assert_eq!((letter.attempts(), letter.reason()), (1, &DeathReason::Attempts));
/// assert_eq!(letter.take(), Some("render".to_owned()));
/// assert_eq!(jobs.dead_letters_len(), 0);
/// # Ok(())
/// # }
/// ```
pub struct DeadLetter<T> {
    inner: Arc<Inner<T>>,
    item: Option<T>,
    task: Delivered,
    worker: Option<Worker>,
    reason: DeathReason,
    /// What happens to it when this is dropped.
    end: LetterEnd,
}

/// How often a [`DeadLetterSource`] is checked while a process waits for it.
const RECHECK_LETTERS: Duration = Duration::from_millis(100);

/// The number of bytes of dead letters after which one call returns no more.
const HELD: usize = 64 << 20;

impl<T: DeserializeOwned> DeadLetter<T> {
    /// Returns the oldest ones, of little more than [`HELD`] bytes together.
    pub(crate) fn first(inner: &Arc<Inner<T>>) -> Result<Vec<Self>, GetError> {
        let work = inner.work();
        // A caller that has just noticed the death of a worker finds its last task.
        inner.reclaim();
        let tasks = work.tasks();
        let generation = tasks.generation();
        let mut letters = Vec::new();
        let mut total = 0;
        for slot in tasks.letters() {
            if total >= HELD {
                break;
            }
            let mut bytes = ScratchBuffer::empty();
            let found = tasks.take_letter(slot, &mut bytes).map_err(GetFailure::from)?;
            let Some((task, had_descriptors)) = found else { continue };
            // From here on, the drop returns it, whatever happens.
            let mut letter = Self {
                inner: Arc::clone(inner),
                item: None,
                worker: tasks.worker(slot).map(Worker::new),
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
        let numbers: Vec<_> = letters.iter().map(Self::id).collect();
        inner.letters_returned(generation, &numbers);
        Ok(letters)
    }
}

impl<T> DeadLetter<T> {
    /// Returns the item, or `None` if it cannot be decoded: see [`reason`](Self::reason).
    #[must_use]
    pub fn item(&self) -> Option<&T> {
        self.item.as_ref()
    }

    /// Returns the reason why the task is not delivered any more.
    #[must_use]
    pub fn reason(&self) -> &DeathReason {
        &self.reason
    }

    /// Returns the task's [`id`](Task::id).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.task.number
    }

    /// Returns how often the task was delivered.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.task.deliveries
    }

    /// Returns the worker that had the task last, and how its attempt ended. `None` if it is not
    /// known: the worker was killed before it had written its name.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::{JoinableQueue, WorkerEnd};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let jobs = JoinableQueue::builder().max_attempts(1).build()?;
    /// jobs.put("render".to_owned())?;
    /// drop(jobs.get()?);
    /// let letter = jobs.dead_letters()?.pop().unwrap();
    /// let worker = letter.worker().unwrap();
    /// assert_eq!((worker.pid(), worker.end()), (std::process::id(), WorkerEnd::PutBack));
    /// println!("{worker}"); // process 4711 (render-farm) put the task back
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn worker(&self) -> Option<&Worker> {
        self.worker.as_ref()
    }

    /// Removes the task from the queue for good, and returns its item.
    #[must_use = "to discard the item, write `drop(letter.take())`"]
    pub fn take(mut self) -> Option<T> {
        self.end = LetterEnd::Discard;
        self.item.take()
    }

    /// Delivers the task again, behind the queued tasks, as if it had never been delivered. It
    /// counts as unfinished again.
    ///
    /// If its descriptors are lost, it cannot be decoded, and becomes a dead letter once more.
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
            .field("worker", &self.worker)
            .field("item", &self.item)
            .finish()
    }
}

/// A source of [`wait`](multiproc_pipe::wait) that is ready while there is a dead letter to be
/// examined: see [`JoinableQueue::dead_letter_source`](crate::JoinableQueue::dead_letter_source).
pub struct DeadLetterSource<T> {
    inner: Arc<Inner<T>>,
}

impl<T> DeadLetterSource<T> {
    pub(crate) fn of(inner: &Arc<Inner<T>>) -> Self {
        Self { inner: Arc::clone(inner) }
    }
}

/// Nothing is notified of a dead letter whose worker was killed, so the source is checked at an
/// interval. It has no descriptor.
impl<T> Source for DeadLetterSource<T> {
    fn watch<'a>(&'a self, _: &mut dyn FnMut(BorrowedFd<'a>)) {}

    fn prepare(&self) -> io::Result<bool> {
        Ok(self.inner.has_new_letters())
    }

    fn longest_sleep(&self) -> Duration {
        RECHECK_LETTERS
    }
}

impl<T> Clone for DeadLetterSource<T> {
    fn clone(&self) -> Self {
        Self::of(&self.inner)
    }
}

impl<T> fmt::Debug for DeadLetterSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterSource").field("is_ready", &self.inner.has_new_letters()).finish()
    }
}
