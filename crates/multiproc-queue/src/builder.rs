//! Queues that are not just bounded, or just unbounded.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use crate::queue::Queue;
use crate::store::{DEFAULT_BYTES, MAX_BYTES, MAX_CAPACITY};

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
