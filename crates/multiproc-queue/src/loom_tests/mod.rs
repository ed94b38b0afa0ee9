//! Models of the queue for loom, one property per test. Run by `cargo xtask loom`.
//!
//! The bytes of the ring are loom's cells. A test fails if a frame is read without being ordered
//! after its writing, or is overwritten while it is read. Where no process dies, there is no clock:
//! a lost wake-up is a deadlock, which loom reports.

mod loom_death;
mod loom_end;
mod loom_finish;
mod loom_lane;
mod loom_no_workers;
mod loom_overflow;
mod loom_ring;
mod loom_tasks;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use multiproc_shm::Deadline;
use multiproc_shm::event_count::Poll;
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{AtomicU32, Bytes};

use crate::engine::control::Control;
use crate::engine::error::EngineError;
use crate::engine::frame::Header;
use crate::engine::get::{Incoming, Sink};
use crate::engine::overflow::{BLOCK, Memory};
use crate::engine::pacing::Pace;
use crate::engine::put::{Items, Outgoing, Put};
use crate::engine::ring::{Limits, Ring};

/// The shared part of a queue. Items are numbers of eight bytes, so a frame takes 32 bytes.
struct Shared {
    control: Control,
    hot: Bytes<'static>,
    table: Vec<AtomicU32>,
    blocks: Bytes<'static>,
    limits: Limits,
    /// The descriptor lane: tags, with a number in place of descriptors.
    lane: loom::sync::Mutex<VecDeque<(u32, u64)>>,
}

impl Shared {
    /// Creates a queue with room for as many frames as items.
    fn new(capacity: u64) -> Arc<Self> {
        Self::with_ring(capacity, usize::try_from(capacity).unwrap() * 32)
    }

    /// Creates a queue with a hot ring of `len` bytes, which may have room for more or fewer frames
    /// than items.
    fn with_ring(capacity: u64, len: usize) -> Arc<Self> {
        Self::with_overflow(capacity, len, 0)
    }

    /// Creates a queue with a hot ring and this many blocks, a power of two. A block has room for
    /// two frames.
    fn with_overflow(capacity: u64, len: usize, blocks: usize) -> Arc<Self> {
        let bytes = len as u64 + (blocks as u64).saturating_sub(2) * BLOCK;
        Arc::new(Self {
            control: Control::default(),
            hot: Bytes::zeroed(len),
            table: (0..blocks).map(|_| AtomicU32::new(0)).collect(),
            blocks: Bytes::zeroed(blocks * usize::try_from(BLOCK).unwrap()),
            limits: Limits { capacity, bytes },
            lane: loom::sync::Mutex::new(VecDeque::new()),
        })
    }

    fn len(&self) -> u64 {
        self.seen_by(Member(0), |ring| ring.len())
    }

    /// Calls `act` with the rings as a member sees them.
    fn seen_by<L: Members + Copy, R>(
        &self,
        member: L,
        act: impl FnOnce(Ring<'_, View<'_, L>>) -> R,
    ) -> R {
        let members = &View { member, shared: self };
        let hot = self.hot.clone();
        let (puts, gets) = (&Pace::default(), &Pace::default());
        act(Ring { control: &self.control, limits: self.limits, hot, puts, gets, members })
    }

    fn put(&self, member: impl Members + Copy, item: u64) {
        self.put_all(member, &[item]);
    }

    fn try_put(&self, member: Member, item: u64) -> bool {
        let put = self.seen_by(member, |ring| {
            ring.try_put(one(&item.to_le_bytes(), &[8]), None, || Deadline::NEVER)
        });
        put == Ok((1, Put::Done))
    }

    /// Puts an item of several numbers.
    fn put_all(&self, member: impl Members + Copy, item: &[u64]) {
        let item: Vec<u8> = item.iter().flat_map(|number| number.to_le_bytes()).collect();
        let ends = [item.len()];
        let result = self
            .seen_by(member, |ring| ring.put(one(&item, &ends), None, Deadline::NEVER, |_| Ok(())));
        assert_eq!(result, (1, Ok(())));
    }

