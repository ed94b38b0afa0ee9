//! The public queue: the ring, placed in a region.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use multiproc_pipe::{Deadline, EncodeError, message};
use multiproc_sync::primitives::{AtomicU32, Ordering};
use multiproc_sync::region::{Control as RegionControl, Region};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{
    Corrupted, GetError, GetTimeoutError, PutError, PutTimeoutError, Reason, TryGetError,
    TryPutError,
};
use crate::raw::ring::{Control, Fault, Put, Ring};

/// The hot ring: small enough to stay in a core's cache.
const RING: usize = 256 * 1024;

/// The most items that a queue can be asked to hold.
const MAX_CAPACITY: u64 = 1 << 32;

/// How long `try_put` and `try_get` wait for one another's lock. It is held for less than a
/// microsecond by whoever runs, so after this long its holder is stopped.
const PATIENCE: Duration = Duration::from_secs(1);

/// A buffer larger than this is not kept for the next item.
const KEEP: usize = 64 * 1024;

impl RegionControl for Control {
    const KIND: u32 = u32::from_le_bytes(*b"QUEU");
    const NAME: &'static str = "queue";
    const DATA: RangeInclusive<usize> = RING..=RING;

    fn release_slot(&self, _: &[AtomicU32], slot: usize) {
        Control::release_slot(self, slot);
    }
}

/// A queue that several processes share: bounded, first in, first out.
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
pub struct Queue<T> {
    region: Region<Control>,
    capacity: u64,
    items: PhantomData<fn(T) -> T>,
}

impl<T> Queue<T> {
    /// A queue that holds up to `capacity` items, which take up to 256 KiB together.
    ///
    /// An item takes its encoded size and 16 bytes, rounded up to a multiple of 16. Up to 1024
    /// processes can have the queue open at a time.
    ///
    /// # Errors
    ///
    /// If `capacity` is 0 or more than 2^32, if there are no descriptors or no memory left, there
    /// is no `/proc`, or a resource limit is too small, which the error then names.
    pub fn bounded(capacity: usize) -> io::Result<Self> {
        let wanted = capacity as u64;
        if wanted == 0 || wanted > MAX_CAPACITY {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a queue's capacity is between 1 and {MAX_CAPACITY} items, not {capacity}"),
            ));
        }
        let set_up = |control: &Control| control.capacity.store(wanted, Ordering::Relaxed);
        let region = Region::create(RING, set_up)?;
        Ok(Self { region, capacity: wanted, items: PhantomData })
    }

    fn over(region: Region<Control>) -> io::Result<Self> {
        let capacity = region.control().capacity.load(Ordering::Relaxed);
        if capacity == 0 || capacity > MAX_CAPACITY || region.data().len() != RING {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "expected a multiproc queue, got one that says it holds {capacity} items in \
                     {} bytes",
                    region.data().len()
                ),
            ));
        }
        Ok(Self { region, capacity, items: PhantomData })
    }

    /// The ring, as this process sees it.
    #[inline]
    fn ring(&self) -> Ring<'_, Region<Control>> {
        Ring {
            control: self.region.control(),
            bytes: self.region.data(),
            capacity: self.capacity,
            members: &self.region,
        }
    }

    /// How many items there are: exact at one moment during the call, over all processes.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.ring().len()).unwrap_or(usize::MAX)
    }

    /// Whether there are no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are as many items as the queue holds. (If they are large, there may be no room
    /// for another one before that.)
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() as u64 == self.capacity
    }

    /// How many items the queue holds.
    #[must_use]
    pub fn capacity(&self) -> Option<usize> {
        usize::try_from(self.capacity).ok()
    }

    /// Whether both are the same queue.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.region.is_same(&other.region)
    }
}

impl<T: Serialize> Queue<T> {
    /// Puts an item, waiting for room as long as it takes.
    ///
    /// When it returns `Ok`, the item is in shared memory, and nothing that happens to this process
    /// can take it back.
    ///
    /// # Errors
    ///
    /// See [`PutError`]: it gives the item back.
    pub fn put(&self, item: T) -> Result<(), PutError<T>> {
        match self.encoded(&item, |ring, bytes| ring.put(bytes, Deadline::NEVER)) {
            Ok(()) => Ok(()),
            Err(Refused::For(reason)) => Err(PutError::new(item, reason)),
            Err(Refused::NotNow | Refused::Stalled) => unreachable!("only a deadline gives up"),
        }
    }

    /// Puts an item if there is room, without waiting for it.
    ///
    /// # Errors
    ///
    /// [`Full`](TryPutError::Full) if there is none; else as [`put`](Self::put).
    pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
        match self.encoded(&item, |ring, bytes| {
            ring.try_put(bytes, || Deadline::after(PATIENCE)).map(|put| put == Put::Done)
        }) {
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
    /// [`Timeout`](PutTimeoutError::Timeout) if there was none in time; else as [`put`](Self::put).
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), PutTimeoutError<T>> {
        self.put_until(item, Deadline::after(timeout))
    }

