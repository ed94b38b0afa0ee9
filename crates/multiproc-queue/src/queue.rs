//! The public queue, and its one-sided handles.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use multiproc_pipe::{Deadline, Source};
use multiproc_sync::RECHECK;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::builder::QueueBuilder;
use crate::core::{Core, Missed, Refused, Until};
use crate::error::{
    GetError, GetManyError, GetTimeoutError, PutError, PutManyError, PutTimeoutError, TryGetError,
    TryPutError,
};

/// How a queue ends; see [`Queue::shutdown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// What is there can still be got.
    Drain,
    /// What is there is thrown away.
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
    core: Core<T>,
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
    core: Core<T>,
}

/// A handle of a [`Queue`] that can get and not put.
///
/// When the last one (and the last `Queue`) is dropped, or its process ends in any way, producers get
/// `Disconnected`: at once if it was dropped; if it was killed, when they next wait for room, or
/// within the next thousand items.
pub struct Consumer<T> {
    core: Core<T>,
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
        Ok(Self { core: Core::create(name, capacity, max_bytes)? })
    }

    /// A handle that can only put. (If this one was [closed](Self::close), it is closed, too.)
    #[must_use]
    pub fn producer(&self) -> Producer<T> {
        Producer { core: self.core.handle(true, false) }
    }

    /// A handle that can only get.
    #[must_use]
    pub fn consumer(&self) -> Consumer<T> {
        Consumer { core: self.core.handle(false, true) }
    }
}

/// What every handle can do.
macro_rules! common {
    ($name:ident, $expected:literal, $puts:literal, $gets:literal, $is_right:expr) => {
        impl<T> $name<T> {
            /// How many items there are: exact at one moment during the call, over all processes.
            #[must_use]
            pub fn len(&self) -> usize {
                usize::try_from(self.core.ring().len()).unwrap_or(usize::MAX)
            }

            /// Whether there are no items.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Whether there are as many items as the queue holds. (If they are large, there may be no
            /// room for another one before that.)
            #[must_use]
            pub fn is_full(&self) -> bool {
                self.capacity() == Some(self.len())
            }

            /// How many items the queue holds; `None`: as many as there is room for in
            /// [`max_bytes`](Self::max_bytes).
            #[must_use]
            pub fn capacity(&self) -> Option<usize> {
                self.core.store.capacity
            }

            /// How many bytes the queue's items take at most, and so how large one can be.
            #[must_use]
            pub fn max_bytes(&self) -> usize {
                self.core.store.max_bytes
            }

            /// The name that the queue was made with.
            #[must_use]
            pub fn name(&self) -> Option<&str> {
                self.core.name()
            }

            /// Ends the queue for everybody: nobody puts any more. Everybody who waits is woken, in
            /// every process.
            ///
            /// With [`Shutdown::Drain`], what is there can still be got, then getting is an error,
            /// `Closed`; with [`Shutdown::Now`], it is one at once. Putting is `Closed` in both
            /// cases. A put that is under way at that moment has either succeeded, and its item is
            /// got, or it is `Closed`. It cannot be taken back; `Now` may follow `Drain`.
            pub fn shutdown(&self, how: Shutdown) {
                self.core.shut_down(how == Shutdown::Drain);
            }

            /// Whether the queue was [shut down](Self::shutdown).
            #[must_use]
            pub fn is_shut_down(&self) -> bool {
                self.core.store.region.control().is_shut_down()
            }

            /// Whether both are handles of the same queue.
            #[must_use]
            pub fn is_same(&self, other: &Self) -> bool {
                self.core.store.region.is_same(&other.core.store.region)
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                Self { core: self.core.handle($puts, $gets) }
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let ring = self.core.ring();
                let (consumers_wait, producers_wait) = ring.control.has_sleepers();
                f.debug_struct(stringify!($name))
                    .field("name", &self.name())
                    .field("len", &self.len())
                    .field("capacity", &self.capacity())
                    .field("bytes", &ring.bytes())
                    .field("max_bytes", &self.max_bytes())
                    .field("members", &self.core.store.region.members())
                    .field("consumers_wait", &consumers_wait)
                    .field("producers_wait", &producers_wait)
                    .field("is_shut_down", &self.is_shut_down())
                    .finish()
            }
        }

        impl<T> Serialize for $name<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.core.serialize(serializer)
            }
        }

        impl<'de, T> Deserialize<'de> for $name<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Self { core: Core::deserialize(deserializer, $expected, $is_right)? })
            }
        }
    };
}

common!(Queue, "handle that puts and gets", true, true, |_, gets| gets);
common!(Producer, "producer", true, false, |_, gets| !gets);
common!(Consumer, "consumer", false, true, |puts, gets| gets && !puts);

