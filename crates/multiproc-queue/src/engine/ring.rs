//! The queue: two rings of frames, two sides, each with a lock and a commit word.
//!
//! The **hot ring** is a circle of bytes that stays in a core's cache. While it has no room, items go
//! into the **overflow ring**, a long stream in [`blocks`](super::overflow) of memory. The next item is
//! the frame with the next number, in whichever ring it lies.
//!
//! # Invariants
//!
//! 1. In each ring, the bytes from the consumers' position to the producers' position hold frames
//!    in the order of their numbers; together they hold every number from the consumers' count to
//!    the producers' count. Only consumers read there.
//! 2. All other bytes are free; only producers write there.
//! 3. Positions and count change by a commit of their side (see [`side`](super::side)), under its
//!    lock. So a producer that dies anywhere has put nothing or everything, and a consumer likewise.
//! 4. The locks are not held while anybody waits, encodes or decodes.
//! 5. An item's descriptors are in the lane before its frame is committed, under a tag that no other
//!    attempt has; the consumer takes them out of it after it has committed. So what lies in the
//!    lane and belongs to no frame has a tag that is older than the next frame's, or is being put.
//!
//! The shape of the two counters is Lamport's ("Specifying Concurrent Program Modules", 1983), with
//! a lock a side in front of it, and the commit word in place of the counter.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::time::Duration;

use multiproc_shm::Busy;
use multiproc_shm::Deadline;
use multiproc_shm::RECHECK;
use multiproc_shm::event_count::{EventCount, PAUSE, Poll};
use multiproc_shm::failpoint;
use multiproc_shm::fences::{Fences, LightFence};
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::owner_lock::OwnerLock;
#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Bytes, Ordering, fence, load_locked};

use super::frame::{ALIGN, HEADER, Header, size};
use super::overflow::{self, BLOCK, BlockTable, Memory, millis};
use super::pacing::Pace;
use super::side::{Cursor, Side};
use super::slots;

/// How often one who waits for a lock of the ring looks whether its holder is alive. The locks are
/// held for less than a microsecond, so whoever waits longer has most likely met a dead one.
const LOCK_RECHECK: Duration = Duration::from_millis(10);

/// How long a producer at first waits before it tries again to send descriptors, where another queue or
/// program must receive some before. Nothing notifies it, so it tries less and less often, at last every
/// [`RECHECK`].
const DESCRIPTORS_RECHECK: Duration = Duration::from_millis(1);

/// How long a consumer that wants to give memory back waits for the producers' lock.
const TRIM_PATIENCE: Duration = Duration::from_millis(10);

/// The control block: what the members of a queue share, beside the bytes.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Control {
    producers: Side,
    consumers: Side,
    not_empty: NotEmpty,
    not_full: NotFull,
    blocks: BlockTableLine,
    pub(crate) config: Config,
    pub(crate) tasks: slots::Control,
}

/// Where consumers wait, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct NotEmpty {
    waiters: EventCount<LightFence>,
    /// Somebody waits in the kernel, with poll(2), and wants the doorbell to be rung.
    doorbell: AtomicU32,
    /// When somebody last asked for that, in ms.
    asked_at: AtomicU64,
}

/// Where producers wait, on a cache line of its own. For a place, any of them is the right one to
/// wake. For bytes, the one that is woken may need more than there are, and another one less: so
/// all of those are woken.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct NotFull {
    places: EventCount<LightFence>,
    bytes: EventCount<LightFence>,
}

/// What only the holder of the producers' lock writes, and seldom.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct BlockTableLine {
    blocks: overflow::Control,
    /// How much of the hot ring is sure to have memory.
    reserved: AtomicU64,
    /// How many packets were sent, or tried, through the descriptor lane.
    packets: AtomicU64,
}

/// What everybody reads, and nobody writes but once or twice.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Config {
    /// How many items, and how many bytes of items, there may be. Each handle keeps the numbers that
    /// it read when it was opened.
    pub(crate) capacity: AtomicU64,
    pub(crate) max_bytes: AtomicU64,
    /// [`OPEN`], or some of [`DRAIN`], [`NOW`], [`ORPHANED`].
    state: AtomicU32,
    /// How many handles that could put were closed; and get.
    pub(crate) closed_producers: AtomicU32,
    pub(crate) closed_consumers: AtomicU32,
    /// Whether what is got is a task: 1, or 0.
    pub(crate) is_joinable: AtomicU32,
    pub(crate) fences: Fences,
    rest: AtomicU32,
}

const OPEN: u32 = 0;
/// It was shut down: nobody puts any more.
const DRAIN: u32 = 1;
/// It was shut down: nobody puts or gets any more.
const NOW: u32 = 2;
/// A producer has found that no consumer is left. There will never be one again.
const ORPHANED: u32 = 4;

#[cfg(not(loom))]
placed!(NotEmpty { waiters, doorbell, asked_at });
#[cfg(not(loom))]
placed!(NotFull { places, bytes });
#[cfg(not(loom))]
placed!(BlockTableLine { blocks, reserved, packets });
#[cfg(not(loom))]
placed!(Config {
    capacity,
    max_bytes,
    state,
    closed_producers,
    closed_consumers,
    is_joinable,
    fences,
    rest,
});
#[cfg(not(loom))]
placed!(Control { producers, consumers, not_empty, not_full, blocks, config, tasks });

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Control, producers) == 0 && offset_of!(Control, consumers) == 256);
    assert!(offset_of!(Control, not_empty) == 512 && offset_of!(Control, not_full) == 640);
    assert!(offset_of!(Control, blocks) == 768 && offset_of!(Control, config) == 896);
    assert!(offset_of!(Config, max_bytes) == 8 && offset_of!(Config, state) == 16);
    assert!(offset_of!(Control, tasks) == 1024);
    assert!(size_of::<Control>() == 1152 && size_of::<BlockTableLine>() == 128);
};

