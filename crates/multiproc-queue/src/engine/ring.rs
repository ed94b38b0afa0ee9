//! The queue: two rings of frames, and two sides, each with a lock and a committed state.
//!
//! The **hot ring** is a circular buffer that stays in a core's cache. While it has no room, items
//! go into the **overflow ring**, an endless stream in [blocks](super::overflow) of memory. The
//! next item is the frame with the next number, in whichever ring it is.
//!
//! # Invariants
//!
//! 1. In each ring, the bytes from the consumers' position to the producers' position hold frames
//!    in the order of their numbers. Together they hold every number from the consumers' count to
//!    the producers' count. Only consumers read there.
//! 2. All other bytes are free. Only producers write there.
//! 3. Positions and count change by a commit of their side (see [`side`](super::side)), under its
//!    lock. So a producer that dies at any point has put an item entirely or not at all, and the
//!    same holds for a consumer.
//! 4. The locks are not held while a process waits, encodes or decodes.
//! 5. An item's descriptors are in the lane before its frame is committed, under a tag that no
//!    other attempt uses. The consumer removes them after it has committed. So a packet that
//!    belongs to no frame has a tag that is older than that of the next frame, or is being put.
//!
//! # Source
//!
//! The two counters follow Lamport, "Specifying Concurrent Program Modules" (1983). Here, each side
//! has a lock in front of its counter, and a committed state in place of the counter.

use multiproc_shm::members::Members;
use multiproc_shm::primitives::Bytes;

use super::control::Control;
use super::error::EngineError;
use super::frame::ALIGN;
use super::overflow::{BlockTable, Memory};
use super::pacing::Pace;
use super::side::Cursor;

/// The limits of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) capacity: u64,
    /// The maximum number of bytes of all frames: see [`size`](super::frame::size).
    pub(crate) bytes: u64,
}

/// The rings of a queue, as one member sees them.
pub(crate) struct Ring<'a, M> {
    pub(crate) control: &'a Control,
    pub(crate) limits: Limits,
    /// The hot ring. Its length is a power of two, so that an offset is a masked position.
    pub(crate) hot: Bytes<'a>,
    /// When this handle reads the other side's state: for room, and for items.
    pub(crate) puts: &'a Pace,
    pub(crate) gets: &'a Pace,
    pub(crate) members: &'a M,
}

impl<M: Members + Memory> Ring<'_, M> {
    /// Returns what is between two cursors, or an error if members cannot have written them.
    #[inline]
    pub(super) fn used(&self, head: Cursor, tail: Cursor) -> Result<Used, EngineError> {
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

    /// Without the descriptor of the region, memory cannot be reserved either.
    #[cold]
    pub(super) fn cause_of(&self, error: EngineError) -> EngineError {
        if error == EngineError::OutOfMemory && self.members.is_cut_off() {
            EngineError::CutOff
        } else {
            error
        }
    }

    pub(super) fn blocks(&self) -> BlockTable<'_, M> {
        BlockTable { control: &self.control.blocks.blocks, memory: self.members }
    }

    #[inline]
    pub(super) fn offset(&self, position: u64) -> usize {
        let mask = self.hot.len() as u64 - 1;
        usize::try_from(position & mask).unwrap_or(0)
    }

    /// Copies `item` to `at`, continuing at the start where the hot ring ends.
    #[inline]
    pub(super) fn copy_in(&self, at: usize, item: &[u8]) {
        let hot = &self.hot;
        let (first, rest) = item.split_at(item.len().min(hot.len() - at));
        hot.copy_in(at, first);
        if !rest.is_empty() {
            hot.copy_in(0, rest);
        }
    }

    /// Appends bytes from `at` to `item`, continuing at the start where the hot ring ends.
    #[inline]
    pub(super) fn append_to(&self, at: usize, length: usize, item: &mut Vec<u8>) {
        let hot = &self.hot;
        let first = length.min(hot.len() - at);
        hot.append_to(at, first, item);
        if first < length {
            hot.append_to(0, length - first, item);
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Used {
    pub(super) hot: u64,
    pub(super) overflow: u64,
    pub(super) items: u64,
}

#[inline]
pub(super) fn saturating_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests;
