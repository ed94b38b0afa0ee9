//! What all handles of a queue are made of: the region, the ends of the lane, and the calls between
//! values and bytes.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use multiproc_message::{self as message, Handles};
use multiproc_message::{DecodeError, Descriptor, EncodeError};
use multiproc_shm::Deadline;
use multiproc_shm::event_count::Poll;
use multiproc_shm::region::Region;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::control::Control;
use crate::engine::error::EngineError;
use crate::engine::frame::{self, Header};
use crate::engine::get::Sink;
use crate::engine::joinable::Hints;
use crate::engine::pacing::Pace;
use crate::engine::put::{Items, Outgoing, Put};
use crate::engine::ring::Ring;
use crate::error::{Corrupted, GetError, OsError, Reason};
use crate::fd_lane::{self, End, IncomingFds, MAX_DESCRIPTORS, OutgoingFds, Role};
use crate::memory::{LARGEST_TASK, Store, TaskLimits};

/// How long `try_put` and `try_get` wait for one another's lock. It is held for less than a
/// microsecond by whoever runs, so after this long its holder is stopped.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// The same for one who waits for many things, and not long for any of them.
pub(crate) const MOMENT: Duration = Duration::from_millis(10);

/// A buffer larger than this is not kept for the next item. (Fresh memory costs more than a copy.)
const KEEP: usize = 4 * 1024 * 1024;

/// So many items are put or got under one lock, at most,
const BATCH: usize = 128;

/// and about so many bytes.
const BATCH_BYTES: usize = 64 * 1024;

/// After so many puts, one looks whether any consumer is left. (Those who close are noticed at once;
/// those who are killed, so.)
const PUTS_A_LOOK: u32 = 1024;

/// See the module's text. It is public because the handles dereference to it: see the module `put`.
pub struct Core<T> {
    pub(crate) store: Store,
    /// None: this handle does not put (any more).
    ///
    /// No mutex: a thread that held one at a fork(2) would hold it forever in the child.
    producer: ArcSwapOption<End>,
    /// Whether there is none, for a look without the mutex.
    is_closed: AtomicBool,
    /// None: this handle does not get.
    pub(crate) consumer: Option<Arc<End>>,
    /// The number of closed handles on the other side, when last looked.
    closed_consumers: AtomicU32,
    closed_producers: AtomicU32,
    /// What it has seen of tasks.
    pub(crate) hints: Hints,
    /// When it was last looked for tasks of the dead, in ms.
    pub(crate) reclaimed_at: AtomicU64,
    /// How many items were put, for a look now and then.
    puts: AtomicU32,
    /// Whether the type was found to be one whose items can be got.
    pub(crate) is_type_checked: AtomicBool,
    put_pace: Pace,
    get_pace: Pace,
    name: Option<Arc<str>>,
    items: PhantomData<fn(T) -> T>,
}

/// When an operation gives up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    /// At once, if there is nothing to do.
    Now,
    Deadline(Deadline),
}

/// Why an item was not put.
pub(crate) enum PutFailure {
    NotNow,
    Stalled,
    /// In a box, because it is large and seldom.
    For(Box<Reason>),
}

/// Why no item was got.
pub(crate) enum GetFailure {
    NotNow,
    Stalled,
    /// In a box, because it is large and seldom.
    For(Box<GetError>),
}

impl From<Reason> for PutFailure {
    #[cold]
    fn from(reason: Reason) -> Self {
        Self::For(Box::new(reason))
    }
}

impl From<GetError> for GetFailure {
    #[cold]
    fn from(error: GetError) -> Self {
        Self::For(Box::new(error))
    }
}

impl From<EngineError> for PutFailure {
    #[cold]
    fn from(error: EngineError) -> Self {
        Self::from(match error {
            EngineError::Stalled => return Self::Stalled,
            EngineError::Closed => Reason::Closed,
            EngineError::Disconnected => Reason::Disconnected,
            EngineError::OutOfMemory => Reason::OutOfMemory,
            EngineError::CutOff => Reason::Os(OsError::closed()),
            EngineError::Os(code) => Reason::Os(OsError::from_code(code)),
            EngineError::TooManyTasks => unreachable!("putting makes no tasks"),
            EngineError::Corrupted(what) => Reason::Corrupted(Corrupted { what }),
        })
    }
}

