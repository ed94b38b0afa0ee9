//! The region of a queue: how its data are laid out, and what a member can do with them.
//!
//! | data | what |
//! |---|---|
//! | 0 | the hot ring: 256 KiB |
//! | behind it | the table of blocks, 4 bytes each; as many as the next power of two |
//! | at the next page | the blocks of the overflow ring, 64 KiB each |
//!
//! All but the first page is touched only when it is needed. If a queue's items fit into the hot ring
//! all together, it has no more than that.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use multiproc_sync::fault;
use multiproc_sync::primitives::{AtomicU32, Bytes, Ordering};
use multiproc_sync::raw::members::{MemberId, Members};
use multiproc_sync::region::{Control as RegionControl, Region};

use crate::lane;
use crate::raw::blocks::{BLOCK, Memory};
use crate::raw::frame::size;
use crate::raw::ring::{Control, Limits};

/// The hot ring: small enough to stay in a core's cache. A power of two.
const HOT: usize = 256 * 1024;
const PAGE: usize = 4096;
const BLOCK_BYTES: usize = 64 * 1024;
const _: () = assert!(BLOCK_BYTES as u64 == BLOCK);

/// The most items that a bounded queue can be asked to hold.
pub(crate) const MAX_CAPACITY: usize = 1 << 32;

/// The most bytes that a queue can be asked to hold: 1 TiB.
pub(crate) const MAX_BYTES: usize = 1 << 40;

/// What a queue holds that was not asked for anything else: 8 GiB.
pub(crate) const DEFAULT_BYTES: usize = 8 << 30;

impl RegionControl for Control {
    const KIND: u32 = u32::from_le_bytes(*b"QUEU");
    const NAME: &'static str = "queue";
    const DATA: RangeInclusive<usize> = HOT..=MAX_BYTES * 2;

    fn release_slot(&self, _: &[AtomicU32], slot: usize) {
        Control::release_slot(self, slot);
    }
}

/// Where the parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    table: usize,
    table_len: usize,
    blocks: usize,
    blocks_len: usize,
}

impl Layout {
    fn of(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX / 4);
        // Two more, because the first and the last one may be in use in part.
        let count = if limit <= HOT { 0 } else { limit.div_ceil(BLOCK_BYTES) + 2 };
        let table_len = if count == 0 { 0 } else { count.next_power_of_two() };
        let blocks = (HOT + table_len * size_of::<AtomicU32>()).next_multiple_of(PAGE);
        Self { table: HOT, table_len, blocks, blocks_len: count * BLOCK_BYTES }
    }

    fn len(self) -> usize {
        self.blocks + self.blocks_len
    }
}

/// A queue's region, as a member has it open.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) region: Region<Control>,
    layout: Layout,
    pub(crate) limits: Limits,
    pub(crate) max_bytes: usize,
    pub(crate) capacity: Option<usize>,
}

/// The capacity of a queue without one: more items than there can be.
const UNBOUNDED: u64 = 0;

impl Store {
    pub(crate) fn create(
        name: &str,
        capacity: Option<usize>,
        max_bytes: usize,
    ) -> io::Result<Self> {
        let limits = limits(capacity, max_bytes);
        let layout = Layout::of(limits.bytes);
        let set_up = |control: &Control| {
            let capacity = capacity.map_or(UNBOUNDED, |capacity| capacity as u64);
            control.seldom.capacity.store(capacity, Ordering::Relaxed);
            control.seldom.max_bytes.store(max_bytes as u64, Ordering::Relaxed);
        };
        let region = Region::create_named(name, layout.len(), set_up).map_err(|error| {
            let text = format!(
                "{error} (how much address space a queue needs follows from its `max_bytes`: {max_bytes})"
            );
            io::Error::new(error.kind(), text)
        })?;
        Ok(Self { region, layout, limits, max_bytes, capacity })
    }

    /// A region that came from elsewhere.
    pub(crate) fn over(region: Region<Control>) -> io::Result<Self> {
        let seldom = &region.control().seldom;
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let capacity = number(seldom.capacity.load(Ordering::Relaxed));
        let max_bytes = number(seldom.max_bytes.load(Ordering::Relaxed));
        let size = region.data().len();
        let is_one = capacity <= MAX_CAPACITY && (1..=MAX_BYTES).contains(&max_bytes);
        let capacity = (capacity as u64 != UNBOUNDED).then_some(capacity);
        let limits = limits(capacity, max_bytes.min(MAX_BYTES));
        let layout = Layout::of(limits.bytes);
        if !is_one || layout.len() != size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "expected a multiproc queue, got one that says it holds {capacity:?} items in \
                     {max_bytes} bytes, in shared memory of {size} bytes"
                ),
            ));
        }
        Ok(Self { region, layout, limits, max_bytes, capacity })
    }
}

fn limits(capacity: Option<usize>, max_bytes: usize) -> Limits {
    Limits { capacity: capacity.map_or(u64::MAX, |items| items as u64), bytes: size(max_bytes) }
}

/// The length of so many blocks, which are not more than there are.
fn bytes(blocks: u64) -> usize {
    usize::try_from(blocks).unwrap_or(0) * BLOCK_BYTES
}

impl Members for Store {
    #[inline]
    fn me(&self) -> MemberId {
        self.region.me()
    }

    fn is_alive(&self, member: MemberId) -> bool {
        self.region.is_alive(member)
    }
}

impl Memory for Store {
    #[inline]
    fn hot(&self) -> Bytes<'_> {
        self.region.data().slice(0, HOT)
    }

    fn reserve_hot(&self, len: u64) -> bool {
        let len = usize::try_from(len).unwrap_or(HOT).min(HOT);
        !fault::fails("put.reserve") && self.region.reserve(0, len).is_ok()
    }

    #[inline]
    fn table(&self) -> &[AtomicU32] {
        self.region.words_at(self.layout.table, self.layout.table_len)
    }

    #[inline]
    fn blocks(&self) -> Bytes<'_> {
        self.region.data().slice(self.layout.blocks, self.layout.blocks_len)
    }

    fn reserve(&self, block: u64) -> bool {
        let at = self.layout.blocks + bytes(block);
        !fault::fails("put.reserve") && self.region.reserve(at, BLOCK_BYTES).is_ok()
    }

    fn give_back(&self, first: u64, count: u64) {
        let at = self.layout.blocks + bytes(first);
        // If the kernel should refuse, the memory stays taken: no more.
        let _ = self.region.give_back(at, bytes(count));
    }

    fn now(&self) -> Duration {
        lane::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_has_room_for_all() {
        for limit in [32, HOT as u64, HOT as u64 + 16, 1 << 20, (8 << 30) + 32] {
            let Layout { table, table_len, blocks, blocks_len } = Layout::of(limit);
            assert!(table_len == 0 || table_len.is_power_of_two());
            assert!(table_len * 65_536 >= blocks_len);
            assert!(table + table_len * 4 <= blocks && blocks.is_multiple_of(PAGE));
            assert_eq!(blocks_len == 0, limit <= HOT as u64);
            assert!(blocks_len == 0 || blocks_len as u64 >= limit + 2 * BLOCK - 2);
        }
    }
}
