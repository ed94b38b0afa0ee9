//! The algorithms, as plain structs of atomic words.
//!
//! They do not depend on mappings, descriptors or handles: [`Members`](members::Members) tells
//! which members are alive. Each is `repr(C)`, valid when zeroed, and valid with any bytes that
//! another process writes into it. So the handles place the same code in shared memory that loom
//! explores in the tests.

pub mod barrier;
pub mod condition;
pub mod event;
pub mod lock;
pub mod permits;
pub mod rwlock;
pub mod semaphore;

pub use multiproc_shm::{Busy, members};

use members::MemberId;

/// Returns true if these bits of a word name a member in this slot of the member table.
fn is_of_slot(bits: u32, slot: usize) -> bool {
    MemberId::from_bits(bits).is_some_and(|owner| owner.slot() == slot)
}
