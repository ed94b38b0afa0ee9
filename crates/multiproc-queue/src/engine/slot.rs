//! One slot of a task: eight words.
//!
//! The first word is the **state**. It decides everything that the death of a process could leave
//! open:
//!
//! | bits of the state | meaning |
//! |---|---|
//! | 0..30 | the member that has it; 0 is none |
//! | 30..32 | the kind: see [`Kind`] |
//! | 32..64 | the number of deliveries |
//!
//! The other words are: its number in the queue; the number of the queue from which on it may be
//! delivered again; its length; whether it had descriptors; the thread that has it; and the put
//! that completes it, if it is finished together with one. The bytes are in the slot's own storage,
//! which has one of several sizes.

use multiproc_shm::members::MemberId;
use multiproc_shm::primitives::{AtomicU64, Ordering, fence_after_rmw};

/// The number of words of a slot.
pub(crate) const WORDS: usize = 8;

pub(super) const STATE: usize = 0;
pub(super) const NUMBER: usize = 1;
pub(super) const DUE: usize = 2;
pub(super) const LENGTH: usize = 3;
pub(super) const FLAGS: usize = 4;
pub(super) const THREAD: usize = 5;
/// If not 0, the task is done as soon as this many items were put: see [`finish`](super::finish).
pub(super) const ENDS: usize = 6;

/// The number of a slot whose item is not complete.
pub(super) const NO_NUMBER: u64 = u64::MAX;

/// The item had descriptors, which are lost with the process that got it.
pub(super) const HAD_DESCRIPTORS: u64 = 1;

/// A slot, identified by its class and its place in the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(super) class: usize,
    pub(crate) place: usize,
}

impl Slot {
    /// Returns the slot as one number.
    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        (self.class as u64) << 32 | self.place as u64
    }

    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        let number = |bits: u64| usize::try_from(bits).unwrap_or(0);
        Self { class: number(bits >> 32), place: number(bits & u64::from(u32::MAX)) }
    }
}

/// The kind of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not in use.
    Free,
    /// A task in progress, which its owner will end.
    Held,
    /// The same, but the task belongs to no thread of its owner.
    Detached,
    /// A task that its owner is making `Ready`. It counts as unfinished.
    Returning,
    /// A task that waits to be delivered again.
    Ready,
    /// A dead letter. If it has an owner, that member is examining it.
    Dead,
}

/// The first word of a slot. A hostile process may have written any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(pub(super) u64);

const OWNER: u64 = (1 << MemberId::BITS) - 1;
pub(super) const HELD: u64 = 0 << 30;
pub(super) const DETACHED: u64 = 1 << 30;
pub(super) const READY: u64 = 2 << 30;
pub(super) const DEAD: u64 = 3 << 30;

impl State {
    pub(super) const FREE: Self = Self(0);

    #[inline]
    pub(super) fn new(kind: u64, owner: Option<MemberId>, deliveries: u32) -> Self {
        let owner = owner.map_or(0, |owner| u64::from(owner.bits()));
        Self(u64::from(deliveries) << 32 | kind | owner)
    }

    #[inline]
    pub(crate) fn kind(self) -> Kind {
        match self.0 & DEAD {
            _ if self == Self::FREE => Kind::Free,
            HELD => Kind::Held,
            DETACHED => Kind::Detached,
            READY if self.0 & OWNER == 0 => Kind::Ready,
            READY => Kind::Returning,
            _ => Kind::Dead,
        }
    }

    /// Returns the owner. `Held`, `Detached` and `Returning` have one.
    #[inline]
    pub(super) fn owner(self) -> Option<MemberId> {
        u32::try_from(self.0 & OWNER).ok().and_then(MemberId::from_bits)
    }

    #[inline]
    pub(super) fn deliveries(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(0)
    }

    #[inline]
    fn is_in_work(self) -> bool {
        matches!(self.kind(), Kind::Held | Kind::Detached)
    }

    /// Returns `true` if it is a task in progress of this member.
    #[inline]
    pub(super) fn is_of(self, member: MemberId) -> bool {
        self.is_in_work() && self.owner() == Some(member)
    }

    /// Returns `true` if it is a dead letter that this member examines.
    #[inline]
    pub(super) fn is_letter_of(self, member: MemberId) -> bool {
        self.kind() == Kind::Dead && self.owner() == Some(member)
    }
}

#[inline]
pub(super) fn change(word: &AtomicU64, from: State, to: State) -> bool {
    let changed = word.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed);
    fence_after_rmw();
    changed.is_ok()
}
