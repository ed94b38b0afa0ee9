//! The algorithms, over atomics and bytes alone: what loom explores.

pub(crate) mod blocks;
pub(crate) mod frame;
pub(crate) mod pace;
pub(crate) mod ring;
pub(crate) mod side;
pub(crate) mod tasks;
pub(crate) mod work;
