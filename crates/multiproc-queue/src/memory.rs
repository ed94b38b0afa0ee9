//! The region of a queue: the layout of its data, and access to them.
//!
//! | data | content |
//! |---|---|
//! | 0 | the hot ring: 256 KiB |
//! | behind it | the table of blocks: 4 bytes each, their number rounded up to a power of two |
//! | at the next page | the blocks of the overflow ring: 64 KiB each |
//! | behind them, if it is joinable | the slots of tasks: 64 bytes each |
//! | behind them | the records of workers: 32 bytes for each slot |
//! | at the next page | the storage of the slots, grouped by size: see [`CLASSES`] |
//!
//! All but the first page is touched only when it is needed. If the hot ring has room for all items
//! of a queue, the queue has no overflow ring.

use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use multiproc_shm::failpoint;
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Bytes, Ordering};
use multiproc_shm::region::{Control as RegionControl, Region};

use crate::engine::control::Control;
use crate::engine::frame::size;
use crate::engine::overflow::{BLOCK, Memory};
use crate::engine::ring::Limits;
use crate::engine::slot::WORDS;
use crate::engine::slots::{self, Class, Places};
use crate::engine::worker::RECORD;
use crate::fd_lane;
use crate::worker;

/// The size of the hot ring: small enough to stay in a core's cache, and a power of two.
const HOT: usize = 256 * 1024;
const PAGE: usize = 4096;
const BLOCK_BYTES: usize = 64 * 1024;
const _: () = assert!(BLOCK_BYTES as u64 == BLOCK);

/// The maximum capacity of a bounded queue.
pub(crate) const MAX_CAPACITY: usize = 1 << 32;

/// The maximum of `max_bytes`: 1 TiB.
pub(crate) const MAX_BYTES: usize = 1 << 40;

/// The default of `max_bytes`: 8 GiB.
pub(crate) const DEFAULT_BYTES: usize = 8 << 30;

impl RegionControl for Control {
    const KIND: u32 = u32::from_le_bytes(*b"QUEU");
    const NAME: &'static str = "queue";
    const DATA: RangeInclusive<usize> = HOT..=MAX_BYTES * 2;

    fn release_slot(&self, _: &[AtomicU32], slot: usize) {
        Control::release_slot(self, slot);
    }
}

/// The sizes of task slots, and the number of slots of each. If all slots of a size are in use, a
/// task takes a larger one.
const CLASSES: [Class; slots::CLASSES] = [
    Class { bytes: 256, slots: 16_384 },
    Class { bytes: 4 << 10, slots: 4096 },
    Class { bytes: 64 << 10, slots: 2048 },
    Class { bytes: 1 << 20, slots: 1024 },
    Class { bytes: 32 << 20, slots: 256 },
    Class { bytes: 1 << 30, slots: 16 },
];

/// The maximum size of a task.
pub(crate) const LARGEST_TASK: usize = 1 << 30;

/// The offsets of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    table: usize,
    table_len: usize,
    blocks: usize,
    blocks_len: usize,
    slots: usize,
    slots_len: usize,
    workers: usize,
    workers_len: usize,
    /// The number of classes, and where their storage begins.
    classes: usize,
    places: [usize; slots::CLASSES],
    len: usize,
}

impl Layout {
    /// Returns the layout for frames of `limit` bytes together, and for tasks of up to
    /// `largest_task` bytes.
    fn of(limit: u64, largest_task: Option<usize>) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX / 4);
        // Two more, because the first and the last one may be only partly in use.
        let count = if limit <= HOT { 0 } else { limit.div_ceil(BLOCK_BYTES) + 2 };
        let table_len = if count == 0 { 0 } else { count.next_power_of_two() };
        let blocks = (HOT + table_len * size_of::<AtomicU32>()).next_multiple_of(PAGE);
        let blocks_len = count * BLOCK_BYTES;

        let slots = blocks + blocks_len;
        let smaller = |largest| CLASSES.iter().filter(|class| class.bytes < largest).count() + 1;
        let classes = largest_task.map_or(0, |largest| smaller(largest).min(CLASSES.len()));
        let slots_len = CLASSES[..classes].iter().map(|class| class.slots).sum::<usize>() * WORDS;
        let workers = slots + slots_len * size_of::<AtomicU64>();
        let workers_len = slots_len / WORDS * RECORD;
        let mut len = (workers + workers_len * size_of::<AtomicU64>()).next_multiple_of(PAGE);
        let mut places = [len; slots::CLASSES];
        for (place, class) in places.iter_mut().zip(&CLASSES[..classes]) {
            *place = len;
            len += class.bytes * class.slots;
        }
        Self {
            table: HOT,
            table_len,
            blocks,
            blocks_len,
            slots,
            slots_len,
            workers,
            workers_len,
            classes,
            places,
            len,
        }
    }
}

