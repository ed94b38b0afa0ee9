//! The algorithms of the queue, on atomics and bytes alone, so that loom can explore them.
//!
//! An item takes the path [`waiting`] → [`put`] → [`ring`] → [`get`]. The other files hold what
//! these share: the control block ([`control`]), one side's committed state ([`side`],
//! [`committed`]) and lock ([`side_lock`]), the format of a frame ([`frame`]), the memory of the
//! overflow ring ([`overflow`], [`trim`]) and the state of the queue ([`snapshot`]). A task is an
//! item in a slot ([`slot`], [`slots`], [`allocation`], [`redelivery`], [`letters`], [`worker`]);
//! [`joinable`] combines ring and slots, and [`finish`] completes a task together with a put.

pub(crate) mod allocation;
pub(crate) mod committed;
pub(crate) mod control;
pub(crate) mod error;
pub(crate) mod finish;
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
pub(crate) mod worker;
