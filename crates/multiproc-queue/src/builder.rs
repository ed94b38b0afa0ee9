//! Builders for queues with other limits, or with a name.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use crate::joinable::JoinableQueue;
use crate::memory::{DEFAULT_BYTES, MAX_BYTES, MAX_CAPACITY, TaskLimits};
use crate::queue::{Consumer, Producer, Queue};
use crate::task_ends::{TaskConsumer, TaskProducer};

/// Creates a [`Queue`] with limits or a name: see [`Queue::builder`].
///
/// # Examples
///
/// ```
/// use multiproc_queue::Queue;
///
/// # fn main() -> std::io::Result<()> {
/// let jobs = Queue::<String>::builder().capacity(10).max_bytes(1 << 16).build()?;
/// assert_eq!((jobs.capacity(), jobs.max_bytes()), (Some(10), 1 << 16));
/// # Ok(())
/// # }
/// ```
pub struct QueueBuilder<T> {
    capacity: Option<usize>,
    max_bytes: usize,
    name: Option<String>,
    items: PhantomData<fn(T) -> T>,
}

impl<T> QueueBuilder<T> {
    pub(crate) fn new() -> Self {
        Self { capacity: None, max_bytes: DEFAULT_BYTES, name: None, items: PhantomData }
    }

    /// Sets the maximum number of items, from 1 to 2^32. By default, only their bytes are limited.
    #[doc(alias = "maxsize")]
    #[must_use]
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// Sets the maximum number of bytes of all queued items together, which is also the maximum
    /// encoded size of one item. From 1 to 2^40. The default is 2^33 (8 GiB).
    ///
    /// An item takes its encoded size plus 16 bytes, rounded up to a multiple of 16. An item of
    /// exactly `max_bytes` encoded fits. The queue takes this much *address space* in each process
    /// that has it open, but memory only for queued items.
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets a name for humans. `Debug` shows it, and `/proc/PID/maps` (its first 230 bytes or so).
    /// It does not have to be unique.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Creates the queue.
    ///
    /// # Errors
    ///
    /// If a number is out of range, if there are no descriptors or no memory left, if `/proc` is
    /// missing, or if a resource limit is too small, which the error then names.
    pub fn build(self) -> io::Result<Queue<T>> {
        if let Some(capacity) = self.capacity {
            check("capacity", "items", capacity, MAX_CAPACITY)?;
        }
        check("max_bytes", "bytes", self.max_bytes, MAX_BYTES)?;
        Queue::create(self.name.as_deref(), self.capacity, self.max_bytes)
    }

    /// Creates the queue, and returns its two ends: see [`channel`](crate::channel).
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (producer, consumer) = Queue::<u32>::builder().name("numbers").build_channel()?;
    /// assert_eq!((producer.name(), consumer.name()), (Some("numbers"), Some("numbers")));
    /// # Ok(())
    /// # }
    /// ```
    pub fn build_channel(self) -> io::Result<(Producer<T>, Consumer<T>)> {
        let queue = self.build()?;
        Ok((queue.producer(), queue.into_consumer()))
    }
}

/// Creates a [`JoinableQueue`] with limits or a name: see [`JoinableQueue::builder`].
///
/// # Examples
///
/// ```
/// use multiproc_queue::JoinableQueue;
///
/// # fn main() -> std::io::Result<()> {
/// let jobs = JoinableQueue::<String>::builder().max_attempts(3).name("jobs").build()?;
/// assert_eq!((jobs.max_attempts(), jobs.name()), (3, Some("jobs")));
/// # Ok(())
/// # }
/// ```
pub struct JoinableQueueBuilder<T> {
    queue: QueueBuilder<T>,
    max_attempts: u32,
}

impl<T> JoinableQueueBuilder<T> {
    pub(crate) fn new() -> Self {
        Self { queue: QueueBuilder::new(), max_attempts: DEFAULT_ATTEMPTS }
    }

    /// Sets the maximum number of tasks: see [`QueueBuilder::capacity`]. Tasks in progress do not
    /// count.
    #[must_use]
    pub fn capacity(self, capacity: usize) -> Self {
        Self { queue: self.queue.capacity(capacity), ..self }
    }

    /// Sets the maximum number of bytes: see [`QueueBuilder::max_bytes`]. Tasks in progress do not
    /// count.
    #[must_use]
    pub fn max_bytes(self, max_bytes: usize) -> Self {
        Self { queue: self.queue.max_bytes(max_bytes), ..self }
    }

    /// Sets a name for humans: see [`QueueBuilder::name`].
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { queue: self.queue.name(name), ..self }
    }

    /// Sets how often a task is delivered at most, from 1 on, before it becomes a dead letter. The
    /// default is 16.
    #[must_use]
    pub fn max_attempts(self, max_attempts: u32) -> Self {
        Self { max_attempts, ..self }
    }

    /// Creates the queue.
    ///
    /// # Errors
    ///
    /// As [`QueueBuilder::build`].
    pub fn build(self) -> io::Result<JoinableQueue<T>> {
        let Self { queue: QueueBuilder { capacity, max_bytes, name, .. }, max_attempts } = self;
        if let Some(capacity) = capacity {
            check("capacity", "items", capacity, MAX_CAPACITY)?;
        }
        check("max_bytes", "bytes", max_bytes, MAX_BYTES)?;
        check("max_attempts", "deliveries", max_attempts as usize, u32::MAX as usize)?;
        let tasks = TaskLimits { max_attempts };
        JoinableQueue::create(name.as_deref(), capacity, max_bytes, tasks)
    }

    /// Creates the queue, and returns its two ends: see [`tasks`](crate::tasks).
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let builder = JoinableQueue::<String>::builder().capacity(100).max_attempts(3);
    /// let (producer, consumer) = builder.build_tasks()?;
    /// assert_eq!((producer.max_attempts(), consumer.capacity()), (3, Some(100)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn build_tasks(self) -> io::Result<(TaskProducer<T>, TaskConsumer<T>)> {
        Ok(self.build()?.into_ends())
    }
}

/// The default of [`JoinableQueueBuilder::max_attempts`].
const DEFAULT_ATTEMPTS: u32 = 16;

impl<T> fmt::Debug for JoinableQueueBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinableQueueBuilder")
            .field("queue", &self.queue)
            .field("max_attempts", &self.max_attempts)
            .finish()
    }
}

fn check(what: &str, unit: &str, number: usize, max: usize) -> io::Result<()> {
    if (1..=max).contains(&number) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("the {what} of a queue must be from 1 to {max} {unit}, got {number}"),
    ))
}

impl<T> fmt::Debug for QueueBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueBuilder")
            .field("capacity", &self.capacity)
            .field("max_bytes", &self.max_bytes)
            .field("name", &self.name)
            .finish()
    }
}
