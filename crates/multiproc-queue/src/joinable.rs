//! The public joinable queue.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use multiproc_pipe::Source;
use multiproc_shm::Deadline;
use multiproc_shm::RECHECK;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::builder::JoinableQueueBuilder;
use crate::dead_letter::DeadLetter;
use crate::error::{
    GetError, GetTimeoutError, JoinTasksError, JoinTasksTimeoutError, PutError, PutManyError,
    PutTimeoutError, TooManyTaskDone, TryGetError, TryPutError,
};
use crate::inner::{Inner, Wait, only_a_deadline_gives_up};
use crate::memory::TaskLimits;
use crate::methods::{common, puts, ready_to_get, until_the_end};
use crate::queue::{Producer, Shutdown};
use crate::task::Task;

/// A queue of work: what is got stays in shared memory until it is said to be done, and goes back if
/// whoever got it dies.
///
/// `get` gives a [`Task`]; [`join`](Self::join) waits until all are done. As with a
/// [`Queue`](crate::Queue), clones and what other processes receive are the same queue, and all of
/// them may put, get, and join.
///
/// ```
/// use multiproc_queue::JoinableQueue;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let jobs = JoinableQueue::unbounded()?;
/// jobs.put_many(["shine".to_owned(), "rise".to_owned()])?;
///
/// let task = jobs.get()?;
/// assert_eq!((task.as_str(), task.attempt()), ("shine", 1));
/// drop(task); // not done: it goes back, to the end
///
/// let task = jobs.get()?;
/// assert_eq!(task.as_str(), "rise");
/// task.task_done();
///
/// let task = jobs.get()?;
/// assert_eq!((task.as_str(), task.attempt()), ("shine", 2));
/// assert_eq!(jobs.unfinished(), 1);
/// task.task_done();
/// jobs.join()?;
/// # Ok(())
/// # }
/// ```
///
/// # When a worker dies
///
/// Its tasks are put back within a second, by whoever waits for a task, gets one, or joins; with
/// [`attempt`](Task::attempt) one higher, behind what was there. A task that has been delivered
/// `max_attempts` times (16, unless the [builder](Self::builder) says otherwise) is a
/// [dead letter](Self::dead_letters) instead, so that it cannot kill workers for ever.
///
/// # The end
///
/// As with a `Queue`; but as long as another process works on a task, or another thread of this one,
/// that may come back, so getting waits also when nobody is left who could put, or the queue was
/// shut down to be drained. Who has been thrown out by [`Shutdown::Now`] may still end its tasks;
/// those that it gives back are thrown away.
///
/// # Limits
///
/// A task is of up to 1 GiB. Some 16,000 small ones can be in work at a time, fewer large ones: 4096 of
/// up to 4 KiB, 2048 of up to 64 KiB, 1024 of up to 1 MiB, 256 of up to 32 MiB, 16 of up to 1 GiB.
/// `get` beyond that is an error, `TooManyTasks`, and takes nothing. Dead letters count; so do tasks that
/// were [detached](Task::detach), until all of their process are done.
pub struct JoinableQueue<T> {
    pub(crate) inner: Arc<Inner<T>>,
}

impl<T> JoinableQueue<T> {
    /// A queue that holds up to `capacity` tasks, from 1 to 2^32, beside those in work.
    ///
    /// # Errors
    ///
    /// As [`QueueBuilder::build`](crate::QueueBuilder::build).
    pub fn bounded(capacity: usize) -> io::Result<Self> {
        Self::builder().capacity(capacity).build()
    }

    /// A queue that holds any number of tasks, of up to 8 GiB together.
    ///
    /// # Errors
    ///
    /// As [`QueueBuilder::build`](crate::QueueBuilder::build).
    pub fn unbounded() -> io::Result<Self> {
        Self::builder().build()
    }

    /// A queue with other bounds, or a name.
    #[must_use]
    pub fn builder() -> JoinableQueueBuilder<T> {
        JoinableQueueBuilder::new()
    }

    pub(crate) fn create(
        name: Option<&str>,
        capacity: Option<usize>,
        max_bytes: usize,
        tasks: TaskLimits,
    ) -> io::Result<Self> {
        Ok(Self { inner: Arc::new(Inner::create(name, capacity, max_bytes, Some(tasks))?) })
    }

    /// A handle that can only put. (If this one was [closed](Self::close), it is closed, too.)
    #[must_use]
    pub fn producer(&self) -> Producer<T> {
        Producer::over(self.inner.handle(true, false))
    }

    /// Counts one of the tasks that this process has [detached](Task::detach) as done. Once all of them
    /// are, they are completed together.
    ///
    /// # Errors
    ///
    /// If it was called as often as there are detached tasks.
    pub fn task_done(&self) -> Result<(), TooManyTaskDone> {
        if self.inner.detached_done() { Ok(()) } else { Err(TooManyTaskDone) }
    }

