//! Processes that run a function of your program, and what they talk through: pipes, queues, locks.
//!
//! ```
//! use multiproc::{Process, Queue};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let _runtime = multiproc::init();
//!     let squares = Queue::bounded(10)?;
//!     let worker = Process::spawn(
//!         |(numbers, squares): (Vec<u64>, Queue<u64>)| {
//!             for number in numbers {
//!                 squares.put(number * number).unwrap();
//!             }
//!         },
//!         (vec![1, 2, 3], squares.clone()),
//!     )?;
//!     worker.join()?;
//!     assert_eq!((squares.get()?, squares.get()?, squares.get()?), (1, 4, 9));
//!     Ok(())
//! }
//! ```
//!
//! # How a process starts
//!
//! [`Process::spawn`] starts this same executable anew, and gives it the function to run and its
//! arguments. The child runs `main`, and so the first statement of `main` must be [`init`]: there the
//! child runs the function, and ends. In the parent `init` gives a guard that looks after the
//! children at the end of `main`. Test programs have no `main` of their own: put
//! [`enable_in_tests!`] into them once.
//!
//! Nothing is forked: a child has fresh memory, one thread, and no descriptor but standard output
//! and standard error, and those in its arguments.
//!
//! # When a process dies
//!
//! [`Process::join`] gives the result of the function, or says how the child ended: its panic
//! message, its exit code, the signal that killed it. Whatever it held of the layers below is
//! recovered there, see their pages. When the parent dies, however it dies, its daemon children end
//! within a second.
//!
//! # What it does not do
//!
//! Linux only (5.10 or newer; x86-64 is tested, aarch64 should work). Parent and child must be the
//! same executable: the function cannot live in a shared library that was loaded at run time.
//!
//! # The layers
//!
//! | crate | what |
//! |---|---|
//! | [`pipe`] | typed connections, messages that carry descriptors |
//! | [`sync`] | locks, semaphores, events, conditions, barriers, in shared memory; none hangs on the dead |
//! | [`queue`] | bounded queues in shared memory |

// The examples show whole programs, `main` and all: that is where `init` belongs.
#![allow(clippy::needless_doctest_main)]

mod bootstrap;
mod children;
mod error;
mod init;
mod manager;
mod process;
mod protocol;
mod spawn;
mod status;

#[doc(no_inline)]
pub use multiproc_pipe as pipe;
#[doc(no_inline)]
pub use multiproc_queue as queue;
#[doc(no_inline)]
pub use multiproc_sync as sync;

pub use multiproc_queue::{JoinableQueue, Queue};
pub use multiproc_sync::{
    Atomic, Barrier, BoundedSemaphore, Condition, Event, Lock, Mutex, RLock, Semaphore, Shared,
};

pub use children::{Child, active_children};
pub use error::{JoinError, SpawnError};
pub use init::{Runtime, init};
pub use manager::{Manager, ManagerBuilder, ManagerError, Name, ObjectInfo, ObjectKind};
pub use process::{Builder, Process};
pub use status::ExitStatus;

#[doc(hidden)]
pub mod private {
    pub use crate::init::in_tests;
}

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