/// What came of an attempt to put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Done,
    /// There are as many items as there may be.
    NoPlace,
    /// The item needs more bytes, or more room in the descriptor lane, than are free.
    NoBytes,
    /// As many descriptors of this user are in flight, in all queues and sockets, as the kernel lets it.
    NoDescriptors,
}

/// Why an operation came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineError {
    /// The deadline passed while a living process, most likely a stopped one, held a lock.
    Stalled,
    /// Other code in this process has closed the descriptor by which other members are asked about.
    CutOff,
    /// The queue was shut down.
    Closed,
    /// Nobody is left on the other side.
    Disconnected,
    /// The kernel has no memory for the item.
    OutOfMemory,
    /// The kernel refused to pass descriptors on.
    Os(i32),
    /// As many tasks are in work as can be.
    TooManyTasks,
    /// The shared memory holds what no member writes.
    Corrupted(&'static str),
}

/// How much there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) capacity: u64,
    /// Of frames: see [`size`].
    pub(crate) bytes: u64,
}

/// Items to put: one after the other in `bytes`, from `start` on; each ends where `ends` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Items<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) start: usize,
    pub(crate) ends: &'a [usize],
}

impl Items<'_> {
    /// Those behind the first `count`.
    fn after(self, count: usize) -> Self {
        let start = count.checked_sub(1).map_or(self.start, |last| self.ends[last]);
        Self { start, ends: &self.ends[count..], ..self }
    }
}

/// The descriptors of an item, on their way into the lane.
pub(crate) trait Outgoing {
    /// Sends them as one packet, if there is room for it.
    fn send(&mut self, tag: u32) -> Result<Put, EngineError>;
}

/// The descriptors of an item, on their way out of the lane.
pub(crate) trait Incoming {
    /// Copies those of the packet `tag`; throws older packets away.
    fn copy(&mut self, tag: u32) -> Result<(), EngineError>;

    /// Drops the copies: the item stays in the queue, and its packet in the lane.
    fn forget(&mut self);

    /// Throws the packet away that was copied.
    fn remove(&mut self);
}

/// Where items go that are got.
pub(crate) trait Sink {
    /// Whether it takes one more.
    fn takes_more(&self) -> bool;

    /// Where to append the next one.
    fn buffer(&mut self) -> &mut Vec<u8>;

    /// The last one is complete; `header` is its frame's. An error leaves it in the queue, and takes it
    /// off the buffer.
    fn finish_item(&mut self, header: &Header) -> Result<(), EngineError>;
}

/// One item, into a buffer.
impl Sink for Vec<u8> {
    #[inline]
    fn takes_more(&self) -> bool {
        false
    }

    #[inline]
    fn buffer(&mut self) -> &mut Vec<u8> {
        self
    }

    #[inline]
    fn finish_item(&mut self, _: &Header) -> Result<(), EngineError> {
        Ok(())
    }
}

impl Control {
    /// The time of everybody who sleeps runs out, for models.
    #[cfg(loom)]
    pub(crate) fn time_out(&self) {
        self.producers.lock.futex().time_out();
        self.consumers.lock.futex().time_out();
        self.not_empty.waiters.futex().time_out();
        self.not_full.places.futex().time_out();
        self.not_full.bytes.futex().time_out();
        self.tasks.time_out();
    }

    /// Lets go of the locks of a dead member. Nothing else of it remains.
    pub(crate) fn release_slot(&self, slot: usize) {
        self.producers.lock.release_slot(self.fences(), slot);
        self.consumers.lock.release_slot(self.fences(), slot);
    }

    /// Wakes everybody who waits: what they wait for may never come.
    pub(crate) fn wake_all(&self) {
        fence(Ordering::SeqCst);
        self.not_empty.waiters.wake_all();
        self.not_full.places.wake_all();
        self.not_full.bytes.wake_all();
        self.tasks.all_done().wake_all();
    }

    /// Nobody puts any more; and, if not `drain`, nobody gets either.
    pub(crate) fn shut_down(&self, drain: bool) {
        self.become_also(if drain { DRAIN } else { NOW });
    }

    /// The last consumer is gone: nobody puts any more, in any process.
    pub(crate) fn orphan(&self) {
        if self.state() & ORPHANED == 0 {
            self.become_also(ORPHANED);
        }
    }

    fn become_also(&self, what: u32) {
        self.config.state.fetch_or(what, Ordering::AcqRel);
        self.wake_all();
    }

    #[inline]
    fn state(&self) -> u32 {
        self.config.state.load(Ordering::Acquire)
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.state() & (DRAIN | NOW) != 0
    }

    /// Whether no consumer is left.
    pub(crate) fn is_orphaned(&self) -> bool {
        self.state() & ORPHANED != 0
    }

    /// Whether nobody gets the queued items any more: then they are discarded.
    pub(crate) fn is_discarding(&self) -> bool {
        self.state() & (NOW | ORPHANED) != 0
    }

    /// Whether consumers, producers may be asleep.
    pub(crate) fn has_sleepers(&self) -> (bool, bool) {
        let NotFull { places, bytes, .. } = &self.not_full;
        let producers = places.has_sleepers() || bytes.has_sleepers();
        (self.not_empty.waiters.has_sleepers(), producers)
    }

    /// All words of a queue that are slept on have these fences.
    #[inline]
    pub(crate) fn fences(&self) -> &Fences {
        &self.config.fences
    }

    /// Asks for the doorbell to be rung at the next put. Whoever asks looks once more before it goes to
    /// sleep.
    pub(crate) fn ask_for_doorbell(&self, now: Duration) {
        self.not_empty.asked_at.store(millis(now), Ordering::Relaxed);
        self.not_empty.doorbell.store(1, Ordering::Relaxed);
        self.fences().heavy();
    }