/// A queue's region, opened by a member.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) region: Region<Control>,
    layout: Layout,
    pub(crate) limits: Limits,
    pub(crate) max_bytes: usize,
    pub(crate) capacity: Option<usize>,
    pub(crate) tasks: Option<TaskLimits>,
    /// The number of slots of each class whose memory this process has reserved. (Only of small
    /// ones: the memory of large ones may have been released since.)
    reserved: Arc<[AtomicUsize; slots::CLASSES]>,
}

/// The limits of a joinable queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskLimits {
    /// The maximum number of deliveries of a task.
    pub(crate) max_attempts: u32,
}

/// The stored capacity of an unbounded queue.
const UNBOUNDED: u64 = 0;

impl Store {
    pub(crate) fn create(
        name: &str,
        capacity: Option<usize>,
        max_bytes: usize,
        tasks: Option<TaskLimits>,
    ) -> io::Result<Self> {
        let limits = limits(capacity, max_bytes);
        let layout = Layout::of(limits.bytes, tasks.map(|_| max_bytes));
        let set_up = |control: &Control| {
            let capacity = capacity.map_or(UNBOUNDED, |capacity| capacity as u64);
            control.config.capacity.store(capacity, Ordering::Relaxed);
            control.config.max_bytes.store(max_bytes as u64, Ordering::Relaxed);
            if let Some(TaskLimits { max_attempts }) = tasks {
                control.config.is_joinable.store(1, Ordering::Relaxed);
                control.tasks.max_attempts.store(max_attempts, Ordering::Relaxed);
            }
        };
        let region = Region::create_named(name, layout.len, set_up).map_err(|error| {
            if error.kind() != io::ErrorKind::OutOfMemory {
                return error;
            }
            let text = format!(
                "{error} (the address space of a queue depends on its `max_bytes`: {max_bytes})"
            );
            io::Error::new(error.kind(), text)
        })?;
        Ok(Self { region, layout, limits, max_bytes, capacity, tasks, reserved: Arc::default() })
    }

    /// Returns the hot ring.
    #[inline]
    pub(crate) fn hot(&self) -> Bytes<'_> {
        self.region.data().slice(0, HOT)
    }

    /// Takes a region that was received from another process, and checks it.
    pub(crate) fn over(region: Region<Control>) -> io::Result<Self> {
        let config = &region.control().config;
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let capacity = number(config.capacity.load(Ordering::Relaxed));
        let max_bytes = number(config.max_bytes.load(Ordering::Relaxed));
        let size = region.data().len();
        let is_one = capacity <= MAX_CAPACITY && (1..=MAX_BYTES).contains(&max_bytes);
        let capacity = (capacity as u64 != UNBOUNDED).then_some(capacity);
        let limits = limits(capacity, max_bytes.min(MAX_BYTES));
        let control = region.control();
        let tasks = (config.is_joinable.load(Ordering::Relaxed) == 1).then(|| TaskLimits {
            max_attempts: control.tasks.max_attempts.load(Ordering::Relaxed).max(1),
        });
        let max_bytes = max_bytes.min(MAX_BYTES);
        let layout = Layout::of(limits.bytes, tasks.map(|_| max_bytes));
        if !is_one || layout.len != size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "expected a multiproc queue, got one of {capacity:?} items in {max_bytes} bytes, \
                     in shared memory of {size} bytes"
                ),
            ));
        }
        Ok(Self { region, layout, limits, max_bytes, capacity, tasks, reserved: Arc::default() })
    }
}

fn limits(capacity: Option<usize>, max_bytes: usize) -> Limits {
    Limits { capacity: capacity.map_or(u64::MAX, |items| items as u64), bytes: size(max_bytes) }
}

/// Returns the length of this many blocks, which is at most that of the block area.
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

    fn is_cut_off(&self) -> bool {
        self.region.is_cut_off()
    }
}

impl Memory for Store {
    fn reserve_hot(&self, len: u64) -> bool {
        let len = usize::try_from(len).unwrap_or(HOT).min(HOT);
        !failpoint::fails("put.reserve") && self.region.reserve(0, len).is_ok()
    }

    #[inline]
    fn table(&self) -> &[AtomicU32] {
        self.region.words_at(self.layout.table, self.layout.table_len)
    }