    /// Puts several items in one step.
    fn put_batch(&self, member: Member, items: &[u64]) {
        let bytes: Vec<u8> = items.iter().flat_map(|number| number.to_le_bytes()).collect();
        let ends: Vec<usize> = (1..=items.len()).map(|n| n * 8).collect();
        let result = self.seen_by(member, |ring| {
            ring.put(one(&bytes, &ends), None, Deadline::NEVER, |_| Ok(()))
        });
        assert_eq!(result, (items.len(), Ok(())));
    }

    /// Puts an item with a descriptor, which is the same number.
    fn put_with_descriptor(&self, member: impl Members + Copy, item: u64) {
        let bytes = item.to_le_bytes();
        let fds = &mut Packet { shared: self, item };
        let result = self.seen_by(member, |ring| {
            ring.put(one(&bytes, &[8]), Some(fds), Deadline::NEVER, |_| Ok(()))
        });
        assert_eq!(result, (1, Ok(())));
    }

    /// Gets an item, and checks that its descriptor, if it has one, is its own.
    fn get_with_descriptor(&self, member: impl Members + Copy) -> u64 {
        let mut lane = Packet { shared: self, item: 0 };
        let mut item = Vec::new();
        let got = self
            .seen_by(member, |ring| ring.get(&mut item, &mut lane, Deadline::NEVER, |_| Ok(())));
        assert_eq!(got, Ok(1));
        let item = u64::from_le_bytes(item.try_into().unwrap());
        assert_eq!(lane.item, item);
        item
    }

    /// Gets an item, if there is one.
    fn try_get_with_descriptor(&self, member: Member) -> Option<u64> {
        let mut lane = Packet { shared: self, item: 0 };
        let mut item = Vec::new();
        let got =
            self.seen_by(member, |ring| ring.try_get(&mut item, &mut lane, || Deadline::NEVER));
        (got == Ok(1)).then(|| {
            let item = u64::from_le_bytes(item.try_into().unwrap());
            assert_eq!(lane.item, item);
            item
        })
    }

    /// Gets up to `max` items at once.
    fn get_batch(&self, member: Member, max: usize) -> Vec<u64> {
        let mut batch = Batch { bytes: Vec::new(), count: 0, max };
        let got = self
            .seen_by(member, |ring| ring.get(&mut batch, &mut NoLane, Deadline::NEVER, |_| Ok(())));
        assert_eq!(got, Ok(batch.count));
        batch.bytes.chunks(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap())).collect()
    }

    /// Gets the next item, or `Closed` after a shutdown.
    fn get_to_the_end(&self, member: Member) -> Result<u64, EngineError> {
        let mut item = Vec::new();
        self.seen_by(member, |ring| {
            let check = |_: Poll| {
                if ring.is_drained(|| Deadline::NEVER)? { Err(EngineError::Closed) } else { Ok(()) }
            };
            ring.get(&mut item, &mut NoLane, Deadline::NEVER, check)
        })?;
        Ok(u64::from_le_bytes(item.try_into().unwrap()))
    }

    /// Gets an item of several numbers.
    fn get_all(&self, member: impl Members + Copy) -> Vec<u64> {
        let mut item = Vec::new();
        let got = self
            .seen_by(member, |ring| ring.get(&mut item, &mut NoLane, Deadline::NEVER, |_| Ok(())));
        assert_eq!(got, Ok(1));
        item.chunks(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap())).collect()
    }

    fn get(&self, member: impl Members + Copy) -> u64 {
        let item = self.get_all(member);
        assert_eq!(item.len(), 1);
        item[0]
    }

    /// Gets an item of several numbers, if there is one.
    fn try_get_into(&self, member: Member, numbers: &mut Vec<u64>) -> bool {
        let mut item = Vec::new();
        let got =
            self.seen_by(member, |ring| ring.try_get(&mut item, &mut NoLane, || Deadline::NEVER));
        numbers.extend(item.chunks(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap())));
        got == Ok(1)
    }

    fn try_get(&self, member: Member) -> Option<u64> {
        self.try_get_fault(member).unwrap()
    }

    fn try_get_fault(&self, member: Member) -> Result<Option<u64>, EngineError> {
        let mut item = Vec::new();
        let got =
            self.seen_by(member, |ring| ring.try_get(&mut item, &mut NoLane, || Deadline::NEVER))?;
        Ok((got == 1).then(|| u64::from_le_bytes(item.try_into().unwrap())))
    }
}