impl From<EngineError> for GetFailure {
    #[cold]
    fn from(error: EngineError) -> Self {
        Self::from(match error {
            EngineError::Stalled => return Self::Stalled,
            EngineError::Closed => GetError::Closed,
            EngineError::Disconnected => GetError::Disconnected,
            EngineError::OutOfMemory => GetError::OutOfMemory,
            EngineError::CutOff => GetError::Os(OsError::closed()),
            EngineError::Os(code) => GetError::Os(OsError::from_code(code)),
            EngineError::TooManyTasks => GetError::TooManyTasks,
            EngineError::Corrupted(what) => GetError::Corrupted(Corrupted { what }),
        })
    }
}

impl<T> Core<T> {
    pub(crate) fn create(
        name: Option<&str>,
        capacity: Option<usize>,
        max_bytes: usize,
        tasks: Option<TaskLimits>,
    ) -> io::Result<Self> {
        let store = Store::create(name.unwrap_or(""), capacity, max_bytes, tasks)?;
        let (producer, consumer) = fd_lane::pair()?;
        let end = |socket, role| End::new(socket, role, store.region.clone()).map(Arc::new);
        let producer = Some(end(producer, Role::Producer)?);
        let consumer = Some(end(consumer, Role::Consumer)?);
        Ok(Self::over(store, producer, consumer, name.map(Arc::from)))
    }

    fn over(
        store: Store,
        producer: Option<Arc<End>>,
        consumer: Option<Arc<End>>,
        name: Option<Arc<str>>,
    ) -> Self {
        let config = &store.region.control().config;
        config.fences.join();
        // One less, so that the first call looks.
        let before = |closed: &AtomicU32| closed.load(Ordering::Relaxed).wrapping_sub(1).into();
        let closed_consumers = before(&config.closed_consumers);
        let closed_producers = before(&config.closed_producers);
        Self {
            store,
            is_closed: AtomicBool::new(producer.is_none()),
            producer: ArcSwapOption::new(producer),
            consumer,
            closed_consumers,
            closed_producers,
            hints: Hints::default(),
            reclaimed_at: AtomicU64::new(0),
            puts: AtomicU32::new(0),
            is_type_checked: AtomicBool::new(false),
            put_pace: Pace::default(),
            get_pace: Pace::default(),
            name,
            items: PhantomData,
        }
    }

    /// Another handle of the same queue; with the ends that are asked for, if this one has them.
    pub(crate) fn handle<U>(&self, puts: bool, gets: bool) -> Core<U> {
        let producer = self.producer_end().filter(|_| puts);
        let consumer = self.consumer.clone().filter(|_| gets);
        Core::over(self.store.clone(), producer, consumer, self.name.clone())
    }

    fn producer_end(&self) -> Option<Arc<End>> {
        self.producer.load_full()
    }