/// What handles can do that put.
macro_rules! puts {
    ($name:ident) => {
        impl<T> $name<T> {
            /// Puts no more through this handle: from now on, that is an error, `Closed`.
            ///
            /// Other handles, clones of this one among them, are as before. When the last one that
            /// can put is closed or dropped, consumers get what is left and then `Disconnected`.
            pub fn close(&self) {
                self.core.close();
            }
        }

        impl<T: Serialize> $name<T> {
            /// Puts an item, waiting for room as long as it takes.
            ///
            /// When it returns `Ok`, the item is in shared memory, and nothing that happens to this
            /// process can take it back.
            ///
            /// # Errors
            ///
            /// See [`PutError`]: it gives the item back.
            pub fn put(&self, item: T) -> Result<(), PutError<T>> {
                match self.core.put(&item, Until::Deadline(Deadline::NEVER)) {
                    Ok(()) => Ok(()),
                    Err(Refused::For(reason)) => Err(PutError::new(item, reason)),
                    Err(Refused::NotNow | Refused::Stalled) => only_a_deadline_gives_up(),
                }
            }

            /// Puts an item if there is room, without waiting for it.
            ///
            /// # Errors
            ///
            /// [`Full`](TryPutError::Full) if there is none; else as [`put`](Self::put).
            pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
                match self.core.put(&item, Until::Now) {
                    Ok(()) => Ok(()),
                    Err(Refused::For(reason)) => Err(TryPutError::new(item, reason)),
                    Err(Refused::NotNow) => Err(TryPutError::Full(item)),
                    Err(Refused::Stalled) => Err(TryPutError::Stalled(item)),
                }
            }

            /// Puts an item, waiting for room for at most `timeout`, which bounds the whole call.
            ///
            /// # Errors
            ///
            /// [`Timeout`](PutTimeoutError::Timeout) if there was none in time; else as
            /// [`put`](Self::put).
            pub fn put_timeout(
                &self,
                item: T,
                timeout: Duration,
            ) -> Result<(), PutTimeoutError<T>> {
                self.put_until(item, Deadline::after(timeout))
            }

            /// Puts an item, waiting for room until `deadline` at most.
            ///
            /// # Errors
            ///
            /// As [`put_timeout`](Self::put_timeout).
            pub fn put_deadline(
                &self,
                item: T,
                deadline: Instant,
            ) -> Result<(), PutTimeoutError<T>> {
                self.put_until(item, Deadline::at(deadline))
            }

            fn put_until(&self, item: T, deadline: Deadline) -> Result<(), PutTimeoutError<T>> {
                match self.core.put(&item, Until::Deadline(deadline)) {
                    Ok(()) => Ok(()),
                    Err(Refused::For(reason)) => Err(PutTimeoutError::new(item, reason)),
                    Err(Refused::NotNow | Refused::Stalled) => Err(PutTimeoutError::Timeout(item)),
                }
            }

            /// Puts all items of an iterator, in order, waiting for room as long as it takes.
            ///
            /// Faster than one by one: up to 128 items are put in one step, so that other processes
            /// see all of them or none. How many, follows from what the iterator says it has at least
            /// (its [`size_hint`](Iterator::size_hint)); one that does not know, as one that waits for
            /// its items, is put item by item.
            ///
            /// While the iterator runs, nothing of the queue is held: it may block, and if it
            /// panics, the items of the current step are dropped with it and not put.
            ///
            /// # Errors
            ///
            /// As [`put`](Self::put), with what was taken from the iterator and not put.
            pub fn put_many(
                &self,
                items: impl IntoIterator<Item = T>,
            ) -> Result<(), PutManyError<T>> {
                let mut items = items.into_iter();
                let mut put = 0;
                loop {
                    let most = items.size_hint().0.clamp(1, STEP);
                    let mut step: Vec<T> = items.by_ref().take(most).collect();
                    if step.is_empty() {
                        return Ok(());
                    }
                    let (count, result) =
                        self.core.put_batch(&step, Until::Deadline(Deadline::NEVER));
                    put += count;
                    let Err(refused) = result else { continue };
                    let Refused::For(reason) = refused else { only_a_deadline_gives_up() };
                    let rest = step.split_off(count + 1);
                    let Some(item) = step.pop() else { unreachable!("one was refused") };
                    return Err(PutManyError { put, error: PutError::new(item, reason), rest });
                }
            }
        }
    };
}

puts!(Queue);
puts!(Producer);

/// How many items are taken from an iterator at a time.
const STEP: usize = 128;

