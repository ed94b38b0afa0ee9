//! Atomics and futexes, either real or loom's models of them.
//!
//! Only `cfg(loom)` selects between the two: the code of the algorithms is the same.

#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod real;

#[cfg(not(loom))]
pub use {crate::bytes::Bytes, real::*};

#[cfg(loom)]
pub use model::*;
