//! The algorithms, as plain structs over atomic words.
//!
//! They know nothing of mappings, descriptors and handles: who is alive is asked through a closure.
//! Each is `repr(C)`, valid when zeroed, and valid with whatever another process writes into it. So
//! the same code is placed in shared memory by the handles, and driven by loom in the tests.

pub mod barrier;
pub mod condition;
pub mod event;
pub mod lock;
pub mod permits;
pub mod semaphore;

pub use multiproc_shm::{Busy, members};

use members::{MemberId, Members};

/// Whether the bits of a word are those of a living member. An owner that is no member at all (the
/// word was scribbled over) counts as dead.
fn is_owned(bits: u32, members: &(impl Members + ?Sized)) -> bool {
    MemberId::from_bits(bits).is_some_and(|owner| members.is_alive(owner))
}

/// Whether the bits of a word are those of a user of this slot.
fn is_of_slot(bits: u32, slot: usize) -> bool {
    MemberId::from_bits(bits).is_some_and(|owner| owner.slot() == slot)
}
