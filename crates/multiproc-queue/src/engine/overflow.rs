//! The memory of the overflow ring: which block of memory holds which block of its stream.
//!
//! The stream of frames is endless, and divided into blocks, as virtual memory is into pages. A
//! table names the block of memory of each block of the stream that is in use: entry `n` modulo its
//! length is that of block `n`. So memory is reserved as the stream grows, reused as soon as it was
//! read, and released, all in whole blocks, while frames are stored as if they were in one long
//! row.
//!
//! # The state
//!
//! | word | meaning |
//! |---|---|
//! | frontier | blocks of the stream up to this one have memory |
//! | free | blocks of the stream from this one to the consumers' position are free |
//! | fresh | blocks of memory from this one on were not used since the last trim |
//! | skip | except this one (plus 1), which was in use at the last trim; 0 is none |
//!
//! # Invariants
//!
//! 1. All of it is written only by the owner of the producers' lock, and the state by a commit (see
//!    [`committed`](super::committed)): a producer that dies has taken a block entirely or not at
//!    all.
//! 2. Entries from `free` to `frontier` name different blocks of memory. An entry is written only
//!    at the frontier. So consumers, which read below the producers' position, see it unchanged.
//! 3. Memory is reserved before it is in the table, so writing to it cannot fail.

use std::time::Duration;

use multiproc_shm::failpoint;
#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Bytes, Ordering, load_locked};

use super::committed::Committed;
use super::error::EngineError;

/// The length of a block: large enough that its system calls cost little compared with filling it.
#[cfg(not(loom))]
pub(crate) const BLOCK: u64 = 64 * 1024;
/// In models, two frames of 32 bytes.
#[cfg(loom)]
pub(crate) const BLOCK: u64 = 64;

/// The number of blocks that keep their memory when the queue has run empty.
pub(crate) const RESERVE: u64 = if cfg!(loom) { 1 } else { 16 };

/// How many more blocks than are in use may be free, before some are released although the queue is
/// not empty.
const MANY: u64 = if cfg!(loom) { 2 } else { 1024 };

/// The number of blocks that are released at a time: under a lock, and at some microseconds per
/// block.
const PIECE: u64 = if cfg!(loom) { 1 } else { 128 };

/// The minimum interval between two releases by a queue that runs empty: reserving memory again is
/// more expensive than filling it.
const INTERVAL: Duration = Duration::from_millis(100);

/// The memory of the rings.
pub(crate) trait Memory {
    /// Reserves the first `len` bytes of the hot ring. Returns `false` if there is no memory left.
    fn reserve_hot(&self, len: u64) -> bool;

    /// Returns the table of blocks. Its length is a power of two, or 0.
    fn table(&self) -> &[AtomicU32];

    /// Returns the blocks, one after the other.
    fn blocks(&self) -> Bytes<'_>;

    /// Returns the length of all blocks in bytes.
    fn blocks_len(&self) -> u64;

    /// Reserves a block. Returns `false` if there is no memory left.
    fn reserve(&self, block: u64) -> bool;

    /// Releases the memory of consecutive blocks. Their contents are lost.
    fn give_back(&self, first: u64, count: u64);

    /// Returns the slots of tasks, or none if the queue is not joinable.
    fn task_slots(&self) -> &[AtomicU64] {
        &[]
    }

    /// Returns the time since an arbitrary point, which is the same for all members.
    fn now(&self) -> Duration;
}

