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
use crate::dead_letter::{DeadLetter, DeadLetterSource};
use crate::error::{
    GetError, GetTimeoutError, JoinTasksError, JoinTasksTimeoutError, PutError, PutManyError,
    PutManyTimeoutError, PutTimeoutError, TooManyTaskDone, TryGetError, TryPutError,
    TryPutManyError,
};
use crate::inner::{Inner, Wait, only_a_deadline_gives_up};
use crate::iter::{TaskIter, TryTaskIter};
use crate::memory::TaskLimits;
use crate::methods::{common, puts, ready_to_get};
use crate::queue::{Producer, Shutdown};
use crate::task::Task;
use crate::task_methods::{counts_tasks, gets_tasks, joins};

/// A queue of tasks. A task that was got stays in shared memory until it is completed, and is
/// delivered again if the process that got it dies.
///
/// [`get`](Self::get) returns a [`Task`], and [`join`](Self::join) waits until all tasks are done.
/// As with a [`Queue`](crate::Queue), clones and the handles that other processes receive are the
/// same queue, and each of them can put, get and join.
///
/// Where one process distributes tasks and others do them, begin with [`tasks`](crate::tasks): a
/// [`TaskProducer`](crate::TaskProducer) is told when no worker is left, while a `JoinableQueue`,
/// which could get the tasks itself, waits.
///
/// # Examples
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
/// drop(task); // not done: it is delivered again, behind the queued tasks
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
/// Its tasks are put back within a second by any process that waits for a task, gets one, or joins.
/// Their [`attempt`](Task::attempt) is then one higher, and they come behind the queued tasks. A
/// task that was delivered `max_attempts` times (16, unless the [builder](Self::builder) sets
/// another number) becomes a [dead letter](Self::dead_letters) instead, so that it cannot kill
/// workers indefinitely. A dead letter [names](DeadLetter::worker) its last worker, and
/// [`dead_letter_source`](Self::dead_letter_source) wakes a process that waits for one.
///
/// # The end of the queue
///
/// As with a `Queue`, with one difference. While another process, or another thread of this one,
/// works on a task, that task may come back. So getting waits even if no producer is left, or if
/// the queue was shut down to be drained. After [`Shutdown::Now`], a process can still complete its
/// tasks; those that it puts back are discarded.
///
/// # Limits
///
/// A task is of up to 1 GiB. About 16,000 small tasks can be in progress at a time, and fewer large
/// ones: 4096 of up to 4 KiB, 2048 of up to 64 KiB, 1024 of up to 1 MiB, 256 of up to 32 MiB, 16 of
/// up to 1 GiB. Beyond that, `get` fails with `TooManyTasks` and takes nothing. Dead letters count.
/// Tasks that were [detached](Task::detach) count until all detached tasks of their process are
/// done.
pub struct JoinableQueue<T> {
    pub(crate) inner: Arc<Inner<T>>,
}

impl<T> JoinableQueue<T> {
    /// Creates a queue that holds up to `capacity` tasks, from 1 to 2^32, in addition to those in
    /// progress.
    ///
    /// # Errors
    ///
    /// As [`QueueBuilder::build`](crate::QueueBuilder::build).
    pub fn bounded(capacity: usize) -> io::Result<Self> {
        Self::builder().capacity(capacity).build()
    }

    /// Creates a queue that holds any number of tasks, of up to 8 GiB together.
    ///
    /// # Errors
    ///
    /// As [`QueueBuilder::build`](crate::QueueBuilder::build).
    pub fn unbounded() -> io::Result<Self> {
        Self::builder().build()
    }

    /// Returns a builder for a queue with other limits, or with a name.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let jobs = JoinableQueue::<String>::builder().capacity(100).max_attempts(3).build()?;
    /// assert_eq!((jobs.capacity(), jobs.max_attempts()), (Some(100), 3));
    /// # Ok(())
    /// # }
    /// ```
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

    /// Returns a handle that can only put. If this handle was [closed](Self::close), the new one is
    /// closed as well.
    #[must_use]
    pub fn producer(&self) -> Producer<T> {
        Producer::over(self.inner.handle(true, false))
    }
}

common!(JoinableQueue, "joinable queue", true, true, |_, gets, is_joinable| gets && is_joinable);
puts!(JoinableQueue);
ready_to_get!(JoinableQueue);
gets_tasks!(JoinableQueue);
joins!(JoinableQueue);
counts_tasks!(JoinableQueue);
