//! Locks and what goes with them, in shared memory, between processes: none hangs on the dead.
//!
//! A [`Lock`] can be cloned, sent to other processes (as an argument, through a connection), and used by all of them. When a process is killed while it holds one, the next that locks
//! it gets the guard, and is told.
//!
//! ```
//! use multiproc_sync::Lock;
//!
//! # fn main() -> std::io::Result<()> {
//! let printing = Lock::new()?;
//! {
//!     let _guard = printing.lock().expect("nobody died while printing");
//!     println!("nobody else prints now");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Which one
//!
//! | | for |
//! |---|---|
//! | [`Lock`] | one at a time |
//! | [`RLock`] | the same, where code under the lock takes it again |
//! | [`Mutex`] | one at a time, and the value it is about |
//! | [`BoundedSemaphore`] | so many at a time |
//! | [`Semaphore`] | counting what is ready; anyone may raise it |
//! | [`Event`] | waiting until something has happened |
//! | [`Condition`] | waiting until something under a lock is so |
//! | [`Barrier`] | waiting until all are there |
//! | [`Shared`], [`Atomic`] | a table, a number, without a lock |
//!
//! Each can be cloned, and sent to other processes in any message: clones, and what arrives, are the
//! same primitive. What happens when a holder or a waiter dies is on each one's page.
//!
//! # How it works, and what it costs
//!
//! A primitive is a word in a sealed memfd that every process maps. Nobody else waiting, `lock` and
//! `unlock` are one atomic instruction each. A waiter spins shortly, then sleeps in the kernel on a
//! futex, and looks up now and then ([`OWNER_RECHECK`], [`RECHECK`]) whether the holder is still
//! alive: that finds every death, at any instruction, and costs an idle waiter some wake-ups a
//! second. Whether a process is alive is
//! asked from the kernel, which holds a file lock for each (no pid that could be reused, no helper
//! thread). Nothing has a name in the file system; nothing is left behind, whatever is killed.
//!
//! Each primitive takes one descriptor and one page in each process that has it; up to 1024 processes
//! can have one open at a time. It needs `/proc`.
//!
//! # What it does not do
//!
//! It is not strictly fair: a newcomer may overtake waiters that sleep, but not for much longer than a
//! millisecond where it is a lock. A process that is stopped (SIGSTOP) is not dead: its locks stay its
//! own.
//!
//! # Forked processes, and closed descriptors
//!
//! A child made by fork(2) after handles exist is a member of its own: it excludes its parent, and the
//! death of either is noticed. What the parent holds stays the parent's; copies of guards have no
//! effect in the child. (A bare clone(2), without the handlers of pthread_atfork(3), is not supported.)
//!
//! If other code in the process closes the descriptor of a primitive, the process stays a member, but
//! can no longer tell whether other members are alive. Nobody is robbed then: `try_…` and `…_timeout`
//! fail, and an operation that would wait for a member without end panics with the reason.
//!
//! # Panics
//!
//! A panic that begins under a guard counts as the death of its holder: the next one that locks gets
//! [`Abandoned`], and a [`Mutex`] has the value that it had before.
//!
//! # For those who build other primitives
//!
//! [`raw`] has the algorithms, without handles. The regions they are placed in, and the atomics and the
//! futex they are made of, come from `multiproc-shm`. Under `--cfg loom`, the latter are loom's models,
//! and the handles are left out.

#[doc(hidden)]
pub mod fault;
pub mod raw;

#[cfg(not(loom))]
mod array;
#[cfg(not(loom))]
mod atomic;
#[cfg(not(loom))]
mod barrier;
#[cfg(not(loom))]
mod bounded_semaphore;
#[cfg(not(loom))]
mod condition;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
mod guard;
#[cfg(not(loom))]
mod inspect;
#[cfg(not(loom))]
mod lock;
#[cfg(not(loom))]
mod methods;
#[cfg(not(loom))]
mod mutex;
#[cfg(not(loom))]
mod rlock;
#[cfg(not(loom))]
mod robust;
#[cfg(not(loom))]
mod semaphore;

#[cfg(all(test, loom))]
mod loom_tests;

pub use multiproc_shm::{OWNER_RECHECK, RECHECK, primitives};
#[cfg(not(loom))]
pub use multiproc_shm::{placed, region};

#[cfg(not(loom))]
pub use {
    array::Shared,
    atomic::Atomic,
    barrier::{Barrier, BarrierWaitResult},
    bounded_semaphore::{BoundedSemaphore, Permit},
    condition::{Condition, ConditionGuard, WaitTimeoutResult},
    error::{
        Abandoned, AcquireTimeoutError, Broken, LockTimeoutError, SemaphoreOverflow,
        TryAcquireError, TryLockError,
    },
    event::Event,
    lock::{Lock, LockGuard},
    mutex::{Mutex, MutexGuard},
    rlock::{RLock, RLockGuard},
    semaphore::Semaphore,
};

#[cfg(not(loom))]
#[doc(hidden)]
pub use inspect::{Inspect, Inspection};