/// The shared state, apart from table and blocks.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Control {
    state: Committed<4>,
    /// Free blocks of the stream below this one may have been released. It grows before they are.
    trimmed: AtomicU64,
    /// The time when the queue last ran empty and released memory, in ms. A hint.
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

    /// Returns the first block of memory that was not used since the last trim.
    fn next_fresh(self) -> u64 {
        self.fresh.wrapping_add(u64::from(self.fresh.wrapping_add(1) == self.skip))
    }

    /// Returns the number of blocks that were read and not reused.
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
    /// Returns the maximum number of blocks of memory.
    fn count(&self) -> u64 {
        self.memory.blocks_len() / BLOCK
    }

    fn entry(&self, block: u64) -> Result<&AtomicU32, EngineError> {
        let table = self.memory.table();
        let index = block & (table.len() as u64).wrapping_sub(1);
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        table.get(index).ok_or(EngineError::Corrupted("the overflow ring"))
    }

    /// Returns where a position of the stream is in memory, and how many bytes of its block follow.
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

    /// Copies `bytes` to a position that has memory: see [`extend`](Self::extend).
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

    /// Appends the bytes at a position to `target`.
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

    /// Returns the bytes at a position, for a header, which is within one block.
    pub(crate) fn copy_out<const N: usize>(&self, position: u64) -> Result<[u8; N], EngineError> {
        let (at, _) = self.locate(position)?;
        Ok(self.memory.blocks().copy_out(at))
    }

    /// Reserves memory for `size` bytes of the stream after `tail`.
    ///
    /// The caller holds the producers' lock. `head` is the consumers' position, `tail` that of the
    /// producers.
    pub(crate) fn extend(&self, head: u64, tail: u64, size: u64) -> Result<(), EngineError> {
        let end = tail.wrapping_add(size);
        self.reserve_again(tail, end)?;
        let (mut epoch, words) = self.control.state.current();
        let mut state = State::from(words);
        let missing = end.div_ceil(BLOCK).saturating_sub(state.frontier);
        if missing > self.count() {
            // The loop would use all of them more than once.
            return Err(EngineError::Corrupted("the blocks of the overflow ring"));
        }
        // The number of iterations is fixed before the loop, so that a hostile process that writes
        // the state cannot prolong it.
        for _ in 0..missing {
            // Mostly it was used recently, and still has its memory.
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
                // There are enough blocks for all bytes that may be in use.
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

    /// Reserves the memory of blocks that were taken by an attempt to put that failed: a process
    /// may have died while it released them. Mostly there are none.
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

    /// Returns `true` if it is time to [`trim`](Self::trim). `head` is the consumers' position,
    /// `tail` the end of the stream as far as they know. Called without the lock, so it is a guess.
    pub(crate) fn is_time_to_trim(&self, head: u64, tail: u64) -> bool {
        let Some(state) = self.control.state.observe().map(State::from) else { return false };
        if head == tail {
            has_more_than_reserve(state, head) && self.is_interval_over()
        } else {
            has_too_many(state, head)
        }
    }

    /// Returns `true` if an empty stream that ends at `tail` has more memory than it keeps. Called
    /// without the lock, so it is a guess.
    pub(crate) fn has_more_than_reserve(&self, tail: u64) -> bool {
        let state = self.control.state.observe().map(State::from);
        state.is_some_and(|state| has_more_than_reserve(state, tail))
    }

    fn is_interval_over(&self) -> bool {
        let now = millis(self.memory.now());
        now.wrapping_sub(self.control.trimmed_at.load(Ordering::Relaxed)) >= millis(INTERVAL)
    }

    /// Releases memory: all but a reserve if the stream is empty, or some free blocks if there are
    /// far more of them than blocks in use. Released blocks can be taken again.
    ///
    /// The caller holds the producers' lock. `head` is the consumers' position, `tail` that of the
    /// producers.
    pub(crate) fn trim(&self, head: u64, tail: u64) -> Result<(), EngineError> {
        let (epoch, words) = self.control.state.current();
        let state = State::from(words);
        if head != tail {
            return if has_too_many(state, head) { self.trim_oldest(state, head) } else { Ok(()) };
        }
        // The block in which the stream ends keeps its memory. The count of fresh blocks starts
        // anew.
        let last = tail / BLOCK;
        let skip = match tail % BLOCK {
            0 => 0,
            _ => u64::from(self.entry(last)?.load(Ordering::Relaxed)) + 1,
        };
        if skip > self.count() {
            return Err(EngineError::Corrupted("the table of blocks"));
        }
        // One more than was taken, because a producer may have died with it.
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

    /// Releases the memory of the blocks that have been free for the longest time.
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
