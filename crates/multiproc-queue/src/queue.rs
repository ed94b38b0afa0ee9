//! The public queue, and its one-sided handles.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use multiproc_pipe::Source;
use multiproc_shm::RECHECK;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::builder::QueueBuilder;
use crate::error::{
    GetError, GetManyError, GetTimeoutError, PutError, PutManyError, PutTimeoutError, TryGetError,
    TryPutError,
};
use crate::inner::{Inner, Wait};
use crate::methods::{common, gets, puts, ready_to_get, until_the_end};

/// How a queue ends; see [`Queue::shutdown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Queued items can still be got.
    Drain,
    /// Queued items are discarded.
    Now,
}

/// A queue that several processes share: first in, first out.
///
/// Clones, and what other processes receive, are the same queue; every one of them may put and get.
/// See the [crate's page](crate) for what it promises when a process is killed.
///
/// ```
/// use multiproc_queue::Queue;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let queue = Queue::bounded(2)?;
/// queue.put(1)?;
/// queue.put(2)?;
/// assert!(queue.is_full());
/// assert_eq!(queue.try_put(3).unwrap_err().into_inner(), 3);
/// assert!(queue.put_timeout(3, Duration::from_millis(1)).unwrap_err().is_timeout());
/// assert_eq!(queue.get()?, 1);
/// assert_eq!(queue.get()?, 2);
/// assert!(queue.try_get().unwrap_err().is_empty());
/// # Ok(())
/// # }
/// ```
///
/// # The end of a queue
///
/// Whoever has a `Queue` could still put, so it never sees the end of all producers. For that there
/// are one-sided handles: hand out [`producer`](Self::producer)s and [`consumer`](Self::consumer)s,
/// and drop the `Queue` itself. Or say when it is over: [`close`](Self::close) for this handle,
/// [`shutdown`](Self::shutdown) for everybody.
pub struct Queue<T> {
    inner: Inner<T>,
}

/// A handle of a [`Queue`] that can put and not get.
///
/// As long as there is one (or a `Queue`), consumers wait for more. When the last one is dropped, or
/// its process ends in any way, they get what is left and then `Disconnected`.
///
/// ```
/// use multiproc_queue::Queue;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let queue = Queue::unbounded()?;
/// let (producer, consumer) = (queue.producer(), queue.consumer());
/// drop(queue);
/// producer.put_many(1..=3)?;
/// drop(producer);
/// assert_eq!(consumer.iter().map(Result::unwrap).sum::<u32>(), 6);
/// assert!(consumer.get().unwrap_err().is_disconnected());
/// # Ok(())
/// # }
/// ```
pub struct Producer<T> {
    inner: Inner<T>,
}

/// A handle of a [`Queue`] that can get and not put.
///
/// When the last one (and the last `Queue`) is dropped, or its process ends in any way, producers get
/// `Disconnected`, and the items that nobody can get any more are discarded:
///
/// - at the next call, if the consumer was dropped;
/// - if its process was killed, or if it was inside a message or an item that nobody received, when a
///   producer waits for room or asks for the length, or within its next 1024 puts. From then on, every
///   producer gets `Disconnected` at its next put.
pub struct Consumer<T> {
    inner: Inner<T>,
}

impl<T> Queue<T> {
    /// A queue that holds up to `capacity` items, from 1 to 2^32.
    ///
    /// Their bytes are bounded, too, by 8 GiB: see [`QueueBuilder::max_bytes`]. Up to 1024 processes
    /// can have the queue open at a time.
    ///
    /// # Errors
    ///
    /// As [`QueueBuilder::build`].
    pub fn bounded(capacity: usize) -> io::Result<Self> {
        Self::builder().capacity(capacity).build()
    }

    /// A queue that holds any number of items, of up to 8 GiB together: see
    /// [`QueueBuilder::max_bytes`].
    ///
    /// # Errors
    ///
    /// As [`QueueBuilder::build`].
    pub fn unbounded() -> io::Result<Self> {
        Self::builder().build()
    }

    /// A queue with other bounds, or a name.
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let jobs = Queue::<String>::builder().capacity(100).max_bytes(1 << 20).name("jobs").build()?;
    /// assert_eq!((jobs.capacity(), jobs.max_bytes(), jobs.name()), (Some(100), 1 << 20, Some("jobs")));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn builder() -> QueueBuilder<T> {
        QueueBuilder::new()
    }

    pub(crate) fn create(
        name: Option<&str>,
        capacity: Option<usize>,
        max_bytes: usize,
    ) -> io::Result<Self> {
        Ok(Self { inner: Inner::create(name, capacity, max_bytes, None)? })
    }

    /// A handle that can only put. (If this one was [closed](Self::close), it is closed, too.)
    #[must_use]
    pub fn producer(&self) -> Producer<T> {
        Producer { inner: self.inner.handle(true, false) }
    }

    /// A handle that can only get.
    #[must_use]
    pub fn consumer(&self) -> Consumer<T> {
        Consumer { inner: self.inner.handle(false, true) }
    }
}

impl<T> Producer<T> {
    pub(crate) fn over(inner: Inner<T>) -> Self {
        Self { inner }
    }
}

common!(Queue, "queue", true, true, |_, gets, is_joinable| gets && !is_joinable);
common!(Producer, "producer of a queue", true, false, |_, gets, _| !gets);
common!(Consumer, "consumer of a queue", false, true, |puts, gets, is_joinable| {
    gets && !puts && !is_joinable
});

puts!(Queue);
puts!(Producer);

gets!(Queue);
gets!(Consumer);

ready_to_get!(Queue);
ready_to_get!(Consumer);
