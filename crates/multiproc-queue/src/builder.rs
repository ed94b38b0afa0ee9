//! Queues that are not just bounded, or just unbounded.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use crate::joinable::JoinableQueue;
use crate::memory::{DEFAULT_BYTES, MAX_BYTES, MAX_CAPACITY, TaskLimits};
use crate::queue::Queue;

/// Makes a [`Queue`] as wanted; see [`Queue::builder`].
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

    /// How many items it holds at most, from 1 to 2^32. Without it, only their bytes are bounded.
    #[must_use]
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// How many bytes its items take at most, all together; and so how large one can be. From 1 to
    /// 2^40; without it, 2^33 (8 GiB).
    ///
    /// An item takes its encoded size and 16 bytes, rounded up to a multiple of 16; one that takes
    /// just `max_bytes` encoded fits. The queue takes so much *address space* in each process that has
    /// it open, but memory only for items that are there.
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// A name, for people: `Debug` shows it, and `/proc/PID/maps` (its first 230 bytes or so). It need
    /// not be the only one of that name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the queue.
    ///
    /// # Errors
    ///
    /// If a number is out of its range, if there are no descriptors or no memory left, there is no
    /// `/proc`, or a resource limit is too small, which the error then names.
    pub fn build(self) -> io::Result<Queue<T>> {
        if let Some(capacity) = self.capacity {
            check("capacity", "items", capacity, MAX_CAPACITY)?;
        }
        check("max_bytes", "bytes", self.max_bytes, MAX_BYTES)?;
        Queue::create(self.name.as_deref(), self.capacity, self.max_bytes)
    }
}

/// Makes a [`JoinableQueue`] as wanted; see [`JoinableQueue::builder`].
pub struct JoinableQueueBuilder<T> {
    queue: QueueBuilder<T>,
    max_attempts: u32,
}

impl<T> JoinableQueueBuilder<T> {
    pub(crate) fn new() -> Self {
        Self { queue: QueueBuilder::new(), max_attempts: DEFAULT_ATTEMPTS }
    }

    /// As [`QueueBuilder::capacity`]. Tasks in work do not count.
    #[must_use]
    pub fn capacity(self, capacity: usize) -> Self {
        Self { queue: self.queue.capacity(capacity), ..self }
    }

    /// As [`QueueBuilder::max_bytes`]. Tasks in work do not count.
    #[must_use]
    pub fn max_bytes(self, max_bytes: usize) -> Self {
        Self { queue: self.queue.max_bytes(max_bytes), ..self }
    }

    /// As [`QueueBuilder::name`].
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { queue: self.queue.name(name), ..self }
    }

    /// How often a task is delivered at most, from 1 on, before it becomes a dead letter. Without it,
    /// 16.
    #[must_use]
    pub fn max_attempts(self, max_attempts: u32) -> Self {
        Self { max_attempts, ..self }
    }

    /// Makes the queue.
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
}

/// How often a task is delivered that always comes back.
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
        format!("a queue's {what} is between 1 and {max} {unit}, not {number}"),
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
