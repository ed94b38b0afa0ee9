#![doc = include_str!("../README.md")]

#[cfg(not(target_os = "linux"))]
compile_error!("multiproc runs on Linux only: it is built on memfd, pidfd, futex and OFD locks");

pub mod event_count;
#[doc(hidden)]
pub mod failpoint;
pub mod fences;
pub mod members;
pub mod memfd;
pub mod ofd_lock;
pub mod owner_lock;
pub mod primitives;
pub mod recheck;
#[cfg(not(loom))]
pub mod region;
pub mod sigpipe;

#[cfg(not(loom))]
mod bytes;
mod checked;
mod deadline;
mod lent;
mod mapping;
#[cfg(loom)]
#[doc(hidden)]
pub mod model_members;
mod sealed;
mod segment;
mod stdio;
mod thread_id;

pub use checked::CheckedFd;
pub use deadline::Deadline;
pub use lent::receive;
pub use recheck::{OWNER_RECHECK, RECHECK};
pub use sealed::{Sealed, Writer};
pub use segment::{Frozen, Segment};
pub use stdio::above_stdio;
pub use thread_id::thread_id;

#[cfg(all(test, loom))]
mod loom_tests;

/// The error of an operation that did not succeed before its deadline, because living members had
/// all of the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;
