//! Member ids, and the trait that tells which members are alive.

use std::fmt;
use std::num::NonZeroU32;

/// The maximum number of processes that can have one region open at a time.
pub const MEMBERS: usize = 1024;

const SLOT_BITS: u32 = MEMBERS.trailing_zeros();
const GENERATION_BITS: u32 = MemberId::BITS - SLOT_BITS;

/// The members of a shared object, as seen by one of them.
pub trait Members {
    /// Returns the member that asks.
    fn me(&self) -> MemberId;

    /// Returns `true` if a member is alive. A stopped process (SIGSTOP) is alive.
    fn is_alive(&self, member: MemberId) -> bool;

    /// Returns `true` if [`is_alive`](Self::is_alive) can no longer be determined, because other
    /// code in this process has closed the descriptor that it needs. `is_alive` then returns
    /// `true` for every member, so operations that wait for a member must end with an error.
    fn is_cut_off(&self) -> bool {
        false
    }

    /// Returns `true` if `bits`, the owner in a word of shared memory, name a living member. Bits
    /// that name no member at all, of a corrupted word, count as a dead owner.
    fn is_owner_alive(&self, bits: u32) -> bool {
        MemberId::from_bits(bits).is_some_and(|owner| self.is_alive(owner))
    }
}

/// A member of a region: one process that has it open.
///
/// It consists of a slot of the member table and a generation, which distinguishes one user of the
/// slot from the next. An algorithm that found a member dead and then changes a word from "owned by
/// that member" can therefore not affect a living successor in the same slot. (The generation wraps
/// after 2^19 users of one slot. Each takes some microseconds, so the comparing process would have
/// to be delayed for seconds and resume at exactly the same count.)
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct MemberId(NonZeroU32);

impl MemberId {
    /// The number of bits that an id takes in a word.
    pub const BITS: u32 = 29;

    /// Returns the id of `slot` and `generation`. Generations wrap, and 0 becomes 1.
    ///
    /// # Panics
    ///
    /// If `slot` is not below [`MEMBERS`].
    #[must_use]
    pub fn new(slot: usize, generation: u32) -> Self {
        assert!(slot < MEMBERS, "there is no slot {slot}");
        let generation = generation & ((1 << GENERATION_BITS) - 1);
        #[allow(clippy::cast_possible_truncation)] // below MEMBERS
        let bits = generation.max(1) << SLOT_BITS | slot as u32;
        Self(NonZeroU32::new(bits).unwrap_or(NonZeroU32::MIN))
    }

    /// Returns the id with these [`bits`](Self::bits), or `None` if they are not those of an id.
    #[inline]
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        let is_member = bits >> SLOT_BITS != 0 && bits >> Self::BITS == 0;
        NonZeroU32::new(bits).filter(|_| is_member).map(Self)
    }

    /// Returns the id with these [`bits`](Self::bits), which this process has stored in private
    /// memory.
    #[inline]
    #[cfg(not(loom))]
    pub(crate) fn from_own(bits: u32) -> Option<Self> {
        NonZeroU32::new(bits).map(Self)
    }

    /// Returns the number that is stored in a word: never 0, below 2^29.
    #[inline]
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0.get()
    }

    /// Returns the slot.
    #[inline]
    #[must_use]
    pub fn slot(self) -> usize {
        self.bits() as usize % MEMBERS
    }

    /// Returns the generation.
    #[must_use]
    pub fn generation(self) -> u32 {
        self.bits() >> SLOT_BITS
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_an_id_yield_the_same_id() {
        for (slot, generation) in [(0, 1), (1023, 1), (7, 1 << 18), (1023, u32::MAX)] {
            let member = MemberId::new(slot, generation);
            assert_eq!(member.slot(), slot);
            assert_eq!(MemberId::from_bits(member.bits()), Some(member));
        }
    }

    #[test]
    fn generation_wraps_to_one() {
        assert_eq!(MemberId::new(0, 1 << GENERATION_BITS).generation(), 1);
    }

    #[test]
    fn bits_of_no_id_yield_none() {
        for bits in [0, 1, 1023, 1 << 29, u32::MAX] {
            assert_eq!(MemberId::from_bits(bits), None, "{bits:#x}");
        }
    }
}
