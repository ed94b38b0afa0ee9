//! What the algorithms are built from: real atomics and futexes, or loom's models of them.
//!
//! `cfg(loom)` decides, and nothing else does: the code in [`raw`](crate::raw) is the same for both.

#[cfg(not(loom))]
mod bytes;
#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod real;

#[cfg(not(loom))]
pub use {bytes::Bytes, real::*};

#[cfg(loom)]
pub use model::*;
