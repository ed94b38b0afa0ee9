//! The public queue and its one-sided handles.

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
    GetError, GetManyError, GetTimeoutError, PutError, PutManyError, PutManyTimeoutError,
    PutTimeoutError, TryGetError, TryPutError, TryPutManyError,
};
use crate::inner::{Inner, Wait};
use crate::iter::{Iter, TryIter};
use crate::methods::{common, gets, puts, ready_to_get};

/// How a queue is shut down: see [`Queue::shutdown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Queued items can still be got.
    Drain,
    /// Queued items are discarded.
    Now,
}

/// A first-in, first-out queue that several processes share, each of which can put and get.
///
/// It is for many-to-many use. Where some processes put and others get, begin with
/// [`channel`](crate::channel): its ends tell each side when the other one has ended, also when it
/// has crashed.
///
/// Clones, and the handles that other processes receive, are the same queue. Each of them can put
/// and get. The order is that in which the calls of `put` took effect, over all producers. See the
/// [crate's page](crate) for the guarantees when a process is killed.
///
/// # Examples
///
/// ```
/// use multiproc_queue::Queue;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
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
/// A process with a `Queue` can still put and get, so it never gets `Disconnected`: its `put` waits
/// even if all workers have crashed. To detect that a side has ended, use the ends of a
/// [`channel`](crate::channel), or hand out [`producer`](Self::producer)s and
/// [`consumer`](Self::consumer)s, and drop the `Queue` itself. Getting then fails with
/// `Disconnected` once all producers have ended and the queued items were got, and putting fails
/// with it once all consumers have ended. Alternatively, end the queue explicitly:
/// [`close`](Self::close) for this handle, [`shutdown`](Self::shutdown) for all. Items that no
/// process can get any more are discarded: their memory is released, and the handles in them are
/// closed.
///
/// # Items
///
/// An item is any value of up to [`max_bytes`](QueueBuilder::max_bytes) (and 4 GiB) encoded. It may
/// contain handles: a `Sender` for the reply, a file, another queue.
///
/// One item can contain 253 descriptors. They wait in the kernel, which holds those of some hundred
/// items of a queue at a time. In addition, an unprivileged user can have only as many descriptors
/// in flight, in all queues and sockets together, as one process of the user can have open
/// (`RLIMIT_NOFILE`, `ulimit -n`). A `put` beyond one of these limits waits as on a full queue,
/// until some are received. Nothing notifies a producer that waits for the user's limit. It retries
/// after 1 ms, then less and less often, down to every 250 ms.
///
/// A value that could be put and not be got is refused by `put`: one that is nested more than 256
/// levels deep, or one of a type whose `Deserialize` asks the data what comes next
/// (`serde_json::Value`, an enum with serde's `untagged`, `tag` or `content`, a struct with
/// `flatten`). Wrap such a type in `Json`, which the feature `json` of `multiproc-message` adds. A
/// type that implements only `Serialize` is not checked.
#[doc(alias = "mpmc")]
#[doc(alias = "channel")]
pub struct Queue<T> {
    pub(crate) inner: Inner<T>,
}

/// A handle of a [`Queue`] that can put, but not get.
///
/// While one exists (or a `Queue`), consumers wait for more items. When the last one is dropped, or
/// its process ends in any way, consumers get the remaining items and then `Disconnected`.
///
/// # Examples
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
#[doc(alias = "Sender")]
pub struct Producer<T> {
    pub(crate) inner: Inner<T>,
}

/// A handle of a [`Queue`] that can get, but not put.
///
/// When the last one (and the last `Queue`) is dropped, or its process ends in any way, producers
/// get `Disconnected`, and the items that no process can get any more are discarded:
///
/// - If the consumer was dropped, at the next call of a producer.
/// - If its process was killed, or if the handle was inside a message or an item that was never
///   received, when a producer waits for room or asks for the length, or within its next 1024 puts.
///   From then on, every producer gets `Disconnected` at its next put.
///
/// # Examples
///
/// ```
/// use multiproc_queue::Queue;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let queue = Queue::unbounded()?;
/// let (producer, consumer) = (queue.producer(), queue.consumer());
/// drop(queue);
/// producer.put(1)?;
/// assert_eq!(consumer.get()?, 1);
/// drop(consumer);
/// assert!(producer.put(2).unwrap_err().is_disconnected());
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Receiver")]
pub struct Consumer<T> {
    pub(crate) inner: Inner<T>,
}

impl<T> Queue<T> {
    /// Creates a queue that holds up to `capacity` items, from 1 to 2^32.
    ///
    /// The bytes of the items are limited as well, to 8 GiB: see [`QueueBuilder::max_bytes`]. Up to
    /// 1024 processes can have the queue open at a time.
    ///
    /// # Errors
    ///
    /// As [`QueueBuilder::build`].
    pub fn bounded(capacity: usize) -> io::Result<Self> {
        Self::builder().capacity(capacity).build()
    }

    /// Creates a queue that holds any number of items, of up to 8 GiB together: see
    /// [`QueueBuilder::max_bytes`].
    ///
    /// # Errors
    ///
    /// As [`QueueBuilder::build`].
    pub fn unbounded() -> io::Result<Self> {
        Self::builder().build()
    }

    /// Returns a builder for a queue with other limits, or with a name.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let jobs = Queue::<u32>::builder().capacity(100).max_bytes(1 << 20).name("jobs").build()?;
    /// assert_eq!((jobs.capacity(), jobs.max_bytes()), (Some(100), 1 << 20));
    /// assert_eq!(jobs.name(), Some("jobs"));
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

    /// Returns a handle that can only put. If this handle was [closed](Self::close), the new one is
    /// closed as well.
    #[must_use]
    pub fn producer(&self) -> Producer<T> {
        Producer { inner: self.inner.handle(true, false) }
    }

    /// Returns a handle that can only get.
    #[must_use]
    pub fn consumer(&self) -> Consumer<T> {
        Consumer { inner: self.inner.handle(false, true) }
    }

    /// Returns the handle that can only put, and gives up getting.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = Queue::bounded(10)?;
    /// let consumer = queue.clone().into_consumer();
    /// let producer = queue.into_producer();
    /// producer.put(1)?;
    /// drop(producer);
    /// assert_eq!(consumer.get()?, 1);
    /// assert!(consumer.get().unwrap_err().is_disconnected());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn into_producer(self) -> Producer<T> {
        self.producer()
    }

    /// Returns the handle that can only get, and gives up putting.
    ///
    /// # Examples
    ///
    /// See [`into_producer`](Self::into_producer).
    #[must_use]
    pub fn into_consumer(self) -> Consumer<T> {
        self.consumer()
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
