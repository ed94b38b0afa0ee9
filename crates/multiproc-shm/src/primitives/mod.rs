//! What the algorithms are built from: real atomics and futexes, or loom's models of them.
//!
//! `cfg(loom)` decides, and nothing else does: the code of the algorithms is the same for both.

#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod real;

#[cfg(not(loom))]
pub use {crate::bytes::Bytes, real::*};

#[cfg(loom)]
pub use model::*;
