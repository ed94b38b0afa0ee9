//! The two ends of a queue of tasks.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use multiproc_pipe::Source;
use multiproc_shm::{Deadline, RECHECK};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::dead_letter::{DeadLetter, DeadLetterSource};
use crate::error::{
    GetError, GetTimeoutError, JoinTasksError, JoinTasksTimeoutError, PutError, PutManyError,
    PutManyTimeoutError, PutTimeoutError, TooManyTaskDone, TryGetError, TryPutError,
    TryPutManyError,
};
use crate::inner::{Inner, Wait, only_a_deadline_gives_up};
use crate::iter::{TaskIter, TryTaskIter};
use crate::joinable::JoinableQueue;
use crate::methods::{common, puts, ready_to_get};
use crate::queue::Shutdown;
use crate::task::Task;
use crate::task_methods::{counts_tasks, gets_tasks, joins};

/// A handle of a queue of tasks that puts tasks and waits for their completion. It cannot get.
///
/// It is one of the two ends that [`tasks`](crate::tasks) returns. The other one is
/// [`TaskConsumer`].
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (producer, consumer) = multiproc_queue::tasks(10)?;
/// producer.put("render".to_owned())?;
/// assert_eq!(producer.unfinished(), 1);
/// consumer.get()?.task_done();
/// producer.join()?;
/// # Ok(())
/// # }
/// ```
///
/// # The end of the queue
///
/// While a handle that can put exists (a `TaskProducer`, a `Producer`, or a [`JoinableQueue`]),
/// workers wait for more tasks. When the last one is dropped, or its process ends in any way, they
/// get the remaining tasks and then `Disconnected`. So a process that distributes tasks
/// [joins](Self::join), drops its `TaskProducer`, and then waits for the workers to end.
///
/// A worker that adds tasks needs a `TaskProducer` too, and keeps the queue open with it. It must
/// not wait for the end of the queue then: the process that joins ends the queue with
/// [`shutdown`](Self::shutdown) once all tasks are done.
///
/// ```
/// use multiproc_queue::{Shutdown, TaskConsumer, TaskProducer, tasks};
///
/// /// Splits numbers until they are 1.
/// fn work((more, tasks): (TaskProducer<u32>, TaskConsumer<u32>)) {
///     for task in tasks {
///         let task = task.unwrap();
///         if *task > 1 {
///             // First the new tasks, and then the end of this one. So `join` does not return
///             // between the two.
///             more.put_many([*task / 2, *task - *task / 2]).unwrap();
///         }
///         task.task_done();
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (producer, consumer) = multiproc_queue::unbounded_tasks()?;
/// let ends = (producer.clone(), consumer);
/// let worker = std::thread::spawn(|| work(ends));
/// producer.put(100)?;
/// producer.join()?;
/// producer.shutdown(Shutdown::Drain); // ends the loop of the worker
/// worker.join().unwrap();
/// # Ok(())
/// # }
/// ```
///
/// # When workers die
///
/// Their tasks are redelivered to other workers, as with a [`JoinableQueue`]. If no handle is left
/// that could get them, [`join`](Self::join) fails with
/// [`NoWorkers`](JoinTasksError::NoWorkers), and putting with `Disconnected`. The tasks that are
/// left are discarded then. Dead letters stay as long as the queue.
///
/// A task that kills each worker that gets it ends all of them, unless it becomes a dead letter
/// before: with a [`max_attempts`](crate::JoinableQueueBuilder::max_attempts) that is less than the
/// number of workers, or with workers that are replaced. A process that replaces them keeps a
/// [`TaskConsumer`] to start others with. It could start one at any time, so its join waits: it
/// joins with a timeout, and checks its workers in between.
///
/// ```
/// use multiproc_queue::{JoinTasksError, tasks};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (producer, consumer) = tasks(10)?;
/// producer.put_many(1..=3)?;
/// consumer.get()?.task_done();
/// drop(consumer); // as if the last worker had crashed
/// assert_eq!(producer.join(), Err(JoinTasksError::NoWorkers { left: 2 }));
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Sender")]
pub struct TaskProducer<T> {
    inner: Arc<Inner<T>>,
}

/// A handle of a queue of tasks that gets tasks. It cannot put, and cannot wait until all are done.
///
/// It is one of the two ends that [`tasks`](crate::tasks) returns. The other one is
/// [`TaskProducer`]. A worker iterates over it:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (producer, consumer) = multiproc_queue::tasks(10)?;
/// producer.put_many(1..=3)?;
/// drop(producer);
/// let mut sum = 0;
/// for task in consumer {
///     let task = task?;
///     sum += *task;
///     task.task_done();
/// }
/// assert_eq!(sum, 6);
/// # Ok(())
/// # }
/// ```
///
/// # The end of the queue
///
/// When the last handle that can put is dropped, or its process ends in any way, getting fails with
/// `Disconnected` once all tasks are done. While another process, or another thread of this one,
/// works on a task, that task may come back, so getting waits for it.
///
/// When the last handle that can get is dropped, or its process ends in any way, putting fails with
/// `Disconnected`. A [`Task`], a [`Receipt`](crate::Receipt) and a handle inside a message or an
/// item that was not received yet count as such a handle.
#[doc(alias = "Receiver")]
pub struct TaskConsumer<T> {
    pub(crate) inner: Arc<Inner<T>>,
}

impl<T> JoinableQueue<T> {
    /// Returns the handle that puts and [joins](TaskProducer::join), and gives up getting. If this
    /// handle was [closed](Self::close), the new one is closed as well.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = JoinableQueue::bounded(10)?;
    /// let worker_end = queue.clone().into_consumer();
    /// let producer = queue.into_producer();
    /// producer.put(1)?;
    /// worker_end.get()?.task_done();
    /// producer.join()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn into_producer(self) -> TaskProducer<T> {
        TaskProducer { inner: Arc::new(self.inner.handle(true, false)) }
    }

    /// Returns the handle that gets, and gives up putting.
    ///
    /// # Examples
    ///
    /// See [`into_producer`](Self::into_producer).
    #[must_use]
    pub fn into_consumer(self) -> TaskConsumer<T> {
        TaskConsumer { inner: Arc::new(self.inner.handle(false, true)) }
    }

    /// Returns the two ends, in place of this handle.
    pub(crate) fn into_ends(self) -> (TaskProducer<T>, TaskConsumer<T>) {
        (self.clone().into_producer(), self.into_consumer())
    }
}

common!(TaskProducer, "producer of tasks", true, false, |_, gets, is_joinable| {
    !gets && is_joinable
});
common!(TaskConsumer, "consumer of tasks", false, true, |puts, gets, is_joinable| {
    gets && !puts && is_joinable
});

puts!(TaskProducer);
joins!(TaskProducer);
gets_tasks!(TaskConsumer);
ready_to_get!(TaskConsumer);

counts_tasks!(TaskProducer);
counts_tasks!(TaskConsumer);
