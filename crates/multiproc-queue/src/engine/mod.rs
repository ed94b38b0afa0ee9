//! The algorithms, over atomics and bytes alone: what loom explores.

pub(crate) mod allocation;
pub(crate) mod committed;
pub(crate) mod control;
pub(crate) mod error;
pub(crate) mod frame;
pub(crate) mod get;
pub(crate) mod joinable;
pub(crate) mod letters;
pub(crate) mod overflow;
pub(crate) mod pacing;
pub(crate) mod put;
pub(crate) mod redelivery;
pub(crate) mod ring;
pub(crate) mod side;
mod side_lock;
pub(crate) mod slot;
pub(crate) mod slots;
mod snapshot;
mod trim;
mod waiting;
