//! The algorithms, over atomics and bytes alone: what loom explores.

pub(crate) mod frame;
pub(crate) mod joinable;
pub(crate) mod overflow;
pub(crate) mod pacing;
pub(crate) mod ring;
pub(crate) mod side;
pub(crate) mod slots;
