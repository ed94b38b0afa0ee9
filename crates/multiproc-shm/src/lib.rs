//! Anonymous shared memory between processes, and whether its members are alive.
//!
//! This is the foundation of `multiproc-sync` and `multiproc-queue`: what a primitive in shared memory
//! needs, and the only crate with unsafe code for it.
//!
//! # Regions and members
//!
//! A [`region`] is a sealed memfd that each process maps. It begins with a *control block*, a struct of
//! atomics that [`placed!`] checks. Each process that opens a region becomes a *member*: it holds an
//! open-file-description lock ([`ofd_lock`]) that the kernel drops when the process ends, by whatever
//! cause. So any member can ask in a microsecond whether another one is alive, without pids and without
//! a thread that polls. A child made by fork(2) is a member of its own.
//!
//! ```
//! use multiproc_shm::placed;
//! use multiproc_shm::primitives::{AtomicU32, Ordering};
//! use multiproc_shm::region::{Control, Region};
//!
//! #[repr(C)]
//! struct Tickets {
//!     next: AtomicU32,
//! }
//!
//! placed!(Tickets { next });
//!
//! impl Control for Tickets {
//!     const KIND: u32 = u32::from_le_bytes(*b"TICK");
//!     const NAME: &'static str = "ticket counter";
//!     fn release_slot(&self, _: &[AtomicU32], _: usize) {} // a dead member owns nothing of it
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let region = Region::create(0, |_: &Tickets| {})?;
//! assert_eq!(region.control().next.fetch_add(1, Ordering::Relaxed), 0);
//! assert_eq!(region.live_members(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Waiting
//!
//! [`primitives`] are atomics and the futex, or loom's models of them: `--cfg loom` decides, and the
//! algorithms are the same. On them are built the place to wait ([`event_count`]) and the lock of some
//! instructions that survives its owner ([`owner_lock`]), with the fences that both sides need
//! ([`fences`]). A sleeper rechecks every [`RECHECK`] whether a death has taken its wake-up along.
//!
//! # Bytes that cross
//!
//! | | the sender | the receiver | costs |
//! |---|---|---|---|
//! | [`Sealed`] | writes once, seals | reads where it lies | fresh pages each time |
//! | [`Segment`] | writes through its one mapping, lends, and takes it back | copies out: [`receive`] | one copy |
//!
//! There are two ways, because memory that is sealed against writing can never be written again, and
//! memory that is used again cannot be sealed. Programs use them as `SharedBytes` and `SharedPool` of
//! `multiproc-pipe`.
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

//!
//! # Descriptors
//!
//! [`above_stdio`] keeps every descriptor away from the standard ones, [`CheckedFd`] notices that other
//! code has closed one, and [`sigpipe`] keeps a write from ending the program.

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
