//! Putting items: everything that happens under the producers' lock.

use multiproc_shm::Deadline;
use multiproc_shm::failpoint;
use multiproc_shm::members::Members;
use multiproc_shm::primitives::{Ordering, load_locked};

use super::control::{Control, DRAIN, FINISHING, NOW, OPEN};
use super::error::EngineError;
use super::frame::{HEADER, Header, size};
use super::overflow::{BLOCK, Memory};
use super::ring::{Ring, Used, saturating_u32};
use super::side::Cursor;
use super::side_lock::Producers;

/// The result of an attempt to put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Done,
    /// The capacity is used up.
    NoPlace,
    /// The item needs more bytes, or more room in the descriptor lane, than are free.
    NoBytes,
    /// The user has as many descriptors in flight, in all queues and sockets, as the kernel allows.
    NoDescriptors,
}

/// Items to put, one after the other in `bytes`, beginning at `start`. `ends` contains the end of
/// each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Items<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) start: usize,
    pub(crate) ends: &'a [usize],
}

impl Items<'_> {
    /// Returns the items after the first `count`.
    pub(super) fn after(self, count: usize) -> Self {
        let start = count.checked_sub(1).map_or(self.start, |last| self.ends[last]);
        Self { start, ends: &self.ends[count..], ..self }
    }
}

/// The descriptors of an item, to be sent into the lane.
pub(crate) trait Outgoing {
    /// Sends them as one packet, if there is room for it.
    fn send(&mut self, tag: u32) -> Result<Put, EngineError>;
}

/// Where a frame is, or can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Hot,
    Overflow,
    Full(Put),
}

impl<M: Members + Memory> Ring<'_, M> {
    /// Puts as many of the items as there is room for. Returns how many, and why not more. The
    /// deadline applies to the lock alone. Descriptors require that there is only one item.
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

    #[inline]
    fn put_locked(
        &self,
        items: Items<'_>,
        mut fds: Option<&mut dyn Outgoing>,
    ) -> Result<(usize, Put), EngineError> {
        let producers = &self.control.producers;
        let state = self.control.state();
        if state != OPEN {
            self.reopen(state)?;
        }
        let (epoch, tail) = producers.current();
        let mut head = producers.cached_peer();
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
                // The items before it are put. The next attempt meets the error again, and returns
                // it.
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

    /// Called if the state is not `OPEN`. Returns an error if nothing can be put. Otherwise the
    /// previous owner of the lock died while it finished a task, and this settles it.
    #[cold]
    pub(super) fn reopen(&self, state: u32) -> Result<(), EngineError> {
        if state & (DRAIN | NOW) != 0 {
            return Err(EngineError::Closed);
        }
        if state & !FINISHING != OPEN {
            return Err(EngineError::Disconnected);
        }
        self.settle();
        Ok(())
    }

    /// Writes the frame of an item at `next`, and advances `next`.
    #[inline]
    pub(super) fn put_one(
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
        // Items that are too long for a frame were refused before.
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

    /// Returns where there is room for a frame. `head` is the cached position of the consumers. If
    /// it does not suffice, or is invalid, it is read again.
    #[inline]
    fn place(&self, head: &mut Cursor, tail: Cursor, size: u64) -> Result<Place, EngineError> {
        if let Ok(used) = self.used(*head, tail) {
            let place = self.room(used, size);
            // While there is a backlog, one check per block is enough.
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
        producers.cache_peer(*head);
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

    /// Reserves the memory of the hot ring, in the first round.
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

    /// Returns a tag that no packet in the lane has. It is used up before the packet is sent.
    fn next_tag(&self) -> u32 {
        let packets = &self.control.blocks.packets;
        let number = load_locked(packets);
        packets.store(number.wrapping_add(1), Ordering::Relaxed);
        u32::try_from(number % u64::from(u32::MAX) + 1).unwrap_or(1)
    }
}