    /// Waits until all tasks are done: those that were put before, and those that are put meanwhile.
    /// Dead letters are not waited for.
    ///
    /// When a worker is killed, its tasks are put back and waited for: so there must be another one
    /// that does them, sooner or later.
    ///
    /// # Errors
    ///
    /// If this thread has a task itself: it would wait for its own end.
    pub fn join(&self) -> Result<(), JoinTasksError> {
        match self.inner.join(Deadline::NEVER) {
            Ok(()) => Ok(()),
            Err(JoinTasksTimeoutError::InTask) => Err(JoinTasksError::InTask),
            Err(JoinTasksTimeoutError::Timeout) => only_a_deadline_gives_up(),
        }
    }

    /// As [`join`](Self::join), for at most `timeout`.
    ///
    /// # Errors
    ///
    /// If some tasks are not done in time, or this thread has one itself.
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), JoinTasksTimeoutError> {
        self.inner.join(Deadline::after(timeout))
    }

    /// As [`join`](Self::join), until `deadline` at most.
    ///
    /// # Errors
    ///
    /// As [`join_timeout`](Self::join_timeout).
    pub fn join_deadline(&self, deadline: Instant) -> Result<(), JoinTasksTimeoutError> {
        self.inner.join(Deadline::at(deadline))
    }

    /// How many tasks are not done, whether they wait or are in work: exact at one moment during the
    /// call. Dead letters do not count.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.inner.unfinished()
    }

    /// So often a task is delivered at most, before it becomes a dead letter.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.inner.store.tasks.map_or(1, |tasks| tasks.max_attempts)
    }

    /// How many deliveries so far were not the first one of their task.
    #[must_use]
    pub fn redelivered(&self) -> u64 {
        self.inner.redelivered()
    }

    /// How many tasks have become dead letters so far, also if they are none any more.
    #[must_use]
    pub fn died(&self) -> u64 {
        self.inner.died()
    }

    /// How many dead letters there are now.
    #[must_use]
    pub fn dead_letters_len(&self) -> usize {
        self.inner.dead()
    }
}

impl<T: DeserializeOwned> JoinableQueue<T> {
    /// Takes the next task, waiting for it as long as it takes.
    ///
    /// # Errors
    ///
    /// See [`GetError`]. A task that cannot be decoded becomes a dead letter.
    pub fn get(&self) -> Result<Task<T>, GetError> {
        Arc::clone(&self.inner).get_task(Wait::FOREVER)
    }

    /// Takes the next task if there is one, without waiting for it.
    ///
    /// # Errors
    ///
    /// [`Empty`](TryGetError::Empty) if there is none; else as [`get`](Self::get).
    pub fn try_get(&self) -> Result<Task<T>, TryGetError> {
        Arc::clone(&self.inner).get_task(Wait::Now)
    }

    /// Takes the next task, waiting for it for at most `timeout`, which bounds the whole call.
    ///
    /// # Errors
    ///
    /// [`Timeout`](GetTimeoutError::Timeout) if there was none in time; else as [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<Task<T>, GetTimeoutError> {
        Arc::clone(&self.inner).get_task(Wait::for_at_most(timeout))
    }

    /// Takes the next task, waiting for it until `deadline` at most.
    ///
    /// # Errors
    ///
    /// As [`get_timeout`](Self::get_timeout).
    pub fn get_deadline(&self, deadline: Instant) -> Result<Task<T>, GetTimeoutError> {
        Arc::clone(&self.inner).get_task(Wait::until(deadline))
    }

    /// All tasks to come, waiting for each. It ends when the queue does: when `get` would say
    /// `Closed` or `Disconnected`.
    ///
    /// One that cannot be decoded is an `Err`, and does not end it.
    pub fn iter(&self) -> impl Iterator<Item = Result<Task<T>, GetError>> + '_ {
        until_the_end(|| self.get())
    }

    /// The tasks that are not delivered any more, from the oldest on: to look at, to
    /// [take](DeadLetter::take) out, or to [put again](DeadLetter::put_again).
    ///
    /// While they are looked at, nobody else sees them; if this process dies, they are as before.
    ///
    /// One call returns letters of up to 64 MiB together, and one that goes beyond. While those are kept
    /// (or after they were taken out), the next call returns the next ones.
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let jobs = JoinableQueue::builder().max_attempts(2).build()?;
    /// jobs.put(13)?;
    /// drop(jobs.get()?); // an attempt
    /// drop(jobs.get()?); // and another one
    /// assert!(jobs.try_get().unwrap_err().is_empty());
    /// jobs.join()?;
    /// let letters = jobs.dead_letters()?;
    /// assert_eq!((letters[0].item(), letters[0].attempts()), (Some(&13), 2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the queue is corrupted.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter<T>>, GetError> {
        DeadLetter::first(&self.inner)
    }
}

common!(JoinableQueue, "joinable queue", true, true, |_, gets, is_joinable| gets && is_joinable);
puts!(JoinableQueue);
ready_to_get!(JoinableQueue);
