//! The hot ring: frames in a circle of bytes, two sides, each with a lock and a commit word.
//!
//! # A frame
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | sequence number, little-endian `u64`: how many frames were put before |
//! | 8..12 | length of the item, little-endian `u32` |
//! | 12..16 | 0 |
//! | 16.. | the item; then nothing up to the next multiple of 16 |
//!
//! Frames start at multiples of 16, so a header is never cut by the end of the ring; an item may be.
//!
//! # Invariants
//!
//! 1. The bytes from the consumers' position to the producers' position hold the frames with the
//!    numbers from the consumers' count to the producers' count. Only consumers read there.
//! 2. All other bytes are free; only producers write there.
//! 3. Both positions change by a commit of their side (see [`side`](super::side)), under its lock.
//!    So a producer that dies anywhere has put nothing or everything, and a consumer likewise.
//! 4. The locks are not held while anybody waits, encodes or decodes.
//!
//! The shape of the two counters is Lamport's ("Specifying Concurrent Program Modules", 1983), with
//! a lock a side in front of it, and the commit word in place of the counter.

use std::time::Duration;

use multiproc_pipe::Deadline;
use multiproc_sync::RECHECK;
use multiproc_sync::fault;
#[cfg(not(loom))]
use multiproc_sync::placed;
use multiproc_sync::primitives::{AtomicU64, Bytes, fence_after_rmw};
use multiproc_sync::raw::Busy;
use multiproc_sync::raw::lock::{Lock, Taken};
use multiproc_sync::raw::members::Members;
use multiproc_sync::raw::waiters::Waiters;

use super::side::{Mark, Side};

/// How often one who waits for a lock of the ring looks whether its holder is alive. The locks are
/// held for less than a microsecond, so whoever waits longer has most likely met a dead one.
const LOCK_RECHECK: Duration = Duration::from_millis(10);

const ALIGN: usize = 16;
const HEADER: usize = 16;

/// The control block: what the members of a queue share, beside the bytes.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Control {
    producers: Side,
    consumers: Side,
    not_empty: NotEmpty,
    not_full: NotFull,
    /// How many items there may be. Each handle keeps the number it read when it was opened.
    pub(crate) capacity: AtomicU64,
}

/// Where consumers wait, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct NotEmpty {
    waiters: Waiters,
}

/// Where producers wait, on a cache line of its own. For a place, any of them is the right one to
/// wake. For bytes, the one that is woken may need more than there are, and another one less: so
/// all of those are woken.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct NotFull {
    places: Waiters,
    bytes: Waiters,
}

/// What came of an attempt to put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Done,
    /// There are as many items as there may be.
    NoPlace,
    /// The item needs more bytes than are free.
    NoBytes,
}

#[cfg(not(loom))]
placed!(NotEmpty { waiters });
#[cfg(not(loom))]
placed!(NotFull { places, bytes });
#[cfg(not(loom))]
placed!(Control { producers, consumers, not_empty, not_full, capacity });

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Control, producers) == 0 && offset_of!(Control, consumers) == 256);
    assert!(offset_of!(Control, not_empty) == 512 && offset_of!(Control, not_full) == 640);
    assert!(offset_of!(Control, capacity) == 768 && size_of::<Control>() == 896);
};

impl Control {
    /// The time of everybody who sleeps runs out, for models.
    #[cfg(loom)]
    pub(crate) fn time_out(&self) {
        self.producers.lock.futex().time_out();
        self.consumers.lock.futex().time_out();
        self.not_empty.waiters.futex().time_out();
        self.not_full.places.futex().time_out();
        self.not_full.bytes.futex().time_out();
    }

    /// Lets go of the locks of a dead member. Nothing else of it remains.
    pub(crate) fn release_slot(&self, slot: usize) {
        self.producers.lock.release_slot(slot);
        self.consumers.lock.release_slot(slot);
    }
}

/// The ring of a queue, seen by one member.
pub(crate) struct Ring<'a, M> {
    pub(crate) control: &'a Control,
    /// A power of two, so that a position's offset is a mask away.
    pub(crate) bytes: Bytes<'a>,
    pub(crate) capacity: u64,
    pub(crate) members: &'a M,
}

/// Why an operation came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The deadline passed while a living process, most likely a stopped one, held a lock.
    Stalled,
    /// The shared memory holds what no member writes.
    Corrupted(&'static str),
}

