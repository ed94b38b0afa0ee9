//! The members of a region: their ids, and which of them are alive.

mod id;
#[cfg(not(loom))]
pub(crate) mod table;

pub use id::{MEMBERS, MemberId, Members};
#[cfg(not(loom))]
pub use table::Membership;