    /// Asks for it again, after what came of it was thrown away: somebody may sleep whom it was to
    /// wake. Who sleeps has asked within the last recheck interval.
    pub(crate) fn ask_again(&self, now: Duration) {
        let asked_at = self.not_empty.asked_at.load(Ordering::Relaxed);
        if millis(now).wrapping_sub(asked_at) <= 2 * millis(RECHECK) {
            self.not_empty.doorbell.store(1, Ordering::Relaxed);
            self.fences().heavy();
        }
    }

    /// Whether somebody wants the doorbell to be rung: it then is the caller's affair. To be called after
    /// a put has been committed, and a fence passed.
    #[inline]
    pub(crate) fn must_ring_doorbell(&self) -> bool {
        let doorbell = &self.not_empty.doorbell;
        doorbell.load(Ordering::Relaxed) != 0 && doorbell.swap(0, Ordering::Relaxed) != 0
    }
}

/// A queue, seen by one member.
pub(crate) struct Ring<'a, M> {
    pub(crate) control: &'a Control,
    pub(crate) limits: Limits,
    /// A power of two, so that a position's offset is a mask away.
    pub(crate) hot: Bytes<'a>,
    /// How often this handle looks for places, for items.
    pub(crate) puts: &'a Pace,
    pub(crate) gets: &'a Pace,
    pub(crate) members: &'a M,
}

