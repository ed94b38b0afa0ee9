//! Bytes in anonymous shared memory that cross between processes.
//!
//! There are two ways, because memory that is sealed against writing can never be written again, and
//! memory that is used again cannot be sealed:
//!
//! | | the sender | the receiver | costs |
//! |---|---|---|---|
//! | [`Sealed`] | writes once, seals | reads where it lies | fresh pages each time |
//! | [`Segment`] | writes through its one mapping, lends, and takes it back | copies out: [`receive`] | one copy |
//!
//! This is the bottom of `multiproc-pipe`, whose `SharedBytes` and `SharedPool` are what programs use.
//! It is a crate of its own because mapping memory needs unsafe code, and that one forbids it. What
//! other shared memory needs as well, files and locks on them, is in [`memfd`] and [`ofd_lock`].
//! [`above_stdio`] keeps every descriptor away from the standard ones, and [`sigpipe`] keeps a write
//! from ending the program.
//!
//! ```
//! use multiproc_shm::{Sealed, Segment, Writer, receive};
//! use std::io::Write;
//! use std::os::fd::AsFd;
//!
//! # fn main() -> std::io::Result<()> {
//! let mut writer = Writer::new()?;
//! writer.write_all(b"for good")?;
//! let sealed = writer.finish()?;
//! // What another process does with a copy of its descriptor:
//! let same = Sealed::open(sealed.as_fd().try_clone_to_owned()?, 8)?;
//! assert_eq!(same.as_ref(), b"for good");
//!
//! let mut segment = Segment::create(4096)?;
//! segment.bytes_mut()[..4].copy_from_slice(b"lent");
//! let frozen = segment.freeze();
//! let lent = frozen.lend()?;
//! assert!(frozen.is_lent());
//! // What another process does with that descriptor, and closes it:
//! assert_eq!(receive(lent, 4)?, b"lent");
//! let segment = frozen.thaw().expect("it came back");
//! # drop(segment);
//! # Ok(())
//! # }
//! ```

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

pub use checked::CheckedFd;
pub use deadline::Deadline;
pub use lent::receive;
pub use recheck::{OWNER_RECHECK, RECHECK};
pub use sealed::{Sealed, Writer};
pub use segment::{Frozen, Segment};
pub use stdio::above_stdio;

#[cfg(all(test, loom))]
mod loom_tests;

/// Nothing was taken: others, who are alive, had it all until the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;