    /// Puts an item, waiting for room until `deadline` at most.
    ///
    /// # Errors
    ///
    /// As [`put_timeout`](Self::put_timeout).
    pub fn put_deadline(&self, item: T, deadline: Instant) -> Result<(), PutTimeoutError<T>> {
        self.put_until(item, Deadline::at(deadline))
    }

    fn put_until(&self, item: T, deadline: Deadline) -> Result<(), PutTimeoutError<T>> {
        match self.encoded(&item, |ring, bytes| ring.put(bytes, deadline)) {
            Ok(()) => Ok(()),
            Err(Refused::For(reason)) => Err(PutTimeoutError::new(item, reason)),
            Err(Refused::NotNow | Refused::Stalled) => Err(PutTimeoutError::Timeout(item)),
        }
    }

    /// Encodes an item, and gives its bytes to `put`.
    #[inline]
    fn encoded(
        &self,
        item: &T,
        put: impl FnOnce(&Ring<'_, Region<Control>>, &[u8]) -> Result<bool, Fault>,
    ) -> Result<(), Refused> {
        let ring = self.ring();
        with_buffer(|buffer| {
            let descriptors = message::encode(item, buffer)
                .map_err(|error| Refused::For(Reason::Encode(error)))?;
            if !descriptors.is_empty() {
                return Err(Refused::For(Reason::Encode(EncodeError::new::<T>(
                    "it holds a handle (a connection, a file, a queue…), and items of a queue \
                     cannot hold any yet: send it through a `duplex` connection",
                ))));
            }
            let (size, max) = (buffer.len(), ring.longest_item());
            if size > max {
                return Err(Refused::For(Reason::TooLarge { size, max }));
            }
            match put(&ring, buffer) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Refused::NotNow),
                Err(Fault::Stalled) => Err(Refused::Stalled),
                Err(Fault::Corrupted(what)) => {
                    Err(Refused::For(Reason::Corrupted(Corrupted { what })))
                }
            }
        })
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Takes the next item, waiting for it as long as it takes.
    ///
    /// # Errors
    ///
    /// See [`GetError`].
    pub fn get(&self) -> Result<T, GetError> {
        match self.decoded(|ring, bytes| ring.get(bytes, Deadline::NEVER)) {
            Ok(item) => Ok(item),
            Err(Missed::For(error)) => Err(error),
            Err(Missed::NotNow | Missed::Stalled) => unreachable!("only a deadline gives up"),
        }
    }

    /// Takes the next item if there is one, without waiting for it.
    ///
    /// # Errors
    ///
    /// [`Empty`](TryGetError::Empty) if there is none; else as [`get`](Self::get).
    pub fn try_get(&self) -> Result<T, TryGetError> {
        match self.decoded(|ring, bytes| ring.try_get(bytes, || Deadline::after(PATIENCE))) {
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
        match self.decoded(|ring, bytes| ring.get(bytes, deadline)) {
            Ok(item) => Ok(item),
            Err(Missed::For(error)) => Err(error.into()),
            Err(Missed::NotNow | Missed::Stalled) => Err(GetTimeoutError::Timeout),
        }
    }

    /// Takes the bytes of an item with `get`, and decodes them.
    #[inline]
    fn decoded(
        &self,
        get: impl FnOnce(&Ring<'_, Region<Control>>, &mut Vec<u8>) -> Result<bool, Fault>,
    ) -> Result<T, Missed> {
        let ring = self.ring();
        with_buffer(|buffer| match get(&ring, buffer) {
            Ok(true) => message::decode(buffer, Vec::new())
                .map_err(|error| Missed::For(GetError::Decode(error))),
            Ok(false) => Err(Missed::NotNow),
            Err(Fault::Stalled) => Err(Missed::Stalled),
            Err(Fault::Corrupted(what)) => {
                Err(Missed::For(GetError::Corrupted(Corrupted { what })))
            }
        })
    }
}

/// Why an item was not put.
enum Refused {
    NotNow,
    Stalled,
    For(Reason),
}

/// Why no item was got.
enum Missed {
    NotNow,
    Stalled,
    For(GetError),
}

/// Lends an empty buffer of this thread. What runs in it may lend another one.
fn with_buffer<R>(run: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    thread_local! {
        static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut buffer = BUFFER.take();
    buffer.clear();
    let result = run(&mut buffer);
    if buffer.capacity() <= KEEP {
        BUFFER.set(buffer);
    }
    result
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { region: self.region.clone(), capacity: self.capacity, items: PhantomData }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .field("members", &self.region.members())
            .finish()
    }
}

impl<T> Serialize for Queue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.region.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::over(Region::deserialize(deserializer)?)
            .map_err(|error| serde::de::Error::custom(message::refusal(error)))
    }
}