impl<M: Members + Memory> Ring<'_, M> {
    /// Puts as many of the items as there is room for, and says how many, and why not more. The
    /// deadline is for the lock alone. If there is a parcel, it goes with the only item.
    #[inline]
    pub(crate) fn try_put(
        &self,
        items: Items<'_>,
        fds: Option<&mut dyn Outgoing>,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<(usize, Put), EngineError> {
        let held = self.lock::<Producers>(deadline)?;
        failpoint::reached("put.locked");
        let result = self.put_locked(items, fds);
        let passed = held.release();
        failpoint::reached("put.unlocked");
        if let Ok((count @ 1.., _)) = result {
            self.control.not_empty.waiters.notify(saturating_u32(count), passed);
        }
        result
    }

    /// Puts all items, waiting for room, and says how many: all, or not in time.
    ///
    /// `check` is called when there is no room, and may end the wait.
    #[inline]
    pub(crate) fn put(
        &self,
        items: Items<'_>,
        mut fds: Option<&mut dyn Outgoing>,
        deadline: Deadline,
        check: impl FnMut(Poll) -> Result<(), EngineError>,
    ) -> (usize, Result<(), EngineError>) {
        self.puts.keep();
        let first = self.try_put(items, fds.as_mut().map(|p| &mut **p as _), || deadline);
        match first {
            Ok((count, Put::Done)) => (count, Ok(())),
            Ok((count, full)) => self.put_contended(items, count, full, fds, deadline, check),
            Err(error) => (0, Err(error)),
        }
    }

    #[cold]
    fn put_contended(
        &self,
        items: Items<'_>,
        mut done: usize,
        mut full: Put,
        mut fds: Option<&mut dyn Outgoing>,
        deadline: Deadline,
        mut check: impl FnMut(Poll) -> Result<(), EngineError>,
    ) -> (usize, Result<(), EngineError>) {
        let NotFull { places, bytes, .. } = &self.control.not_full;
        let mut pause = DESCRIPTORS_RECHECK;
        loop {
            // Waits until some are put, or what is missing is something else.
            let waiters = if full == Put::NoPlace { places } else { bytes };
            let until = match full {
                Put::NoDescriptors => deadline.or_earlier(Deadline::after(pause)),
                _ => deadline,
            };
            let fences = self.control.fences();
            let waited = waiters.wait_asymmetric(fences, PAUSE, until, RECHECK, |poll| {
                let rest = items.after(done);
                let fds = fds.as_mut().map(|fds| &mut **fds as &mut dyn Outgoing);
                match self.try_put(rest, fds, || deadline) {
                    Ok((0, same)) if same == full => check(poll).err().map(Err),
                    result => Some(result),
                }
            });
            if full == Put::NoPlace && waited.slept && self.len() < self.limits.capacity {
                places.notify_one(self.control.fences().light());
            }
            match waited.outcome {
                None if full == Put::NoDescriptors && !deadline.is_past() => {
                    pause = RECHECK.min(2 * pause);
                }
                None => return (done, Err(EngineError::Stalled)),
                Some(Err(error)) => return (done, Err(error)),
                Some(Ok((count, put))) => {
                    done += count;
                    if put == Put::Done {
                        return (done, Ok(()));
                    }
                    full = put;
                    // Both kinds of "full" in turn, without an end, are not the members' doing.
                    if count == 0 && deadline.is_past() {
                        return (done, Err(EngineError::Stalled));
                    }
                }
            }
        }
    }

    /// Gets as many items as there are and the sink takes, and says how many. The deadline is for the
    /// lock alone.
    #[inline]
    pub(crate) fn try_get(
        &self,
        sink: &mut impl Sink,
        lane: &mut dyn Incoming,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<usize, EngineError> {
        let held = self.lock::<Consumers>(deadline)?;
        failpoint::reached("get.locked");
        let result = self.get_locked(sink, lane);
        let passed = held.release();
        failpoint::reached("get.unlocked");
        let Got { count, trim } = result?;
        if count > 0 {
            self.control.not_full.places.notify(saturating_u32(count), passed);
            self.control.not_full.bytes.notify_all(passed);
        }
        if let Some((head, tail)) = trim {
            self.trim_if_time(head, tail);
        }
        Ok(count)
    }

    /// Gets as many items as there are and the sink takes, waiting for the first one.
    ///
    /// `check` is called when there is none, and may end the wait.
    #[inline]
    pub(crate) fn get(
        &self,
        sink: &mut impl Sink,
        lane: &mut dyn Incoming,
        deadline: Deadline,
        check: impl FnMut(Poll) -> Result<(), EngineError>,
    ) -> Result<usize, EngineError> {
        self.gets.keep();
        match self.try_get(sink, lane, || deadline) {
            Ok(0) => self.get_contended(sink, lane, deadline, check),
            result => result,
        }
    }

    #[cold]
    fn get_contended(
        &self,
        sink: &mut impl Sink,
        lane: &mut dyn Incoming,
        deadline: Deadline,
        mut check: impl FnMut(Poll) -> Result<(), EngineError>,
    ) -> Result<usize, EngineError> {
        let result =
            self.wait_for_item(deadline, |poll| match self.try_get(sink, lane, || deadline) {
                Ok(0) => check(poll).err().map(Err),
                result => Some(result),
            });
        result.unwrap_or(Ok(0))
    }

    /// Calls `attempt` whenever there may be an item, until it gives something, or not in time.
    pub(crate) fn wait_for_item<R>(
        &self,
        deadline: Deadline,
        attempt: impl FnMut(Poll) -> Option<R>,
    ) -> Option<R> {
        let empty = &self.control.not_empty.waiters;
        let waited = empty.wait_asymmetric(
            self.control.fences(),
            self.gets.steps(),
            deadline,
            RECHECK,
            attempt,
        );
        if waited.slept && self.len() > 0 {
            empty.notify_one(self.control.fences().light());
        }
        waited.outcome
    }

    /// Wakes one consumer that waits for an item: one has come that was not put.
    pub(crate) fn notify_consumer(&self) {
        self.control.not_empty.waiters.notify_one(self.control.fences().light());
    }

    /// Wakes all who wait for an item: they may wait in vain.
    #[cold]
    pub(crate) fn wake_consumers(&self) {
        self.control.not_empty.waiters.wake_all();
    }

    /// Does `act` under the consumers' lock, if that can be had soon.
    #[cold]
    pub(crate) fn as_consumer(&self, act: impl FnOnce()) {
        if let Ok(_held) = self.lock::<Consumers>(|| Deadline::after(TRIM_PATIENCE)) {
            act();
        }
    }

    /// How many items were put so far, and how many got.
    pub(crate) fn counts(&self) -> Option<(u64, u64)> {
        let Control { producers, consumers, .. } = self.control;
        let consumed = consumers.observe()?.count;
        Some((producers.observe()?.count, consumed))
    }

    /// Whether a shut-down queue has nothing left to get. To be asked when there was nothing.
    #[cold]
    pub(crate) fn is_drained(
        &self,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<bool, EngineError> {
        if !self.control.is_shut_down() {
            return Ok(false);
        }
        if self.is_discarding() {
            return Ok(true);
        }
        // A put that had begun before may have been committed since. Behind it in the lock, there is
        // none any more.
        drop(self.lock::<Producers>(deadline)?);
        Ok(self.len() == 0)
    }

    /// Does `act` while nobody can be in the middle of a put or a get, if the queue is empty then.
    #[cold]
    pub(crate) fn while_empty(&self, act: impl FnOnce()) -> Result<(), EngineError> {
        let patience = || Deadline::after(TRIM_PATIENCE);
        let Control { producers, consumers, .. } = self.control;
        let _consumers = self.lock::<Consumers>(patience)?;
        let _producers = self.lock::<Producers>(patience)?;
        if producers.current().1 == consumers.current().1 {
            act();
        }
        Ok(())
    }

    /// Gives memory back if the queue is empty. For those who have nothing else to do.
    pub(crate) fn trim_if_idle(&self) {
        let (head, tail) = self.marks();
        if head == tail {
            self.trim_if_time(head.overflow, tail.overflow);
        }
    }

    #[cold]
    fn trim_if_time(&self, head: u64, tail: u64) {
        if self.blocks().is_time_to_trim(head, tail) {
            self.trim();
        }
    }

    /// Gives memory back that the queue does not need.
    fn trim(&self) {
        let Control { producers, consumers, .. } = self.control;
        // If a stopped producer has the lock, or the queue is corrupted, memory stays: no more.
        let Ok(_held) = self.lock::<Producers>(|| Deadline::after(TRIM_PATIENCE)) else {
            return;
        };
        let Some(head) = consumers.observe() else { return };
        let (_, tail) = producers.current();
        if self.used(head, tail).is_ok() {
            let _ = self.blocks().trim(head.overflow, tail.overflow);
        }
    }

    /// How many items there are: a number that was true at one moment during the call.
    pub(crate) fn len(&self) -> u64 {
        let (head, tail) = self.marks();
        tail.count.saturating_sub(head.count).min(self.limits.capacity)
    }

    /// How many bytes they take, with their headers.
    pub(crate) fn bytes(&self) -> u64 {
        let (head, tail) = self.marks();
        self.used(head, tail).map_or(0, |used| used.hot + used.overflow)
    }

    /// Does `act` while nobody puts or gets, if the locks can be had soon; whether they could. (If a
    /// member was stopped while it had one, that side keeps still anyhow.)
    #[cold]
    pub(crate) fn while_still<R>(&self, act: impl FnOnce() -> R) -> (R, bool) {
        let patience = || Deadline::after(TRIM_PATIENCE);
        let consumers = self.lock::<Consumers>(patience);
        let producers = self.lock::<Producers>(patience);
        (act(), consumers.is_ok() && producers.is_ok())
    }

    /// Whether what is there is thrown away.
    pub(crate) fn is_discarding(&self) -> bool {
        self.control.is_discarding()
    }

    /// Discards the items, and gives their memory back. Only for a queue from which nobody gets any
    /// more: it [is thrown away](Self::is_discarding). A producer that is about to commit an item is
    /// waited for until the deadline; if that is too short, or this process dies halfway, the next call
    /// does the rest.
    #[cold]
    pub(crate) fn discard(&self, deadline: Deadline) {
        let Control { producers, consumers, .. } = self.control;
        let Ok(_consumers) = self.lock::<Consumers>(|| deadline) else { return };
        // A put that had begun before is committed by now. Behind it in the lock there is none.
        let Ok(_producers) = self.lock::<Producers>(|| deadline) else { return };
        let (_, tail) = producers.current();
        let (epoch, head) = consumers.current();
        if head != tail {
            consumers.prepare(epoch, tail);
            consumers.commit(epoch);
            failpoint::reached("discard.committed");
        }
        let blocks = self.blocks();
        if self.used(tail, tail).is_ok() && blocks.has_more_than_reserve(tail.overflow) {
            let _ = blocks.trim(tail.overflow, tail.overflow);
        }
    }

    /// Both marks as they were at one moment during the call.
    fn marks(&self) -> (Cursor, Cursor) {
        const NONE: Cursor = Cursor { hot: 0, overflow: 0, count: 0 };
        let Control { producers, consumers, .. } = self.control;
        if self.is_discarding() {
            return (NONE, NONE);
        }
        let try_to = || {
            let mut before = consumers.observe()?;
            let mut tail = producers.observe()?;
            // Few tries are needed: counts only grow, and each try takes some nanoseconds.
            for _ in 0..100 {
                let after = consumers.observe()?;
                if before == after {
                    break;
                }
                before = after;
                tail = producers.observe()?;
            }
            Some((before, tail))
        };
        try_to().unwrap_or((NONE, NONE))
    }

    #[inline]
    fn put_locked(
        &self,
        items: Items<'_>,
        mut fds: Option<&mut dyn Outgoing>,
    ) -> Result<(usize, Put), EngineError> {
        let producers = &self.control.producers;
        let state = self.control.state();
        if state != OPEN {
            let is_shut_down = state & (DRAIN | NOW) != 0;
            return Err(if is_shut_down { EngineError::Closed } else { EngineError::Disconnected });
        }
        let (epoch, tail) = producers.current();
        let mut head = producers.seen();
        let mut next = tail;
        let mut count = 0;
        let mut put = Put::Done;
        let mut start = items.start;
        for &end in items.ends {
            match self.put_one(&mut head, &mut next, &items.bytes[start..end], &mut fds) {
                Ok(Put::Done) => {}
                Ok(full) => {
                    put = full;
                    break;
                }
                Err(error) if count == 0 => return Err(error),
                // The next attempt finds it again; what went well counts.
                Err(_) => {
                    put = Put::NoBytes;
                    break;
                }
            }
            count += 1;
            start = end;
        }
        let used = next.count.wrapping_sub(head.count);
        self.puts.left(self.limits.capacity.saturating_sub(used));
        if count > 0 {
            failpoint::reached("put.written");
            producers.prepare(epoch, next);
            failpoint::reached("put.prepared");
            producers.commit(epoch);
            failpoint::reached("put.committed");
        }
        Ok((count, put))
    }

    /// Writes the frame of an item behind `next`, and moves that on.
    #[inline]
    fn put_one(
        &self,
        head: &mut Cursor,
        next: &mut Cursor,
        item: &[u8],
        fds: &mut Option<&mut dyn Outgoing>,
    ) -> Result<Put, EngineError> {
        let size = size(item.len());
        let place = self.place(head, *next, size)?;
        match place {
            Place::Hot => self.reserve_hot(next.hot, size).map_err(|error| self.cause_of(error))?,
            Place::Overflow => {
                let result = self.blocks().extend(head.overflow, next.overflow, size);
                result.map_err(|error| self.cause_of(error))?;
            }
            Place::Full(full) => return Ok(full),
        }
        let mut tag = 0;
        if let Some(fds) = fds {
            tag = self.next_tag();
            failpoint::reached("put.tagged");
            match fds.send(tag)? {
                Put::Done => {}
                full => return Ok(full),
            }
            failpoint::reached("put.sent");
        }
        // Items longer than a frame can hold are refused before.
        let length = u32::try_from(item.len()).unwrap_or(u32::MAX);
        let header = Header { number: next.count, length, tag };
        if place == Place::Hot {
            let at = self.offset(next.hot);
            self.hot.copy_in_array(at, header.to_bytes());
            failpoint::reached("put.half_written");
            self.copy_in(at + HEADER, item);
            next.hot = next.hot.wrapping_add(size);
        } else {
            let blocks = self.blocks();
            blocks.copy_in(next.overflow, &header.to_bytes())?;
            failpoint::reached("put.half_written");
            blocks.copy_in(next.overflow.wrapping_add(HEADER as u64), item)?;
            next.overflow = next.overflow.wrapping_add(size);
        }
        next.count = next.count.wrapping_add(1);
        Ok(Put::Done)
    }

    /// Where there is room for a frame. `head` is what is known of the consumers: it may be enough,
    /// and if it is not (or is garbage), it is looked up.
    #[inline]
    fn place(&self, head: &mut Cursor, tail: Cursor, size: u64) -> Result<Place, EngineError> {
        if let Ok(used) = self.used(*head, tail) {
            let place = self.room(used, size);
            // As long as there is a backlog, one look a block is enough.
            let in_block = tail.overflow % BLOCK;
            let is_backlog = place == Place::Overflow
                && used.overflow > 0
                && in_block > 0
                && in_block + size <= BLOCK;
            if place == Place::Hot || is_backlog {
                return Ok(place);
            }
        }
        let Control { producers, consumers, .. } = self.control;
        *head = consumers.observe().ok_or(EngineError::Corrupted("the consumers' epoch"))?;
        let used = self.used(*head, tail)?;
        let place = self.room(used, size);
        let is_full = matches!(place, Place::Full(_));
        let places = if is_full { 0 } else { self.limits.capacity.saturating_sub(used.items) };
        self.puts.found(places, self.limits.capacity);
        producers.see(*head);
        failpoint::reached("put.seen");
        Ok(place)
    }

    #[inline]
    fn room(&self, used: Used, size: u64) -> Place {
        let has_overflow = self.members.blocks_len() > 0;
        if used.items >= self.limits.capacity {
            Place::Full(Put::NoPlace)
        } else if used.hot + used.overflow + size > self.limits.bytes {
            Place::Full(Put::NoBytes)
        } else if self.hot.len() as u64 - used.hot >= size {
            Place::Hot
        } else if has_overflow {
            Place::Overflow
        } else {
            Place::Full(Put::NoBytes)
        }
    }

    /// Makes sure of the memory of the hot ring, in the first round.
    #[inline]
    fn reserve_hot(&self, tail: u64, size: u64) -> Result<(), EngineError> {
        let reserved = load_locked(&self.control.blocks.reserved);
        let end = tail.saturating_add(size).min(self.hot.len() as u64);
        if end > reserved { self.reserve_more(end) } else { Ok(()) }
    }

    #[cold]
    fn reserve_more(&self, end: u64) -> Result<(), EngineError> {
        const STEP: u64 = 64 * 1024;
        let end = end.next_multiple_of(STEP).min(self.hot.len() as u64);
        if !self.members.reserve_hot(end) {
            return Err(EngineError::OutOfMemory);
        }
        self.control.blocks.reserved.store(end, Ordering::Relaxed);
        failpoint::reached("put.hot_reserved");
        Ok(())
    }

    /// A tag that no packet in the lane has: it is used up before the packet is sent.
    fn next_tag(&self) -> u32 {
        let packets = &self.control.blocks.packets;
        let number = load_locked(packets);
        packets.store(number.wrapping_add(1), Ordering::Relaxed);
        u32::try_from(number % u64::from(u32::MAX) + 1).unwrap_or(1)
    }

    #[inline]
    fn get_locked(
        &self,
        sink: &mut impl Sink,
        lane: &mut dyn Incoming,
    ) -> Result<Got, EngineError> {
        let Control { producers, consumers, .. } = self.control;
        if self.control.state() & NOW != 0 {
            return Err(EngineError::Closed);
        }
        let (epoch, head) = consumers.current();
        let mut tail = consumers.seen();
        let has_item = |used: Used| used.items > 0;
        let mut used = self.used(head, tail).ok().filter(|&used| has_item(used));
        if used.is_none() {
            tail = producers.observe().ok_or(EngineError::Corrupted("the producers' epoch"))?;
            used = Some(self.used(head, tail)?).filter(|&used| has_item(used));
            self.gets.found(used.map_or(0, |used| used.items), self.limits.capacity);
            consumers.see(tail);
            failpoint::reached("get.seen");
        }
        let Some(mut used) = used else {
            self.gets.left(0);
            return Ok(Got { count: 0, trim: None });
        };
        let mut next = head;
        let mut count = 0;
        let mut has_packet = false;
        loop {
            match self.get_one(&mut next, used, sink, lane, count == 0) {
                Ok(tag) => has_packet = tag != 0,
                Err(error) if count == 0 => return Err(error),
                // The next attempt finds it again; what went well counts.
                Err(_) => break,
            }
            count += 1;
            if has_packet || !sink.takes_more() {
                break;
            }
            match self.used(next, tail) {
                Ok(left) if has_item(left) => used = left,
                _ => break,
            }
        }
        failpoint::reached("get.copied");
        self.gets.left(tail.count.wrapping_sub(next.count));
        consumers.prepare(epoch, next);
        failpoint::reached("get.prepared");
        consumers.commit(epoch);
        failpoint::reached("get.committed");
        if has_packet {
            lane.remove();
            failpoint::reached("get.removed");
        }
        let has_left = |position: u64| position / BLOCK != head.overflow / BLOCK;
        let is_over = next.overflow == tail.overflow && next.overflow != head.overflow;
        let trim = (is_over || has_left(next.overflow)).then_some((next.overflow, tail.overflow));
        Ok(Got { count, trim })
    }

    /// Copies the item at `next` out, and moves that on. Its tag. If that fails, or the sink refuses the
    /// item, then `next`, the sink's buffer and the lane are as before.
    ///
    /// One with descriptors comes alone: its packet can be removed only after the commit.
    #[inline]
    fn get_one(
        &self,
        next: &mut Cursor,
        used: Used,
        sink: &mut impl Sink,
        lane: &mut dyn Incoming,
        is_first: bool,
    ) -> Result<u32, EngineError> {
        let (place, header) = self.front(*next, used)?;
        let length = header.length as usize;
        if header.tag != 0 {
            if !is_first {
                return Err(EngineError::Stalled); // not now
            }
            lane.copy(header.tag)?;
            failpoint::reached("get.received");
        }
        if place == Place::Hot {
            self.append_to(self.offset(next.hot) + HEADER, length, sink.buffer());
        } else {
            let start = next.overflow.wrapping_add(HEADER as u64);
            let before = sink.buffer().len();
            self.blocks().append_to(start, length, sink.buffer()).inspect_err(|_| {
                sink.buffer().truncate(before);
                lane.forget();
            })?;
        }
        // Only now is it certain that the item is taken: until here nothing has changed.
        sink.finish_item(&header).map_err(|error| {
            let buffer = sink.buffer();
            buffer.truncate(buffer.len().saturating_sub(length));
            lane.forget();
            self.cause_of(error)
        })?;
        if place == Place::Hot {
            next.hot = next.hot.wrapping_add(size(length));
        } else {
            next.overflow = next.overflow.wrapping_add(size(length));
        }
        next.count = next.count.wrapping_add(1);
        Ok(header.tag)
    }

    /// The next frame: the one with the next number, in whichever ring it lies.
    #[inline]
    fn front(&self, head: Cursor, used: Used) -> Result<(Place, Header), EngineError> {
        let check = |header: Header, used: u64| {
            if size(header.length as usize) > used {
                return Err(EngineError::Corrupted("the length of a frame"));
            }
            Ok(header)
        };
        if used.hot > 0 {
            let at = self.offset(head.hot);
            let header = Header::from_bytes(self.hot.copy_out(at));
            if header.number == head.count {
                return Ok((Place::Hot, check(header, used.hot)?));
            }
        }
        if used.overflow > 0 {
            let header = Header::from_bytes(self.blocks().copy_out(head.overflow)?);
            if header.number == head.count {
                return Ok((Place::Overflow, check(header, used.overflow)?));
            }
        }
        Err(EngineError::Corrupted("the sequence number of a frame"))
    }

    /// What lies between two marks, if they are any that members could have written.
    #[inline]
    fn used(&self, head: Cursor, tail: Cursor) -> Result<Used, EngineError> {
        let hot = tail.hot.wrapping_sub(head.hot);
        let overflow = tail.overflow.wrapping_sub(head.overflow);
        let items = tail.count.wrapping_sub(head.count);
        let aligned = (head.hot | tail.hot | head.overflow | tail.overflow).is_multiple_of(ALIGN);
        if hot > self.hot.len() as u64
            || overflow > self.members.blocks_len()
            || items > (hot + overflow) / ALIGN
            || !aligned
        {
            return Err(EngineError::Corrupted("the positions of the ring"));
        }
        Ok(Used { hot, overflow, items })
    }

    /// Takes a lock of the ring. If its owner died inside, there is nothing to repair (invariant 3).
    #[inline]
    fn lock<L: Locked>(
        &self,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<Held<'_, L>, EngineError> {
        let lock = L::lock(self.control);
        // The deadline is made only if there is something to wait for: the clock costs more than
        // the lock.
        let me = self.members.me();
        if !lock.take_free(me) {
            lock.lock(self.members, self.control.fences(), deadline(), LOCK_RECHECK)
                .map_err(|Busy| self.stalled())?;
        }
        Ok(Held { control: self.control, me, side: PhantomData })
    }

    /// No memory can be reserved without the descriptor of the region, either.
    #[cold]
    fn cause_of(&self, error: EngineError) -> EngineError {
        if error == EngineError::OutOfMemory && self.members.is_cut_off() {
            EngineError::CutOff
        } else {
            error
        }
    }

    /// Why a lock could not be had: its owner lives, or nobody can tell any more whether it does.
    #[cold]
    fn stalled(&self) -> EngineError {
        if self.members.is_cut_off() { EngineError::CutOff } else { EngineError::Stalled }
    }

    fn blocks(&self) -> BlockTable<'_, M> {
        BlockTable { control: &self.control.blocks.blocks, memory: self.members }
    }

    #[inline]
    fn offset(&self, position: u64) -> usize {
        let mask = self.hot.len() as u64 - 1;
        usize::try_from(position & mask).unwrap_or(0)
    }

    /// Copies in at `at`, going on at the start where the hot ring ends.
    #[inline]
    fn copy_in(&self, at: usize, item: &[u8]) {
        let hot = &self.hot;
        let (first, rest) = item.split_at(item.len().min(hot.len() - at));
        hot.copy_in(at, first);
        if !rest.is_empty() {
            hot.copy_in(0, rest);
        }
    }

    /// Copies out from `at`, going on at the start where the hot ring ends.
    #[inline]
    fn append_to(&self, at: usize, length: usize, item: &mut Vec<u8>) {
        let hot = &self.hot;
        let first = length.min(hot.len() - at);
        hot.append_to(at, first, item);
        if first < length {
            hot.append_to(0, length - first, item);
        }
    }
}

/// Names the side whose lock it is. By a type, so that [`Held`] is no more than one pointer: put and
/// get take longer with two.
trait Locked {
    fn lock(control: &Control) -> &OwnerLock;
}

enum Producers {}
enum Consumers {}

impl Locked for Producers {
    #[inline]
    fn lock(control: &Control) -> &OwnerLock {
        &control.producers.lock
    }
}

impl Locked for Consumers {
    #[inline]
    fn lock(control: &Control) -> &OwnerLock {
        &control.consumers.lock
    }
}

/// A lock of the ring that this thread holds. Dropping it releases the lock, also when a panic unwinds
/// through the operation: as after a death, there is nothing to repair (invariant 3).
#[must_use = "the lock is released as soon as this is dropped"]
struct Held<'a, L: Locked> {
    control: &'a Control,
    me: MemberId,
    side: PhantomData<L>,
}

