//! Getting items: everything that happens under the consumers' lock.

use multiproc_shm::Deadline;
use multiproc_shm::failpoint;
use multiproc_shm::members::Members;

use super::control::{Control, NOW};
use super::error::EngineError;
use super::frame::{HEADER, Header, size};
use super::overflow::{BLOCK, Memory};
use super::put::Place;
use super::ring::{Ring, Used, saturating_u32};
use super::side::Cursor;
use super::side_lock::Consumers;

/// The descriptors of an item, to be received from the lane.
pub(crate) trait Incoming {
    /// Copies the descriptors of the packet with this tag, and discards older packets.
    fn copy(&mut self, tag: u32) -> Result<(), EngineError>;

    /// Drops the copies: the item stays in the queue, and its packet in the lane.
    fn forget(&mut self);

    /// Removes the packet that was copied.
    fn remove(&mut self);
}

/// The destination of items.
pub(crate) trait Sink {
    /// Returns `true` if it takes another item.
    fn takes_more(&self) -> bool;

    /// Returns the buffer to which the next item is appended.
    fn buffer(&mut self) -> &mut Vec<u8>;

    /// Called when an item is complete, with the header of its frame. After an error, the item
    /// stays in the queue and is removed from the buffer.
    fn finish_item(&mut self, header: &Header) -> Result<(), EngineError>;
}

/// Takes one item.
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

/// The result of an attempt to get.
struct Got {
    count: usize,
    /// The positions of consumers and producers in the overflow ring, if it may be time to trim
    /// it.
    trim: Option<(u64, u64)>,
}

impl<M: Members + Memory> Ring<'_, M> {
    /// Gets as many items as are queued and the sink takes. Returns how many. The deadline applies
    /// to the lock alone.
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
        let mut tail = consumers.cached_peer();
        let has_item = |used: Used| used.items > 0;
        let mut used = self.used(head, tail).ok().filter(|&used| has_item(used));
        if used.is_none() {
            tail = producers.observe().ok_or(EngineError::Corrupted("the producers' epoch"))?;
            used = Some(self.used(head, tail)?).filter(|&used| has_item(used));
            self.gets.found(used.map_or(0, |used| used.items), self.limits.capacity);
            consumers.cache_peer(tail);
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
                // The items before it are got. The next attempt meets the error again, and returns
                // it.
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

    /// Copies the item at `next`, advances `next`, and returns the item's tag. On an error, also of
    /// the sink, `next`, the sink's buffer and the lane are as before.
    ///
    /// An item with descriptors is got alone, because its packet can be removed only after the
    /// commit.
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
        // From here on the item is taken. Until here, nothing was changed.
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

    /// Returns the next frame: the one with the next number, in whichever ring it is.
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
}