    /// The queue, as this process sees it.
    #[inline]
    pub(crate) fn ring(&self) -> Ring<'_, Store> {
        Ring {
            control: self.store.region.control(),
            limits: self.store.limits,
            hot: self.store.hot(),
            puts: &self.put_pace,
            gets: &self.get_pace,
            members: &self.store,
        }
    }

    /// How many items can be got.
    pub(crate) fn len(&self) -> usize {
        self.discard_unreachable();
        self.gettable_len()
    }

    fn gettable_len(&self) -> usize {
        match self.store.tasks {
            None => self.ring_len(),
            Some(_) => self.tasks_len(),
        }
    }

    /// How many take a place of the queue's capacity: tasks that have come back do not.
    pub(crate) fn items(&self) -> usize {
        self.discard_unreachable();
        self.ring_len()
    }

    fn ring_len(&self) -> usize {
        usize::try_from(self.ring().len()).unwrap_or(usize::MAX)
    }

    /// Items that no consumer is left for do not count.
    fn discard_unreachable(&self) {
        if self.consumer.is_none() && self.gettable_len() > 0 {
            // If none is left, this discards them.
            let _ = self.check_consumers(true);
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Puts no more through this handle.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        // Dropping the last one wakes others.
        drop(self.producer.swap(None));
    }

    /// Ends the queue for everybody.
    pub(crate) fn shut_down(&self, drain: bool) {
        self.store.region.control().shut_down(drain);
        // Wakes those who wait with poll(2), on both sides. What lies in the lane can still be read.
        if let Some(end) = self.producer_end().as_ref().or(self.consumer.as_ref()) {
            end.shut_down();
        }
        self.discard(PATIENCE);
    }

    /// If nobody gets the queued items any more, releases them: their memory, and their descriptors if
    /// this handle could get. The process that shuts the queue down calls this. In case it has no
    /// consumers' end, or is killed before, every operation that finds the queue closed does, too.
    #[cold]
    pub(crate) fn discard(&self, patience: Duration) {
        let ring = self.ring();
        if ring.is_discarding() {
            self.drain_lane();
            ring.discard(Deadline::after(patience));
            self.discard_tasks(&ring);
        }
    }

    /// Closes the descriptors in the lane of a queue that is shut down and has nothing left to get.
    fn drain_lane(&self) {
        if let Some(end) = &self.consumer {
            // From here on nobody can send, so the drain comes to an end.
            end.shut_down();
            end.drain(Deadline::NEVER);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Whether anybody is left who could get. Asks only if something has changed since, or it is
    /// `time` to.
    #[inline]
    fn check_consumers(&self, time: bool) -> Result<(), EngineError> {
        let closed = self.store.region.control().config.closed_consumers.load(Ordering::Relaxed);
        let is_same = closed == self.closed_consumers.load(Ordering::Relaxed);
        if is_same && !time { Ok(()) } else { self.look_for_consumers(closed) }
    }

    #[cold]
    fn look_for_consumers(&self, closed: u32) -> Result<(), EngineError> {
        let is_hung_up =
            self.consumer.is_none() && self.producer_end().is_some_and(|end| end.is_hung_up());
        // In this order: a shutdown hangs the lane up as well, and may leave consumers something.
        if self.store.region.control().is_shut_down() {
            self.discard(MOMENT);
            return Err(EngineError::Closed);
        }
        if is_hung_up {
            self.store.region.control().orphan();
            self.discard(MOMENT);
            return Err(EngineError::Disconnected);
        }
        self.closed_consumers.store(closed, Ordering::Relaxed);
        Ok(())
    }

    /// Whether anything can come any more, when nothing was there.
    pub(crate) fn check_producers(
        &self,
        ring: &Ring<'_, Store>,
        poll: Poll,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<(), EngineError> {
        match self.check_puts(ring, poll, deadline) {
            // In this order: what was got since is in work.
            Err(EngineError::Closed | EngineError::Disconnected) if self.may_tasks_come_back() => {
                Ok(())
            }
            result => result,
        }
    }

    /// Whether anything can be put any more, or is there.
    fn check_puts(
        &self,
        ring: &Ring<'_, Store>,
        poll: Poll,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<(), EngineError> {
        if ring.control.is_shut_down() && ring.is_drained(deadline)? {
            return Err(EngineError::Closed);
        }
        let closed = ring.control.config.closed_producers.load(Ordering::Relaxed);
        let is_same = closed == self.closed_producers.load(Ordering::Relaxed);
        if is_same && poll == Poll::Retry { Ok(()) } else { self.look_for_producers(ring, closed) }
    }

    #[cold]
    fn look_for_producers(&self, ring: &Ring<'_, Store>, closed: u32) -> Result<(), EngineError> {
        let Some(end) = &self.consumer else { return Ok(()) };
        // Whoever has both ends is a producer. The look at the lane comes first: what was put before
        // its end is seen by the look at the length.
        if self.is_closed() && end.is_hung_up() && ring.len() == 0 {
            return Err(EngineError::Disconnected);
        }
        if end.has_packets() {
            // If it is empty, they belong to nothing: a producer was killed, or a doorbell was rung.
            let _ = ring.while_empty(|| end.drain(Deadline::after(MOMENT)));
        }
        ring.trim_if_idle();
        self.trim_tasks(ring);
        self.closed_producers.store(closed, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn watch_consumer<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
        // A lane that is hung up is always ready, though tasks may still come back: they are looked
        // for now and then.
        let may_hang_up = self.store.tasks.is_some();
        if let Some(end) = self.consumer.as_ref().filter(|end| !(may_hang_up && end.is_hung_up())) {
            add(end.as_fd());
        }
    }

    /// Whether `get` would not wait. If it would, a packet will lie in the lane as soon as that is
    /// over, or the lane be hung up.
    pub(crate) fn prepare_to_get(&self) -> io::Result<bool> {
        let ring = self.ring();
        self.reclaim();
        if self.len() > 0 {
            return Ok(true);
        }
        // Takes what lies in the lane away, if it belongs to nothing. Only then comes the doorbell, and
        // then the last look.
        let is_over = |result: Result<(), EngineError>| {
            result.is_err_and(|error| error != EngineError::Stalled)
        };
        if is_over(self.check_producers(&ring, Poll::CheckLiveness, || Deadline::after(MOMENT))) {
            self.discard(MOMENT);
            return Ok(true);
        }
        ring.control.ask_for_doorbell(fd_lane::now());
        Ok(self.len() > 0 || (ring.control.is_shut_down() && !self.may_tasks_come_back()))
    }

    /// Puts what is encoded, and says how many items.
    #[inline]
    fn put_items(
        &self,
        items: Items<'_>,
        fds: Option<&mut dyn Outgoing>,
        until: Wait,
    ) -> (usize, Result<(), PutFailure>) {
        let ring = self.ring();
        let (count, result) = match until {
            Wait::Now => match ring.try_put(items, fds, || Deadline::after(PATIENCE)) {
                Ok((count, Put::Done)) => (count, Ok(())),
                Ok((count, _)) => (
                    count,
                    self.check_consumers(true)
                        .map_err(PutFailure::from)
                        .and(Err(PutFailure::NotNow)),
                ),
                Err(error) => (0, Err(error.into())),
            },
            Wait::Deadline(deadline) => {
                let check = |poll| {
                    // A first part may have been put, and the rest waits until it is got.
                    self.ring_doorbell();
                    self.check_consumers(poll == Poll::CheckLiveness)
                };
                let (count, result) = ring.put(items, fds, deadline, check);
                (count, result.map_err(PutFailure::from))
            }
        };
        if count > 0 {
            self.ring_doorbell();
        }
        if let Err(PutFailure::For(_)) = &result {
            // If it is the end of the queue, items may have to be discarded.
            let _ = self.check_consumers(true);
        }
        (count, result)
    }

    /// Wakes who waits with poll(2), if anybody wants to be.
    #[inline]
    pub(crate) fn ring_doorbell(&self) {
        if self.store.region.control().must_ring_doorbell()
            && let Some(end) = self.producer_end()
        {
            end.ring();
        }
    }

    /// What every put of so many items begins with.
    #[inline]
    fn begin_put(&self, items: usize) -> Result<(), Reason> {
        if self.is_closed() {
            return Err(Reason::Closed);
        }
        // A lost count does not matter.
        let before = self.puts.load(Ordering::Relaxed);
        let puts = before.wrapping_add(u32::try_from(items).unwrap_or(PUTS_A_LOOK));
        self.puts.store(puts, Ordering::Relaxed);
        let is_time = puts / PUTS_A_LOOK != before / PUTS_A_LOOK;
        self.check_consumers(is_time).map_err(|error| match error {
            EngineError::Closed => Reason::Closed,
            _ => Reason::Disconnected,
        })
    }

    /// Gets items into a sink, one at least, and the descriptors of an item that comes alone.
    #[inline]
    fn get_items(&self, sink: &mut impl Sink, until: Wait) -> Result<Vec<OwnedFd>, GetFailure> {
        let ring = self.ring();
        let Some(end) = &self.consumer else { unreachable!("only handles that get are asked to") };
        let mut lane = IncomingFds { end, descriptors: Vec::new() };
        let patience = || Deadline::after(PATIENCE);
        let result = match until {
            Wait::Now => match ring.try_get(sink, &mut lane, patience) {
                Ok(0) => self.check_producers(&ring, Poll::CheckLiveness, patience).and(Ok(0)),
                result => result,
            },
            Wait::Deadline(deadline) => {
                let check = |poll| self.check_producers(&ring, poll, || deadline);
                ring.get(sink, &mut lane, deadline, check)
            }
        };
        if result == Err(EngineError::Closed) {
            // There may still be packets in the lane that belong to no item.
            self.drain_lane();
            self.discard(MOMENT);
        }
        let count = result?;
        if count > 0 { Ok(lane.descriptors) } else { Err(GetFailure::NotNow) }
    }
}

impl<T: Serialize> Core<T> {
    /// Encodes an item, and puts it.
    #[inline]
    pub(crate) fn put_item(&self, item: &T, until: Wait) -> Result<(), PutFailure> {
        self.begin_put(1)?;
        let mut buffer = ScratchBuffer::empty();
        let handles = self.encode(item, &mut buffer)?;
        let items = Items { bytes: &buffer, start: 0, ends: &[buffer.len()] };
        match handles {
            None => self.put_items(items, None, until).1,
            Some(handles) => self.put_with(items, handles, until),
        }
    }

    /// Puts the only one of the items, with its handles. They count as sent only if it is put.
    #[cold]
    fn put_with(
        &self,
        items: Items<'_>,
        mut handles: Handles,
        until: Wait,
    ) -> Result<(), PutFailure> {
        let descriptors = &handles.take_descriptors();
        let result = if descriptors.is_empty() {
            self.put_items(items, None, until).1
        } else if descriptors.len() > MAX_DESCRIPTORS {
            Err(PutFailure::from(Reason::Encode(EncodeError::new::<T>(format!(
                "it has {} descriptors, and an item of a queue can have {MAX_DESCRIPTORS}; a \
                 `duplex` connection takes more",
                descriptors.len()
            )))))
        } else {
            let Some(end) = self.producer_end() else { return Err(Reason::Closed.into()) };
            self.put_items(items, Some(&mut OutgoingFds { end: &end, descriptors }), until).1
        };
        if result.is_ok() {
            handles.sent();
        }
        result
    }

    /// Puts as many of the items, from the first on, as is possible; says how many, and why not more.
    pub(crate) fn put_batch(&self, batch: &[T], until: Wait) -> (usize, Result<(), PutFailure>) {
        let mut done = 0;
        while done < batch.len() {
            let (count, result) = self.put_some(&batch[done..], until);
            done += count;
            if result.is_err() {
                return (done, result);
            }
        }
        (done, Ok(()))
    }

    /// The same for the first few, which are encoded together.
    fn put_some(&self, batch: &[T], until: Wait) -> (usize, Result<(), PutFailure>) {
        if let Err(reason) = self.begin_put(batch.len()) {
            return (0, Err(reason.into()));
        }
        let mut lent = ScratchBuffer::empty();
        let buffer = &mut *lent;
        let mut ends = Vec::with_capacity(batch.len());
        for item in batch {
            match self.encode(item, buffer) {
                Ok(None) => {}
                // One with handles goes alone; and one that fails is an error only when it is
                // the first.
                Ok(Some(handles)) if ends.is_empty() => {
                    let items = Items { bytes: buffer, start: 0, ends: &[buffer.len()] };
                    let result = self.put_with(items, handles, until);
                    return (usize::from(result.is_ok()), result);
                }
                Err(reason) if ends.is_empty() => return (0, Err(reason.into())),
                Ok(_) | Err(_) => break,
            }
            ends.push(buffer.len());
            if buffer.len() > BATCH_BYTES || ends.len() == BATCH {
                break;
            }
        }
        self.put_items(Items { bytes: buffer, start: 0, ends: &ends }, None, until)
    }

    /// Appends the bytes of an item.
    #[inline]
    fn encode(&self, item: &T, buffer: &mut Vec<u8>) -> Result<Option<Handles>, Reason> {
        let before = buffer.len();
        let handles = message::encode_unsent(item, buffer).map_err(Reason::Encode)?;
        let largest = if self.store.tasks.is_some() { LARGEST_TASK } else { frame::LONGEST };
        let (size, max) = (buffer.len() - before, self.store.max_bytes.min(largest));
        if size > max {
            return Err(Reason::TooLarge { size, max });
        }
        Ok(handles)
    }
}

impl<T: DeserializeOwned> Core<T> {
    /// Gets the bytes of an item, and decodes them. (The error is made in place: to turn one kind of
    /// result into another would move the item.)
    #[inline]
    pub(crate) fn get<E: From<DecodeError>>(
        &self,
        until: Wait,
        missed: impl FnOnce(GetFailure) -> E,
    ) -> Result<T, E> {
        let mut buffer = ScratchBuffer::empty();
        match self.get_items(&mut *buffer, until) {
            Ok(descriptors) => message::decode_as(&buffer, descriptors),
            Err(reason) => Err(missed(reason)),
        }
    }

    /// Gets up to `max` items, at least one. An item that cannot be decoded is an error, which comes
    /// with the others.
    pub(crate) fn get_batch(&self, max: usize, until: Wait) -> (Vec<T>, Result<(), GetFailure>) {
        let mut items = Vec::new();
        if max == 0 {
            return (items, Ok(()));
        }
        let mut buffer = ScratchBuffer::empty();
        let mut get = || {
            let max = max.min(BATCH);
            let mut batch = Batch { buffer: &mut buffer, ends: Vec::with_capacity(max), max };
            let mut descriptors = self.get_items(&mut batch, until)?;
            let Batch { buffer, ends, .. } = batch;
            items.reserve_exact(ends.len());
            let mut start = 0;
            let mut failure = Ok(());
            for end in ends {
                let descriptors = std::mem::take(&mut descriptors);
                match message::decode_as::<T, GetError>(&buffer[start..end], descriptors) {
                    Ok(item) => items.push(item),
                    Err(error) if failure.is_ok() => failure = Err(error.into()),
                    Err(_) => {}
                }
                start = end;
            }
            failure
        };
        let result = get();
        (items, result)
    }
}

/// Several items, one after the other.
struct Batch<'a> {
    buffer: &'a mut Vec<u8>,
    ends: Vec<usize>,
    max: usize,
}

impl Sink for Batch<'_> {
    #[inline]
    fn takes_more(&self) -> bool {
        self.ends.len() < self.max && self.buffer.len() < BATCH_BYTES
    }

    #[inline]
    fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer
    }

    #[inline]
    fn finish_item(&mut self, _: &Header) -> Result<(), EngineError> {
        self.ends.push(self.buffer.len());
        Ok(())
    }
}

/// A buffer of this thread, empty, for one operation. While it is lent, another one is made; so it is
/// where this thread's thread-locals are gone already, in the destructor of another one or when the
/// process exits.
pub(crate) struct ScratchBuffer {
    /// There until the drop.
    buffer: Option<Box<Buffer>>,
}

/// In a box: to lend it is to move a pointer.
#[derive(Default)]
struct Buffer(Vec<u8>);

thread_local! {
    static BUFFER: Cell<Option<Box<Buffer>>> = const { Cell::new(None) };
}

impl ScratchBuffer {
    #[inline]
    pub(crate) fn empty() -> Self {
        let mut buffer = BUFFER.try_with(Cell::take).ok().flatten().unwrap_or_default();
        buffer.0.clear();
        Self { buffer: Some(buffer) }
    }
}

impl Drop for ScratchBuffer {
    #[inline]
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take().filter(|buffer| buffer.0.capacity() <= KEEP) {
            let _ = BUFFER.try_with(|kept| kept.set(Some(buffer)));
        }
    }
}

impl Deref for ScratchBuffer {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        self.buffer.as_deref().map_or(const { &Vec::new() }, |buffer| &buffer.0)
    }
}