impl<L: Locked> Held<'_, L> {
    /// Releases the lock. What was committed is visible to other members before they go to sleep.
    #[inline]
    fn release(self) -> LightFence {
        ManuallyDrop::new(self).unlock()
    }

    #[inline]
    fn unlock(&self) -> LightFence {
        let lock = L::lock(self.control);
        lock.free(self.me);
        let passed = self.control.fences().light();
        lock.wake(passed);
        passed
    }
}

impl<L: Locked> Drop for Held<'_, L> {
    #[inline]
    fn drop(&mut self) {
        // In a model, a panic stands for the death of a process, which releases nothing.
        if cfg!(loom) && std::thread::panicking() {
            return;
        }
        self.unlock();
    }
}

/// What came of an attempt to get.
struct Got {
    count: usize,
    /// Where consumers and producers are in the overflow ring, if it may be time to trim it.
    trim: Option<(u64, u64)>,
}

/// Where a frame is, or can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Hot,
    Overflow,
    Full(Put),
}

#[derive(Clone, Copy)]
struct Used {
    hot: u64,
    overflow: u64,
    items: u64,
}

fn saturating_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::memory::Store;

    /// A queue in shared memory, with room for some items in the hot ring and for more behind it.
    fn store() -> Store {
        Store::create("", None, 1 << 20, None).unwrap()
    }

    fn ring<'a>(store: &'a Store, pace: &'a Pace) -> Ring<'a, Store> {
        let (puts, gets) = (pace, pace);
        let (control, limits, hot) = (store.region.control(), store.limits, store.hot());
        Ring { control, limits, hot, puts, gets, members: store }
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(100))
    }

    fn put(ring: &Ring<'_, Store>, item: &[u8]) {
        let items = Items { bytes: item, start: 0, ends: &[item.len()] };
        assert_eq!(ring.try_put(items, None, soon), Ok((1, Put::Done)));
    }

    /// Takes as many items as it is told to, and refuses the next one, or panics.
    struct Few {
        bytes: Vec<u8>,
        left: usize,
        panics: bool,
    }

    impl Few {
        fn new(left: usize) -> Self {
            Self { bytes: Vec::new(), left, panics: false }
        }
    }

    impl Sink for Few {
        fn takes_more(&self) -> bool {
            true
        }

        fn buffer(&mut self) -> &mut Vec<u8> {
            &mut self.bytes
        }

        fn finish_item(&mut self, _: &Header) -> Result<(), EngineError> {
            assert!(!self.panics, "asked to");
            self.left = self.left.checked_sub(1).ok_or(EngineError::TooManyTasks)?;
            Ok(())
        }
    }

    /// Counts what becomes of the packet of an item.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Lane {
        copied: u32,
        forgotten: u32,
        removed: u32,
    }

    impl Incoming for Lane {
        fn copy(&mut self, _: u32) -> Result<(), EngineError> {
            self.copied += 1;
            Ok(())
        }

        fn forget(&mut self) {
            self.forgotten += 1;
        }

        fn remove(&mut self) {
            self.removed += 1;
        }
    }

    /// A parcel that is sent, or panics.
    struct OutgoingFds {
        panics: bool,
    }

    impl Outgoing for OutgoingFds {
        fn send(&mut self, _: u32) -> Result<Put, EngineError> {
            assert!(!self.panics, "asked to");
            Ok(Put::Done)
        }
    }

    /// In both rings: 300,000 bytes do not fit into the hot one.
    const LENGTHS: [usize; 2] = [5, 300_000];

    #[test]
    fn an_item_that_the_sink_refuses_stays_in_the_queue() {
        for length in LENGTHS {
            let (store, pace) = (store(), Pace::default());
            let ring = ring(&store, &pace);
            let items = [1, 2, 3].map(|n| vec![n; length]);
            items.iter().for_each(|item| put(&ring, item));

            let mut sink = Few::new(0);
            let mut lane = Lane::default();
            let refused = ring.try_get(&mut sink, &mut lane, soon);
            assert_eq!((refused, ring.len()), (Err(EngineError::TooManyTasks), 3));
            assert!(sink.bytes.is_empty());

            // What it takes before counts.
            let mut sink = Few::new(2);
            assert_eq!(ring.try_get(&mut sink, &mut lane, soon), Ok(2));
            assert_eq!(ring.len(), 1);
            assert!(sink.bytes == items[..2].concat());
            let mut sink = Few::new(1);
            assert_eq!(ring.try_get(&mut sink, &mut lane, soon), Ok(1));
            assert!(sink.bytes == items[2]);
            assert_eq!(ring.len(), 0);
        }
    }

    #[test]
    fn the_packet_of_a_refused_item_stays_in_the_lane() {
        let (store, pace) = (store(), Pace::default());
        let ring = ring(&store, &pace);
        let items = Items { bytes: &[1], start: 0, ends: &[1] };
        let fds = &mut OutgoingFds { panics: false };
        assert_eq!(ring.try_put(items, Some(fds), soon), Ok((1, Put::Done)));
        let mut lane = Lane::default();
        assert!(ring.try_get(&mut Few::new(0), &mut lane, soon).is_err());
        assert_eq!(lane, Lane { copied: 1, forgotten: 1, removed: 0 });
        assert_eq!(ring.try_get(&mut Few::new(1), &mut lane, soon), Ok(1));
        assert_eq!(lane, Lane { copied: 2, forgotten: 1, removed: 1 });
    }

    #[test]
    fn a_panic_under_a_lock_releases_it() {
        let (store, pace) = (store(), Pace::default());
        let ring = ring(&store, &pace);
        put(&ring, &[1]);
        let panics = |act: &mut dyn FnMut()| {
            assert!(catch_unwind(AssertUnwindSafe(act)).is_err());
            assert_eq!(ring.control.producers.lock.owner(), None);
            assert_eq!(ring.control.consumers.lock.owner(), None);
        };
        panics(&mut || {
            let items = Items { bytes: &[2], start: 0, ends: &[1] };
            let _ = ring.try_put(items, Some(&mut OutgoingFds { panics: true }), soon);
        });
        panics(&mut || {
            let mut sink = Few { panics: true, ..Few::new(1) };
            let _ = ring.try_get(&mut sink, &mut Lane::default(), soon);
        });
        panics(&mut || ring.as_consumer(|| panic!("asked to")));
        // Neither has put or taken anything, and both sides go on.
        assert_eq!(ring.len(), 1);
        put(&ring, &[2]);
        let mut sink = Few::new(2);
        while sink.left > 0 {
            ring.try_get(&mut sink, &mut Lane::default(), soon).unwrap();
        }
        assert_eq!(sink.bytes, [1, 2]);
        panics(&mut || _ = ring.while_empty(|| panic!("asked to")));
        put(&ring, &[3]);
    }
}
