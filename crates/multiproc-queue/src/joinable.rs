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
use crate::memory::TaskLimits;
use crate::methods::{common, puts, ready_to_get, until_the_end};
use crate::queue::{Producer, Shutdown};
use crate::task::Task;

/// A queue of tasks. A task that was got stays in shared memory until it is completed, and is
/// delivered again if the process that got it dies.
///
/// [`get`](Self::get) returns a [`Task`], and [`join`](Self::join) waits until all tasks are done.
/// As with a [`Queue`](crate::Queue), clones and the handles that other processes receive are the
/// same queue, and each of them can put, get and join.
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

    /// Counts one of the tasks that this process has [detached](Task::detach) as done. They are
    /// completed together, once there was one call for each.
    ///
    /// # Errors
    ///
    /// If there are no more detached tasks than calls so far.
    pub fn task_done(&self) -> Result<(), TooManyTaskDone> {
        if self.inner.detached_done() { Ok(()) } else { Err(TooManyTaskDone) }
    }

    /// Waits until all tasks are done: those that were put before, and those that are put
    /// meanwhile. Dead letters do not count.
    ///
    /// If a worker is killed, its tasks are put back and waited for, so another worker must be
    /// there, or start later, to do them.
    ///
    /// # Errors
    ///
    /// If this thread has a task of the queue itself: it would wait for itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let jobs = JoinableQueue::unbounded()?;
    /// jobs.put(1)?;
    /// let worker = {
    ///     let jobs = jobs.clone();
    ///     std::thread::spawn(move || jobs.get().unwrap().task_done())
    /// };
    /// jobs.join()?;
    /// assert_eq!(jobs.unfinished(), 0);
    /// # worker.join().unwrap();
    /// # Ok(())
    /// # }
    /// ```
    pub fn join(&self) -> Result<(), JoinTasksError> {
        match self.inner.join(Deadline::NEVER) {
            Ok(()) => Ok(()),
            Err(JoinTasksTimeoutError::InTask) => Err(JoinTasksError::InTask),
            Err(JoinTasksTimeoutError::Timeout) => only_a_deadline_gives_up(),
        }
    }

    /// Waits until all tasks are done, as [`join`](Self::join), for at most `timeout`.
    ///
    /// # Errors
    ///
    /// If some tasks are not done before the timeout, or this thread has one itself.
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), JoinTasksTimeoutError> {
        self.inner.join(Deadline::after(timeout))
    }

    /// Waits until all tasks are done, as [`join`](Self::join), until `deadline` at most.
    ///
    /// # Errors
    ///
    /// As [`join_timeout`](Self::join_timeout).
    pub fn join_deadline(&self, deadline: Instant) -> Result<(), JoinTasksTimeoutError> {
        self.inner.join(Deadline::at(deadline))
    }

    /// Returns the number of tasks that are not done, queued or in progress. It is exact at one
    /// moment during the call. Dead letters do not count.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.inner.unfinished()
    }

    /// Returns how often a task is delivered at most, before it becomes a dead letter.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.inner.store.tasks.map_or(1, |tasks| tasks.max_attempts)
    }

    /// Returns the number of deliveries so far that were not the first one of their task.
    #[must_use]
    pub fn redelivered(&self) -> u64 {
        self.inner.redelivered()
    }

    /// Returns the number of tasks that have become dead letters so far, including those that are
    /// none any more.
    #[must_use]
    pub fn died(&self) -> u64 {
        self.inner.died()
    }

    /// Returns the current number of dead letters.
    #[must_use]
    pub fn dead_letters_len(&self) -> usize {
        self.inner.dead()
    }
}

