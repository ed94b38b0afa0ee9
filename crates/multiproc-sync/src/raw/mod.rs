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