impl DerefMut for ScratchBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buffer.get_or_insert_default().0
    }
}

/// How a handle travels.
#[derive(Serialize, Deserialize)]
struct Wire {
    region: Region<Control>,
    producer: Option<Descriptor>,
    consumer: Option<Descriptor>,
    name: Option<String>,
}

impl<T> Core<T> {
    pub(crate) fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let copy = |end: Option<Arc<End>>| {
            let copy = end.map(|end| end.try_clone().map(Descriptor));
            copy.transpose().map_err(serde::ser::Error::custom)
        };
        let wire = Wire {
            region: self.store.region.clone(),
            producer: copy(self.producer_end())?,
            consumer: copy(self.consumer.clone())?,
            name: self.name.as_deref().map(str::to_owned),
        };
        wire.serialize(serializer)
    }

    /// `is_right` says whether a handle that can put, can get, of a joinable queue, is one of the right
    /// kind.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
        expected: &str,
        is_right: fn(bool, bool, bool) -> bool,
    ) -> Result<Self, D::Error> {
        let Wire { region, producer, consumer, name } = Wire::deserialize(deserializer)?;
        let core = || {
            let store = Store::over(region)?;
            if !is_right(producer.is_some(), consumer.is_some(), store.tasks.is_some()) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("expected a {expected}, got another kind of handle of a queue"),
                ));
            }
            let adopt = |socket: Option<Descriptor>, role| {
                let end = socket.map(|Descriptor(fd)| End::adopt(fd, role, store.region.clone()));
                end.transpose().map(|end| end.map(Arc::new))
            };
            let producer = adopt(producer, Role::Producer)?;
            let consumer = adopt(consumer, Role::Consumer)?;
            Ok(Self::over(store, producer, consumer, name.map(Arc::from)))
        };
        core().map_err(serde::de::Error::custom)
    }
}