impl<M: Members> Ring<'_, M> {
    /// The longest item that fits.
    pub(crate) fn longest_item(&self) -> usize {
        self.bytes.len() - HEADER
    }

    /// Puts an item, if there is room. The deadline is for the lock alone.
    #[inline]
    pub(crate) fn try_put(
        &self,
        item: &[u8],
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<Put, Fault> {
        let side = &self.control.producers;
        self.lock(&side.lock, deadline)?;
        fault::reached("put.locked");
        let result = self.put_locked(item);
        self.unlock(&side.lock);
        fault::reached("put.unlocked");
        if result == Ok(Put::Done) {
            self.control.not_empty.waiters.notify_one();
        }
        result
    }

    /// Puts an item, waiting for room. False: there was none in time.
    #[inline]
    pub(crate) fn put(&self, item: &[u8], deadline: Deadline) -> Result<bool, Fault> {
        match self.try_put(item, || deadline)? {
            Put::Done => Ok(true),
            full => self.put_contended(item, full, deadline),
        }
    }

    #[cold]
    fn put_contended(&self, item: &[u8], mut full: Put, deadline: Deadline) -> Result<bool, Fault> {
        let NotFull { places, bytes } = &self.control.not_full;
        loop {
            // Waits until it is done, or what is missing is something else.
            let waiters = if full == Put::NoPlace { places } else { bytes };
            let waited = waiters.wait_until(deadline, RECHECK, |_| {
                let result = self.try_put(item, || deadline);
                (result != Ok(full)).then_some(result)
            });
            if full == Put::NoPlace && waited.slept && self.len() < self.capacity {
                places.notify_one();
            }
            match waited.outcome {
                None => return Ok(false),
                Some(Ok(Put::Done)) => return Ok(true),
                Some(other) => full = other?,
            }
        }
    }

    /// Appends the next item to `item`, if there is one. The deadline is for the lock alone.
    #[inline]
    pub(crate) fn try_get(
        &self,
        item: &mut Vec<u8>,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<bool, Fault> {
        let side = &self.control.consumers;
        self.lock(&side.lock, deadline)?;
        fault::reached("get.locked");
        let result = self.get_locked(item);
        self.unlock(&side.lock);
        fault::reached("get.unlocked");
        if result == Ok(true) {
            self.control.not_full.places.notify_one();
            self.control.not_full.bytes.notify_all();
        }
        result
    }

    /// Appends the next item to `item`, waiting for one. False: there was none in time.
    #[inline]
    pub(crate) fn get(&self, item: &mut Vec<u8>, deadline: Deadline) -> Result<bool, Fault> {
        match self.try_get(item, || deadline) {
            Ok(false) => self.get_contended(item, deadline),
            result => result,
        }
    }

    #[cold]
    fn get_contended(&self, item: &mut Vec<u8>, deadline: Deadline) -> Result<bool, Fault> {
        let empty = &self.control.not_empty.waiters;
        let waited = empty.wait_until(deadline, RECHECK, |_| done(self.try_get(item, || deadline)));
        if waited.slept && self.len() > 0 {
            empty.notify_one();
        }
        waited.outcome.unwrap_or(Ok(false))
    }

    /// How many items there are: a number that was true at one moment during the call.
    pub(crate) fn len(&self) -> u64 {
        let Control { producers, consumers, .. } = self.control;
        let count = |side: &Side| side.observe().map_or(0, |mark| mark.count);
        let mut before = count(consumers);
        // Few tries are needed: counts only grow, and each try takes some nanoseconds.
        for _ in 0..100 {
            let produced = count(producers);
            let after = count(consumers);
            if before == after {
                return produced.saturating_sub(after).min(self.capacity);
            }
            before = after;
        }
        count(producers).saturating_sub(before).min(self.capacity)
    }

    #[inline]
    fn put_locked(&self, item: &[u8]) -> Result<Put, Fault> {
        let Control { producers, consumers, .. } = self.control;
        let (epoch, tail) = producers.current();
        let size = frame_size(item.len());
        let room = |used: Used| {
            if used.items >= self.capacity {
                Put::NoPlace
            } else if self.bytes.len() as u64 - used.bytes < size {
                Put::NoBytes
            } else {
                Put::Done
            }
        };
        // What was seen last may be enough; if it is not (or is garbage), look again.
        if self.used(producers.seen(), tail).map(room) != Ok(Put::Done) {
            let head = consumers.observe().ok_or(Fault::Corrupted("the consumers' epoch"))?;
            let room = room(self.used(head, tail)?);
            if room != Put::Done {
                return Ok(room);
            }
            producers.see(head);
        }
        let at = self.offset(tail.position);
        self.bytes.copy_in(at, &header(tail.count, item.len()));
        fault::reached("put.half_written");
        self.copy_in(at + HEADER, item);
        fault::reached("put.written");
        producers.prepare(
            epoch,
            Mark { position: tail.position.wrapping_add(size), count: tail.count.wrapping_add(1) },
        );
        fault::reached("put.prepared");
        producers.commit(epoch);
        fault::reached("put.committed");
        Ok(Put::Done)
    }

    #[inline]
    fn get_locked(&self, item: &mut Vec<u8>) -> Result<bool, Fault> {
        let Control { producers, consumers, .. } = self.control;
        let (epoch, head) = consumers.current();
        let has_item = |used: Used| used.items > 0;
        let mut used = self.used(head, consumers.seen());
        if !used.is_ok_and(has_item) {
            let tail = producers.observe().ok_or(Fault::Corrupted("the producers' epoch"))?;
            used = self.used(head, tail);
            if !has_item(used?) {
                return Ok(false);
            }
            consumers.see(tail);
        }
        let at = self.offset(head.position);
        let (number, length) = parse(self.bytes.copy_out(at));
        if number != head.count {
            return Err(Fault::Corrupted("the sequence number of a frame"));
        }
        let size = frame_size(length);
        if size > used?.bytes {
            return Err(Fault::Corrupted("the length of a frame"));
        }
        self.append_to(at + HEADER, length, item);
        fault::reached("get.copied");
        consumers.prepare(
            epoch,
            Mark { position: head.position.wrapping_add(size), count: head.count.wrapping_add(1) },
        );
        fault::reached("get.prepared");
        consumers.commit(epoch);
        fault::reached("get.committed");
        Ok(true)
    }

    /// What lies between two marks, if they are any that members could have written.
    #[inline]
    fn used(&self, head: Mark, tail: Mark) -> Result<Used, Fault> {
        let bytes = tail.position.wrapping_sub(head.position);
        let items = tail.count.wrapping_sub(head.count);
        let aligned = (head.position | tail.position).is_multiple_of(ALIGN as u64);
        if bytes > self.bytes.len() as u64 || items > bytes / HEADER as u64 || !aligned {
            return Err(Fault::Corrupted("the positions of the ring"));
        }
        Ok(Used { bytes, items })
    }

    /// Takes a lock of the ring. Abandoned or not: there is nothing to repair (invariant 3).
    #[inline]
    fn lock(&self, lock: &Lock, deadline: impl FnOnce() -> Deadline) -> Result<(), Fault> {
        // The deadline is made only if there is something to wait for: the clock costs more than
        // the lock.
        if lock.take_free(self.members.me()) {
            return Ok(());
        }
        match lock.lock(self.members, deadline(), LOCK_RECHECK) {
            Ok(Taken::Clean | Taken::Abandoned) => Ok(()),
            Err(Busy) => Err(Fault::Stalled),
        }
    }

    /// Lets go of it; and after it, other members see what was committed before they go to sleep.
    #[inline]
    fn unlock(&self, lock: &Lock) {
        lock.unlock(Taken::Clean);
        fence_after_rmw();
    }

    #[inline]
    fn offset(&self, position: u64) -> usize {
        let mask = self.bytes.len() as u64 - 1;
        usize::try_from(position & mask).unwrap_or(0)
    }

    /// Copies in at `at`, going on at the start where the ring ends.
    #[inline]
    fn copy_in(&self, at: usize, item: &[u8]) {
        let (first, rest) = item.split_at(item.len().min(self.bytes.len() - at));
        self.bytes.copy_in(at, first);
        if !rest.is_empty() {
            self.bytes.copy_in(0, rest);
        }
    }

    /// Copies out from `at`, going on at the start where the ring ends.
    #[inline]
    fn append_to(&self, at: usize, length: usize, item: &mut Vec<u8>) {
        let first = length.min(self.bytes.len() - at);
        self.bytes.append_to(at, first, item);
        if first < length {
            self.bytes.append_to(0, length - first, item);
        }
    }
}

#[derive(Clone, Copy)]
struct Used {
    bytes: u64,
    items: u64,
}

fn frame_size(length: usize) -> u64 {
    (HEADER + length).next_multiple_of(ALIGN) as u64
}

#[inline]
fn header(number: u64, length: usize) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    // Items longer than the ring are refused before.
    bytes[8..12].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    bytes
}

/// Sequence number and length.
#[inline]
fn parse(bytes: [u8; HEADER]) -> (u64, usize) {
    let [n0, n1, n2, n3, n4, n5, n6, n7, l0, l1, l2, l3, ..] = bytes;
    let number = u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
    (number, u32::from_le_bytes([l0, l1, l2, l3]) as usize)
}

/// For [`Waiters::wait_until`]: waiting ends with success or failure, but not with "not now".
fn done(result: Result<bool, Fault>) -> Option<Result<bool, Fault>> {
    (result != Ok(false)).then_some(result)
}
