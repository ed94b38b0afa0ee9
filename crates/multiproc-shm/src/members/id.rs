//! Who owns a word, and who is alive.

use std::fmt;
use std::num::NonZeroU32;

/// How many processes can have one region open at a time.
pub const MEMBERS: usize = 1024;

const SLOT_BITS: u32 = MEMBERS.trailing_zeros();
const GENERATION_BITS: u32 = MemberId::BITS - SLOT_BITS;

/// The members of whatever a word lies in, as one of them sees it.
pub trait Members {
    /// Who is asking.
    fn me(&self) -> MemberId;

    /// Whether a member is alive. One that is stopped is.
    fn is_alive(&self, member: MemberId) -> bool;

    /// Whether [`is_alive`](Self::is_alive) can no longer be answered, and returns true for every
    /// member: other code in this process has closed the descriptor that it takes. Operations that
    /// wait for a member to end must then end with an error.
    fn is_cut_off(&self) -> bool {
        false
    }
}

/// A member of a region: one process that has it open.
///
/// It is made of a slot of the member table and a generation, which tells one user of the slot from
/// the next. So an algorithm that found a member dead, and then changes a word from "owned by that
/// one", cannot hit a living successor in the same slot. (The generation comes round after 2^20
/// users of one slot; each takes some microseconds, so the one who compares would have to be held
/// up for seconds, and to wake at exactly the same count.)
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct MemberId(NonZeroU32);

impl MemberId {
    /// How many bits of a word it takes.
    pub const BITS: u32 = 29;

    /// The member of generation `generation` in `slot`; generations wrap, and none is zero.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    #[must_use]
    pub fn new(slot: usize, generation: u32) -> Self {
        assert!(slot < MEMBERS, "there is no slot {slot}");
        let generation = generation & ((1 << GENERATION_BITS) - 1);
        #[allow(clippy::cast_possible_truncation)] // below MEMBERS
        let bits = generation.max(1) << SLOT_BITS | slot as u32;
        Self(NonZeroU32::new(bits).unwrap_or(NonZeroU32::MIN))
    }

    /// The member whose [`bits`](Self::bits) these are, if they are any's.
    #[inline]
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        let is_member = bits >> SLOT_BITS != 0 && bits >> Self::BITS == 0;
        NonZeroU32::new(bits).filter(|_| is_member).map(Self)
    }

    /// The member whose [`bits`](Self::bits) this process has kept for itself.
    #[inline]
    #[cfg(not(loom))]
    pub(crate) fn from_own(bits: u32) -> Option<Self> {
        NonZeroU32::new(bits).map(Self)
    }

    /// The number to be kept in a word: never zero, below 2^29.
    #[inline]
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0.get()
    }

    /// The slot.
    #[inline]
    #[must_use]
    pub fn slot(self) -> usize {
        self.bits() as usize % MEMBERS
    }

    /// The generation.
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
    fn bits_go_there_and_back() {
        for (slot, generation) in [(0, 1), (1023, 1), (7, 1 << 18), (1023, u32::MAX)] {
            let member = MemberId::new(slot, generation);
            assert_eq!(member.slot(), slot);
            assert_eq!(MemberId::from_bits(member.bits()), Some(member));
        }
    }

    #[test]
    fn the_generation_wraps_without_a_zero() {
        assert_eq!(MemberId::new(0, 1 << GENERATION_BITS).generation(), 1);
    }

    #[test]
    fn garbage_is_no_member() {
        for bits in [0, 1, 1023, 1 << 29, u32::MAX] {
            assert_eq!(MemberId::from_bits(bits), None, "{bits:#x}");
        }
    }
}