impl<T: DeserializeOwned> JoinableQueue<T> {
    /// Takes the next task, and waits for one if necessary.
    ///
    /// If another worker is killed, this call delivers its tasks within a second. If no producer is
    /// left and no task can come back, it fails as described for [the end of the
    /// queue](Self#the-end-of-the-queue).
    ///
    /// # Errors
    ///
    /// See [`GetError`]. A task that cannot be decoded becomes a dead letter.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let jobs = JoinableQueue::unbounded()?;
    /// jobs.put("render".to_owned())?;
    /// let task = jobs.get()?;
    /// assert_eq!(*task, "render");
    /// task.task_done();
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self) -> Result<Task<T>, GetError> {
        Arc::clone(&self.inner).get_task(Wait::FOREVER)
    }

    /// Takes the next task if there is one now.
    ///
    /// # Errors
    ///
    /// [`Empty`](TryGetError::Empty) if there is none. Otherwise as [`get`](Self::get).
    #[doc(alias = "get_nowait")]
    pub fn try_get(&self) -> Result<Task<T>, TryGetError> {
        Arc::clone(&self.inner).get_task(Wait::Now)
    }

    /// Takes the next task, and waits for one for at most `timeout`, which bounds the whole call.
    ///
    /// # Errors
    ///
    /// [`Timeout`](GetTimeoutError::Timeout) if there was no task before the timeout. Otherwise as
    /// [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<Task<T>, GetTimeoutError> {
        Arc::clone(&self.inner).get_task(Wait::for_at_most(timeout))
    }

    /// Takes the next task, and waits for one until `deadline` at most.
    ///
    /// # Errors
    ///
    /// As [`get_timeout`](Self::get_timeout).
    pub fn get_deadline(&self, deadline: Instant) -> Result<Task<T>, GetTimeoutError> {
        Arc::clone(&self.inner).get_task(Wait::until(deadline))
    }

    /// Returns an iterator that takes tasks, and waits for each. It ends when [`get`](Self::get)
    /// fails with `Closed` or `Disconnected`.
    ///
    /// A task that cannot be decoded is an `Err`, and does not end the iteration.
    pub fn iter(&self) -> impl Iterator<Item = Result<Task<T>, GetError>> + '_ {
        until_the_end(|| self.get())
    }

    /// Returns the dead letters, oldest first: tasks that are not delivered any more. They can be
    /// examined, [taken out](DeadLetter::take) or [delivered again](DeadLetter::put_again).
    ///
    /// While a [`DeadLetter`] exists, no other process sees it. If this process is killed, it is a
    /// dead letter as before.
    ///
    /// First puts the tasks of killed workers back. So a process that has noticed the death of a
    /// worker finds the task that has killed it.
    ///
    /// One call returns dead letters of up to 64 MiB together, and one more that exceeds this.
    /// While those are kept, or after they were taken out, the next call returns the following
    /// ones.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let jobs = JoinableQueue::builder().max_attempts(2).build()?;
    /// jobs.put(13)?;
    /// drop(jobs.get()?); // first delivery
    /// drop(jobs.get()?); // second and last delivery
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

impl<T> JoinableQueue<T> {
    /// Returns a source of [`wait`](multiproc_pipe::wait) that is ready while there is a dead
    /// letter that [`dead_letters`](Self::dead_letters) has not returned through this handle.
    ///
    /// With it, a loop that waits for results, for the ends of workers and for dead letters needs
    /// no timeout. While a process waits for the source, it puts the tasks of killed workers back
    /// itself: the source is ready within a second after a worker was killed with a task in its
    /// last attempt, even if no process gets or joins.
    ///
    /// A dead letter that was returned and stays one does not make the source ready again, so the
    /// loop does not spin. A letter that was [put again](DeadLetter::put_again) and died again
    /// does.
    ///
    /// The queue itself is a source as well, which is ready when a task can be got. It is also
    /// reported once for each new dead letter.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pipe::{Source, wait};
    /// use multiproc_queue::{JoinableQueue, Queue};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let jobs = JoinableQueue::builder().max_attempts(1).build()?;
    /// let results = Queue::<u32>::unbounded()?;
    /// jobs.put_many([1, 2, 3])?;
    /// let worker = {
    ///     let (jobs, results) = (jobs.clone(), results.clone());
    ///     std::thread::spawn(move || {
    ///         for task in jobs.iter().map(Result::unwrap).take(3) {
    ///             match *task {
    ///                 2 => drop(task), // in its last attempt
    ///                 n => task.finish_with(&results, n * n).unwrap(),
    ///             }
    ///         }
    ///     })
    /// };
    /// let letters = jobs.dead_letter_source();
    /// let (mut open, mut failed) = (3, Vec::new());
    /// while open > 0 {
    ///     wait([&results as &dyn Source, &letters], None)?;
    ///     open -= results.try_get_many(10)?.len();
    ///     for letter in jobs.dead_letters()? {
    ///         open -= 1;
    ///         failed.extend(letter.take());
    ///     }
    /// }
    /// assert_eq!(failed, [2]);
    /// # worker.join().unwrap();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn dead_letter_source(&self) -> DeadLetterSource<T> {
        DeadLetterSource::of(&self.inner)
    }
}

common!(JoinableQueue, "joinable queue", true, true, |_, gets, is_joinable| gets && is_joinable);
puts!(JoinableQueue);
ready_to_get!(JoinableQueue);
