//! The ring under loom: one property a test. Run by `cargo xtask loom`.
//!
//! The bytes of the ring are loom's cells: a frame that is read without being ordered after its
//! writing, or overwritten while it is read, fails the test. Where nobody dies, there is no clock:
//! a lost wake-up is a deadlock, which loom reports.

mod loom_death;
mod loom_ring;

use std::sync::Arc;

use multiproc_pipe::Deadline;
use multiproc_sync::primitives::Bytes;
use multiproc_sync::raw::members::{MemberId, Members};

use crate::raw::ring::{Control, Put, Ring};

/// A queue as its members share it. Items are numbers of eight bytes: a frame takes 32.
struct Shared {
    control: Control,
    bytes: Bytes<'static>,
    capacity: u64,
}

impl Shared {
    /// Room for as many frames as items.
    fn new(capacity: u64) -> Arc<Self> {
        Self::with_ring(capacity, usize::try_from(capacity).unwrap() * 32)
    }

    /// A ring of `len` bytes, which may be room for more frames than items, or for fewer.
    fn with_ring(capacity: u64, len: usize) -> Arc<Self> {
        let bytes = Bytes::zeroed(len);
        Arc::new(Self { control: Control::default(), bytes, capacity })
    }

    fn len(&self) -> u64 {
        self.ring(&Member(0)).len()
    }

    fn ring<'a, M: Members>(&'a self, member: &'a M) -> Ring<'a, M> {
        Ring {
            control: &self.control,
            bytes: self.bytes.clone(),
            capacity: self.capacity,
            members: member,
        }
    }

    fn put(&self, member: Member, item: u64) {
        let done = self.ring(&member).put(&item.to_le_bytes(), Deadline::NEVER);
        assert_eq!(done, Ok(true));
    }

    fn try_put(&self, member: Member, item: u64) -> bool {
        let put = self.ring(&member).try_put(&item.to_le_bytes(), || Deadline::NEVER);
        put == Ok(Put::Done)
    }

    /// Puts an item of several numbers.
    fn put_all(&self, member: Member, item: &[u64]) {
        let item: Vec<u8> = item.iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(self.ring(&member).put(&item, Deadline::NEVER), Ok(true));
    }

    /// Gets an item of several numbers.
    fn get_all(&self, member: Member) -> Vec<u64> {
        let mut item = Vec::new();
        assert_eq!(self.ring(&member).get(&mut item, Deadline::NEVER), Ok(true));
        item.chunks(8).map(|chunk| number(chunk.to_vec())).collect()
    }

    fn get(&self, member: Member) -> u64 {
        let mut item = Vec::new();
        assert_eq!(self.ring(&member).get(&mut item, Deadline::NEVER), Ok(true));
        number(item)
    }

    fn try_get(&self, member: Member) -> Option<u64> {
        let mut item = Vec::new();
        let got = self.ring(&member).try_get(&mut item, || Deadline::NEVER).unwrap();
        got.then(|| number(item))
    }
}

fn number(item: Vec<u8>) -> u64 {
    u64::from_le_bytes(item.try_into().unwrap())
}

/// The member in this slot. The one in slot [`DOOMED`] is dead whenever it is asked about: it dies
/// at a point at which only the lock it holds is left of it.
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
