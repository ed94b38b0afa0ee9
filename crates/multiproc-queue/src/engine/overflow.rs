//! The blocks of the overflow ring: which piece of memory holds which piece of its stream.
//!
//! The stream of frames is endless, and cut into blocks. The table says for each block of the stream
//! that is in use which block of memory it is in: the entry of block `n` is `n` modulo its length.
//! So memory is taken as the stream grows, used again as soon as it is read, and given back, all in
//! whole blocks, while frames lie as if they were in one long row.
//!
//! # The state
//!
//! | word | meaning |
//! |---|---|
//! | frontier | blocks of the stream up to here have memory |
//! | free | blocks of the stream from here to the consumers' position have been read, and their memory is free |
//! | fresh | blocks of memory from here on were not taken since the last trim |
//! | skip | but this one (plus 1), which was in use at the last trim; 0 is none |
//!
//! # Invariants
//!
//! 1. All of it is written by the holder of the producers' lock alone, and the state by a commit
//!    (see [`side`](super::side)): a producer that dies in between has taken a block, or has not.
//! 2. Entries from `free` to `frontier` name different blocks of memory. An entry is written only
//!    at the frontier, so consumers, who read below the producers' position, see it in place.
//! 3. Memory is reserved before it is in the table: writing to it cannot fail.

use std::time::Duration;

use multiproc_shm::failpoint;
#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Bytes, Ordering, load_locked};

use super::committed::Committed;
use super::error::EngineError;

/// The length of a block: large enough that the system calls for one are little against filling it.
#[cfg(not(loom))]
pub(crate) const BLOCK: u64 = 64 * 1024;
/// In models, two frames of 32 bytes.
#[cfg(loom)]
pub(crate) const BLOCK: u64 = 64;

/// As many blocks stay warm when the queue has run empty.
pub(crate) const RESERVE: u64 = if cfg!(loom) { 1 } else { 16 };

/// So many more blocks than there are in use may be free, before some are given back although
/// the queue is not empty.
const MANY: u64 = if cfg!(loom) { 2 } else { 1024 };

/// So many are given back at a time: under a lock, and it takes some microseconds a block.
const PIECE: u64 = if cfg!(loom) { 1 } else { 128 };

/// How often at most the memory of a queue that runs empty is given back: taking it again costs more
/// than filling it.
const INTERVAL: Duration = Duration::from_millis(100);

/// The memory behind the rings.
pub(crate) trait Memory {
    /// Makes sure of the first `len` bytes of the hot ring. False: there is no memory left.
    fn reserve_hot(&self, len: u64) -> bool;

    /// Where the blocks of the stream are. Its length is a power of two, or 0.
    fn table(&self) -> &[AtomicU32];

    /// The blocks, one after the other.
    fn blocks(&self) -> Bytes<'_>;

    /// How many bytes the blocks are.
    fn blocks_len(&self) -> u64;

    /// Makes sure of a block. False: there is no memory left.
    fn reserve(&self, block: u64) -> bool;

    /// Gives the memory of some blocks in a row back; what is in them is lost.
    fn give_back(&self, first: u64, count: u64);

    /// The time, from any point on, the same for all members.
    fn now(&self) -> Duration;
}

/// What the members share of it, beside table and blocks.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Control {
    state: Committed<4>,
    /// Blocks of the stream below it may have been given back, if they are free: it grows before they
    /// are.
    trimmed: AtomicU64,
    /// When the queue last ran empty and gave memory back, in ms. A hint.
    trimmed_at: AtomicU64,
}

#[cfg(not(loom))]
placed!(Control { state, trimmed, trimmed_at });

#[derive(Debug, Clone, Copy)]
struct State {
    frontier: u64,
    free: u64,
    fresh: u64,
    skip: u64,
}

impl State {
    fn words(self) -> [u64; 4] {
        [self.frontier, self.free, self.fresh, self.skip]
    }

    /// The first block of memory that was not taken since the last trim.
    fn next_fresh(self) -> u64 {
        self.fresh.wrapping_add(u64::from(self.fresh.wrapping_add(1) == self.skip))
    }

    /// Blocks that have been read and whose memory is not used again.
    fn free_blocks(self, head: u64) -> u64 {
        (head / BLOCK).min(self.frontier).saturating_sub(self.free)
    }
}

impl From<[u64; 4]> for State {
    fn from([frontier, free, fresh, skip]: [u64; 4]) -> Self {
        Self { frontier, free, fresh, skip }
    }
}

/// The blocks, as a member sees them.
pub(crate) struct BlockTable<'a, M> {
    pub(crate) control: &'a Control,
    pub(crate) memory: &'a M,
}