/// What handles can do that get.
macro_rules! gets {
    ($name:ident) => {
        impl<T: DeserializeOwned> $name<T> {
            /// Takes the next item, waiting for it as long as it takes.
            ///
            /// # Errors
            ///
            /// See [`GetError`].
            pub fn get(&self) -> Result<T, GetError> {
                match self.core.get(Until::Deadline(Deadline::NEVER)) {
                    Ok(item) => Ok(item),
                    Err(Missed::For(error)) => Err(error),
                    Err(Missed::NotNow | Missed::Stalled) => only_a_deadline_gives_up(),
                }
            }

            /// Takes the next item if there is one, without waiting for it.
            ///
            /// # Errors
            ///
            /// [`Empty`](TryGetError::Empty) if there is none; else as [`get`](Self::get).
            pub fn try_get(&self) -> Result<T, TryGetError> {
                match self.core.get(Until::Now) {
                    Ok(item) => Ok(item),
                    Err(Missed::For(error)) => Err(error.into()),
                    Err(Missed::NotNow) => Err(TryGetError::Empty),
                    Err(Missed::Stalled) => Err(TryGetError::Stalled),
                }
            }

            /// Takes the next item, waiting for it for at most `timeout`, which bounds the whole call.
            ///
            /// # Errors
            ///
            /// [`Timeout`](GetTimeoutError::Timeout) if there was none in time; else as
            /// [`get`](Self::get).
            pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetTimeoutError> {
                self.get_until(Deadline::after(timeout))
            }

            /// Takes the next item, waiting for it until `deadline` at most.
            ///
            /// # Errors
            ///
            /// As [`get_timeout`](Self::get_timeout).
            pub fn get_deadline(&self, deadline: Instant) -> Result<T, GetTimeoutError> {
                self.get_until(Deadline::at(deadline))
            }

            fn get_until(&self, deadline: Deadline) -> Result<T, GetTimeoutError> {
                match self.core.get(Until::Deadline(deadline)) {
                    Ok(item) => Ok(item),
                    Err(Missed::For(error)) => Err(error.into()),
                    Err(Missed::NotNow | Missed::Stalled) => Err(GetTimeoutError::Timeout),
                }
            }

            /// Takes up to `max` items at once, waiting for the first one as long as it takes.
            ///
            /// Faster than one by one; but a process that is killed takes all of them along, as if it
            /// were killed after so many `get`s. At most 128 come at a time, and fewer if they are
            /// large or have descriptors; none only if `max` is 0.
            ///
            /// # Errors
            ///
            /// As [`get`](Self::get). If some items cannot be decoded, the others are in the error.
            pub fn get_many(&self, max: usize) -> Result<Vec<T>, GetManyError<T>> {
                match self.core.get_batch(max, Until::Deadline(Deadline::NEVER)) {
                    (items, Ok(())) => Ok(items),
                    (items, Err(Missed::For(error))) => Err(GetManyError { items, error }),
                    (_, Err(Missed::NotNow | Missed::Stalled)) => only_a_deadline_gives_up(),
                }
            }

            /// Takes up to `max` items at once, as [`get_many`](Self::get_many), without waiting: none
            /// if there are none.
            ///
            /// # Errors
            ///
            /// As [`get_many`](Self::get_many).
            pub fn try_get_many(&self, max: usize) -> Result<Vec<T>, GetManyError<T>> {
                self.get_many_until(max, Until::Now)
            }

            /// Takes up to `max` items at once, as [`get_many`](Self::get_many), waiting for the first
            /// one for at most `timeout`: none if there was none.
            ///
            /// # Errors
            ///
            /// As [`get_many`](Self::get_many).
            pub fn get_many_timeout(
                &self,
                max: usize,
                timeout: Duration,
            ) -> Result<Vec<T>, GetManyError<T>> {
                self.get_many_until(max, Until::Deadline(Deadline::after(timeout)))
            }

            fn get_many_until(&self, max: usize, until: Until) -> Result<Vec<T>, GetManyError<T>> {
                match self.core.get_batch(max, until) {
                    (items, Ok(()) | Err(Missed::NotNow | Missed::Stalled)) => Ok(items),
                    (items, Err(Missed::For(error))) => Err(GetManyError { items, error }),
                }
            }

            /// All items to come, waiting for each. It ends when the queue does: when `get` would say
            /// `Closed` or `Disconnected`.
            ///
            /// An item that cannot be decoded is an `Err`, and does not end it.
            pub fn iter(&self) -> impl Iterator<Item = Result<T, GetError>> + '_ {
                let mut is_over = false;
                std::iter::from_fn(move || {
                    if is_over {
                        return None;
                    }
                    match self.get() {
                        Err(GetError::Closed | GetError::Disconnected) => {
                            is_over = true;
                            None
                        }
                        // The same would come for ever.
                        result @ Err(GetError::Corrupted(_)) => {
                            is_over = true;
                            Some(result)
                        }
                        result => Some(result),
                    }
                })
            }
        }
    };
}

gets!(Queue);
gets!(Consumer);

fn only_a_deadline_gives_up() -> ! {
    unreachable!("only a deadline gives up")
}

/// Ready when `get` would not wait: there is an item, or there will never be one. Whoever is woken
/// may still find that another process has been quicker.
macro_rules! ready_to_get {
    ($name:ident) => {
        impl<T> Source for $name<T> {
            fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
                self.core.watch_consumer(add);
            }

            fn prepare(&self) -> io::Result<bool> {
                self.core.prepare_to_get()
            }

            fn woken(&self) -> io::Result<bool> {
                self.core.prepare_to_get()
            }

            /// The bell may be lost with a producer that is killed.
            fn longest_sleep(&self) -> Duration {
                RECHECK
            }
        }
    };
}

ready_to_get!(Queue);
ready_to_get!(Consumer);