    #[inline]
    fn blocks(&self) -> Bytes<'_> {
        self.region.data().slice(self.layout.blocks, self.layout.blocks_len)
    }

    #[inline]
    fn blocks_len(&self) -> u64 {
        self.layout.blocks_len as u64
    }

    fn reserve(&self, block: u64) -> bool {
        let at = self.layout.blocks + bytes(block);
        !failpoint::fails("put.reserve") && self.region.reserve(at, BLOCK_BYTES).is_ok()
    }

    fn give_back(&self, first: u64, count: u64) {
        let at = self.layout.blocks + bytes(first);
        // If the kernel refuses, the memory stays in use, which is harmless.
        let _ = self.region.give_back(at, bytes(count));
    }

    fn task_slots(&self) -> &[AtomicU64] {
        self.slots()
    }

    fn now(&self) -> Duration {
        fd_lane::now()
    }
}

impl Store {
    /// Returns the offset of a slot's storage.
    fn place(&self, class: usize, slot: usize) -> usize {
        self.layout.places[class] + slot * CLASSES[class].bytes
    }

    /// Reserves the memory of the small slots up to this one, and of some more.
    #[cold]
    fn reserve_more(&self, class: usize, slot: usize) -> bool {
        const STEP: usize = 64 << 10;
        let Class { bytes, slots } = CLASSES[class];
        let from = self.reserved[class].load(Ordering::Relaxed);
        let to = (slot + 1).next_multiple_of(STEP / bytes).min(slots);
        let is_done = self.region.reserve(self.place(class, from), (to - from) * bytes).is_ok();
        if is_done {
            self.reserved[class].fetch_max(to, Ordering::Relaxed);
        }
        is_done
    }
}

/// Classes of at least this size release their memory.
const LARGE: usize = 64 << 10;

impl Places for Store {
    #[inline]
    fn slots(&self) -> &[AtomicU64] {
        let all = self.region.data_as::<AtomicU64>();
        &all[self.layout.slots / size_of::<AtomicU64>()..][..self.layout.slots_len]
    }

    #[inline]
    fn workers(&self) -> &[AtomicU64] {
        let all = self.region.data_as::<AtomicU64>();
        &all[self.layout.workers / size_of::<AtomicU64>()..][..self.layout.workers_len]
    }

    fn identity(&self) -> (u32, [u64; 2]) {
        (std::process::id(), worker::name())
    }

    #[inline]
    fn classes(&self) -> &[Class] {
        &CLASSES[..self.layout.classes]
    }

    #[inline]
    fn fill(&self, class: usize, slot: usize, bytes: &[u8]) -> bool {
        if failpoint::fails("task.reserve") {
            return false;
        }
        let at = self.place(class, slot);
        let reserved = &self.reserved[class];
        let is_large = CLASSES[class].bytes >= LARGE;
        if is_large || slot >= reserved.load(Ordering::Relaxed) {
            if is_large {
                if self.region.reserve(at, bytes.len()).is_err() {
                    return false;
                }
            } else if !self.reserve_more(class, slot) {
                return false;
            }
        }
        self.region.data().copy_in(at, bytes);
        true
    }

    fn append_to(&self, class: usize, slot: usize, length: usize, target: &mut Vec<u8>) {
        self.region.data().append_to(self.place(class, slot), length, target);
    }

    fn give_back(&self, class: usize, slots: Range<usize>) {
        let len = slots.len() * CLASSES[class].bytes;
        // If the kernel refuses, the memory stays in use, which is harmless.
        let _ = self.region.give_back(self.place(class, slots.start), len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_has_room_for_all_blocks() {
        for limit in [32, HOT as u64, HOT as u64 + 16, 1 << 20, (8 << 30) + 32] {
            let Layout { table, table_len, blocks, blocks_len, .. } = Layout::of(limit, None);
            assert!(table_len == 0 || table_len.is_power_of_two());
            assert!(table_len * 65_536 >= blocks_len);
            assert!(table + table_len * 4 <= blocks && blocks.is_multiple_of(PAGE));
            assert_eq!(blocks_len == 0, limit <= HOT as u64);
            assert!(blocks_len == 0 || blocks_len as u64 >= limit + 2 * BLOCK - 2);
        }
    }

    #[test]
    fn layout_has_storage_for_every_task() {
        for (largest, classes) in [(1, 1), (256, 1), (257, 2), (1 << 20, 4), (8 << 30, 6)] {
            let layout = Layout::of(1 << 20, Some(largest));
            assert_eq!(layout.classes, classes);
            assert!(CLASSES[classes - 1].bytes >= largest.min(LARGEST_TASK));
            assert_eq!(layout.workers, layout.slots + layout.slots_len * 8);
            assert_eq!(layout.workers_len / RECORD, layout.slots_len / WORDS);
            assert!(layout.workers + layout.workers_len * 8 <= layout.places[0]);
            let last = CLASSES[classes - 1];
            assert_eq!(layout.len, layout.places[classes - 1] + last.slots * last.bytes);
        }
        assert!(CLASSES.is_sorted_by_key(|class| class.bytes));
    }
}