impl<M: Memory> BlockTable<'_, M> {
    /// How many blocks of memory there can be.
    fn count(&self) -> u64 {
        self.memory.blocks_len() / BLOCK
    }

    fn entry(&self, block: u64) -> Result<&AtomicU32, EngineError> {
        let table = self.memory.table();
        let index = block & (table.len() as u64).wrapping_sub(1);
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        table.get(index).ok_or(EngineError::Corrupted("the overflow ring"))
    }

    /// Where a position of the stream is in memory, and how many bytes of its block are left.
    fn locate(&self, position: u64) -> Result<(usize, usize), EngineError> {
        let block = u64::from(self.entry(position / BLOCK)?.load(Ordering::Relaxed));
        if block >= self.count() {
            return Err(EngineError::Corrupted("the table of blocks"));
        }
        let offset = position % BLOCK;
        // Both are below the length of the blocks, which are mapped.
        let number = |n| usize::try_from(n).unwrap_or(0);
        Ok((number(block * BLOCK + offset), number(BLOCK - offset)))
    }

    /// Copies in at a position, which has memory: see [`extend`](Self::extend).
    pub(crate) fn copy_in(&self, mut position: u64, mut bytes: &[u8]) -> Result<(), EngineError> {
        while !bytes.is_empty() {
            let (at, left) = self.locate(position)?;
            let (first, rest) = bytes.split_at(bytes.len().min(left));
            self.memory.blocks().copy_in(at, first);
            position = position.wrapping_add(first.len() as u64);
            bytes = rest;
        }
        Ok(())
    }

    /// Appends what is at a position to `target`.
    pub(crate) fn append_to(
        &self,
        mut position: u64,
        mut length: usize,
        target: &mut Vec<u8>,
    ) -> Result<(), EngineError> {
        while length > 0 {
            let (at, left) = self.locate(position)?;
            let first = length.min(left);
            self.memory.blocks().append_to(at, first, target);
            position = position.wrapping_add(first as u64);
            length -= first;
        }
        Ok(())
    }

    /// Copies out what is at a position: a header, which is in one block.
    pub(crate) fn copy_out<const N: usize>(&self, position: u64) -> Result<[u8; N], EngineError> {
        let (at, _) = self.locate(position)?;
        Ok(self.memory.blocks().copy_out(at))
    }

    /// Makes sure that the stream has memory for `size` bytes behind `tail`.
    ///
    /// Under the producers' lock. `head` is the consumers' position, `tail` the producers'.
    pub(crate) fn extend(&self, head: u64, tail: u64, size: u64) -> Result<(), EngineError> {
        let end = tail.wrapping_add(size);
        self.reserve_again(tail, end)?;
        let (mut epoch, words) = self.control.state.current();
        let mut state = State::from(words);
        let missing = end.div_ceil(BLOCK).saturating_sub(state.frontier);
        if missing > self.count() {
            // It would take them round and round.
            return Err(EngineError::Corrupted("the blocks of the overflow ring"));
        }
        // The number of rounds is known before the first one: what somebody else writes into the state
        // meanwhile does not prolong the loop.
        for _ in 0..missing {
            // Most often it has been used just now, and its memory is still there.
            let has_free = state.free_blocks(head) > 0;
            let is_warm = has_free && state.free >= load_locked(&self.control.trimmed);
            let block = if has_free {
                let block = u64::from(self.entry(state.free)?.load(Ordering::Relaxed));
                state.free = state.free.wrapping_add(1);
                block
            } else {
                let block = state.next_fresh();
                state.fresh = block.wrapping_add(1);
                block
            };
            if block >= self.count() {
                // There is one for every byte that may be in use.
                return Err(EngineError::Corrupted("the blocks of the overflow ring"));
            }
            if !is_warm && !self.memory.reserve(block) {
                return Err(EngineError::OutOfMemory);
            }
            failpoint::reached("put.block_reserved");
            let number = u32::try_from(block).unwrap_or(u32::MAX);
            self.entry(state.frontier)?.store(number, Ordering::Relaxed);
            state.frontier = state.frontier.wrapping_add(1);
            self.control.state.prepare(epoch, state.words());
            failpoint::reached("put.block_prepared");
            self.control.state.commit(epoch);
            epoch = epoch.next();
            failpoint::reached("put.block_taken");
        }
        Ok(())
    }

    /// Makes sure of the blocks that were taken by an attempt to put that came to nothing: somebody
    /// may have died who was giving their memory back. Most often there are none.
    #[inline]
    fn reserve_again(&self, tail: u64, end: u64) -> Result<(), EngineError> {
        let (_, words) = self.control.state.current();
        let first = tail.div_ceil(BLOCK);
        for block in first..State::from(words).frontier.min(end.div_ceil(BLOCK)) {
            let place = u64::from(self.entry(block)?.load(Ordering::Relaxed));
            if place >= self.count() {
                return Err(EngineError::Corrupted("the table of blocks"));
            }
            if !self.memory.reserve(place) {
                return Err(EngineError::OutOfMemory);
            }
        }
        Ok(())
    }

    /// Whether it is time to [`trim`](Self::trim), when consumers have come to `head`, and the stream
    /// ends at `tail` as far as they know. Without the lock: a guess.
    pub(crate) fn is_time_to_trim(&self, head: u64, tail: u64) -> bool {
        let Some(state) = self.control.state.observe().map(State::from) else { return false };
        if head == tail {
            has_more_than_reserve(state, head) && self.is_interval_over()
        } else {
            has_too_many(state, head)
        }
    }

    /// Whether an empty stream that ends at `tail` has more memory than it keeps. Without the lock: a
    /// guess.
    pub(crate) fn has_more_than_reserve(&self, tail: u64) -> bool {
        let state = self.control.state.observe().map(State::from);
        state.is_some_and(|state| has_more_than_reserve(state, tail))
    }

    fn is_interval_over(&self) -> bool {
        let now = millis(self.memory.now());
        now.wrapping_sub(self.control.trimmed_at.load(Ordering::Relaxed)) >= millis(INTERVAL)
    }

    /// Gives memory back: all but a reserve, if the stream is empty; some of what is free, if that is
    /// far more than what is in use. What is given back can be taken again.
    ///
    /// Under the producers' lock. `head` is the consumers' position, `tail` the producers'.
    pub(crate) fn trim(&self, head: u64, tail: u64) -> Result<(), EngineError> {
        let (epoch, words) = self.control.state.current();
        let state = State::from(words);
        if head != tail {
            return if has_too_many(state, head) { self.trim_oldest(state, head) } else { Ok(()) };
        }
        // The block that the stream ends in keeps its memory; the count starts anew.
        let last = tail / BLOCK;
        let skip = match tail % BLOCK {
            0 => 0,
            _ => u64::from(self.entry(last)?.load(Ordering::Relaxed)) + 1,
        };
        if skip > self.count() {
            return Err(EngineError::Corrupted("the table of blocks"));
        }
        // One more than was taken: a producer may have died with it.
        let end = state.fresh.saturating_add(1).max(state.skip).max(skip).min(self.count());
        let frontier = last + u64::from(skip != 0);
        self.control.trimmed.store(last + 1, Ordering::Relaxed);
        let kept = if skip == 0 { end } else { skip - 1 };
        self.give_back(RESERVE, kept.min(end));
        self.give_back(skip.max(RESERVE), if skip == 0 { 0 } else { end });
        failpoint::reached("get.trimmed");
        let next = State { frontier, free: last, fresh: 0, skip };
        self.control.state.prepare(epoch, next.words());
        failpoint::reached("get.trim_prepared");
        self.control.state.commit(epoch);
        failpoint::reached("get.trim_committed");
        self.control.trimmed_at.store(millis(self.memory.now()), Ordering::Relaxed);
        Ok(())
    }

    fn give_back(&self, from: u64, to: u64) {
        if from < to {
            self.memory.give_back(from, to - from);
        }
    }

    /// Gives the memory of the blocks back that have been free for longest.
    #[cold]
    fn trim_oldest(&self, state: State, head: u64) -> Result<(), EngineError> {
        let from = load_locked(&self.control.trimmed).max(state.free);
        let to = from.saturating_add(PIECE).min(head / BLOCK);
        self.control.trimmed.store(to.max(from), Ordering::Relaxed);
        let mut run = 0..0;
        for block in from..to {
            let place = u64::from(self.entry(block)?.load(Ordering::Relaxed));
            if place >= self.count() {
                return Err(EngineError::Corrupted("the table of blocks"));
            }
            if place != run.end {
                self.give_back(run.start, run.end);
                run = place..place;
            }
            run.end += 1;
        }
        self.give_back(run.start, run.end);
        failpoint::reached("get.trimmed_some");
        self.control.trimmed.store(to.max(from), Ordering::Relaxed);
        Ok(())
    }
}

fn has_more_than_reserve(state: State, head: u64) -> bool {
    state.fresh.max(state.free_blocks(head)) > RESERVE
}

fn has_too_many(state: State, head: u64) -> bool {
    let in_use = state.frontier.saturating_sub(head / BLOCK);
    state.free_blocks(head) > in_use.saturating_add(MANY)
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