fn one<'a>(bytes: &'a [u8], ends: &'a [usize]) -> Items<'a> {
    Items { bytes, start: 0, ends }
}

/// A lane for items without descriptors.
struct NoLane;

impl Incoming for NoLane {
    fn copy(&mut self, _: u32) -> Result<(), EngineError> {
        unreachable!("no item has descriptors")
    }

    fn forget(&mut self) {}

    fn remove(&mut self) {}
}

/// The descriptor of an item, while it is transferred.
struct Packet<'a> {
    shared: &'a Shared,
    item: u64,
}

impl Outgoing for Packet<'_> {
    fn send(&mut self, tag: u32) -> Result<Put, EngineError> {
        self.shared.lane.lock().unwrap().push_back((tag, self.item));
        Ok(Put::Done)
    }
}

impl Incoming for Packet<'_> {
    fn copy(&mut self, tag: u32) -> Result<(), EngineError> {
        let mut lane = self.shared.lane.lock().unwrap();
        while lane.front().is_some_and(|&(found, _)| found < tag) {
            lane.pop_front();
        }
        let &(found, item) = lane.front().expect("sent before the item");
        assert_eq!(found, tag);
        self.item = item;
        Ok(())
    }

    fn forget(&mut self) {
        self.item = 0;
    }

    fn remove(&mut self) {
        let removed = self.shared.lane.lock().unwrap().pop_front();
        assert_eq!(removed.map(|(_, item)| item), Some(self.item));
    }
}

/// A sink for several items.
struct Batch {
    bytes: Vec<u8>,
    count: usize,
    max: usize,
}

impl Sink for Batch {
    fn takes_more(&self) -> bool {
        self.count < self.max
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn finish_item(&mut self, _: &Header) -> Result<(), EngineError> {
        self.count += 1;
        Ok(())
    }
}

/// A queue, as one member sees it.
struct View<'a, L> {
    member: L,
    shared: &'a Shared,
}

impl<L: Members> Members for View<'_, L> {
    fn me(&self) -> MemberId {
        self.member.me()
    }

    fn is_alive(&self, member: MemberId) -> bool {
        self.member.is_alive(member)
    }
}

impl<L> Memory for View<'_, L> {
    fn reserve_hot(&self, _: u64) -> bool {
        true
    }

    fn table(&self) -> &[AtomicU32] {
        &self.shared.table
    }

    fn blocks(&self) -> Bytes<'_> {
        self.shared.blocks.clone()
    }

    fn blocks_len(&self) -> u64 {
        self.shared.blocks.len() as u64
    }

    fn reserve(&self, _: u64) -> bool {
        true
    }

    /// Released memory is overwritten, so that a process that still needs it notices.
    fn give_back(&self, first: u64, count: u64) {
        let bytes = usize::try_from(count * BLOCK).unwrap();
        let at = usize::try_from(first * BLOCK).unwrap();
        self.shared.blocks.copy_in(at, &vec![0xff; bytes]);
    }

    /// It is always time to trim.
    fn now(&self) -> Duration {
        Duration::from_secs(1_000_000)
    }
}

/// The member in this slot. The one in slot [`DOOMED`] is dead whenever it is checked: it dies at a
/// failpoint at which it leaves only the lock that it holds.
#[derive(Clone, Copy)]
struct Member(usize);

const DOOMED: usize = 9;

impl Members for Member {
    fn me(&self) -> MemberId {
        MemberId::new(self.0, 1)
    }

    fn is_alive(&self, member: MemberId) -> bool {
        member.slot() != DOOMED
    }
}
