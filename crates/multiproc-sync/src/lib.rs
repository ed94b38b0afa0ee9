#![doc = include_str!("../README.md")]
//!
//! # Choosing a primitive
//!
//! | type | purpose |
//! |---|---|
//! | [`Lock`] | mutual exclusion |
//! | [`RLock`] | mutual exclusion, where code under the lock locks it again |
//! | [`Mutex`] | mutual exclusion, and the value that the lock protects |
//! | [`RwLock`] | many readers or one writer, and the value that the lock protects |
//! | [`BoundedSemaphore`] | at most N holders at a time |
//! | [`Semaphore`] | a count of what is ready, which any process may raise |
//! | [`Event`] | to wait until something has happened |
//! | [`Condition`] | to wait until something under a lock is true |
//! | [`Barrier`] | to wait until all parties have arrived |
//! | [`Shared`], [`Atomic`] | a table of values, a number; without a lock |
//!
//! Each can be cloned, and sent to other processes in any message. Clones and received handles are
//! the same primitive. The page of each type states what happens when a holder or a waiter dies.
//!
//! # How it works, and what it costs
//!
//! A primitive is a control block in a sealed memfd that every process maps. Without contention,
//! `lock` and `unlock` are one atomic instruction each. A waiter spins briefly and then sleeps on a
//! futex. It wakes up at intervals ([`OWNER_RECHECK`], [`RECHECK`]) and asks the kernel whether the
//! owner is still alive. That detects a death at any instruction, and costs a waiter a few wake-ups
//! per second.
//!
//! The kernel knows which processes are alive because each holds a file lock for as long as it
//! lives. So there is no pid that could be reused, and no helper thread. Nothing has a name in the
//! file system, so nothing is left behind when processes are killed. The kernel's robust futexes
//! (get_robust_list(2)) are not used: each thread has one list of them, which belongs to libc.
//!
//! # Fairness
//!
//! Locks are not strictly fair. A newcomer may overtake sleeping waiters, but a waiter that has
//! been overtaken for a millisecond is next. Semaphores are not fair. A process that is stopped
//! (SIGSTOP) is not dead: it keeps its locks and permits.
//!
//! # Panics under a guard
//!
//! A panic that begins under a guard counts as the death of the holder: the next acquirer gets
//! [`Abandoned`], and a [`Mutex`] keeps the value that it had before.
//!
//! # fork(2)
//!
//! A child made by fork(2) after handles exist is a member of its own: it excludes its parent, and
//! the death of either is detected. What the parent holds stays the parent's; the copies of its
//! guards have no effect in the child. A bare clone(2), which skips the handlers of
//! pthread_atfork(3), is not supported.
//!
//! # Closed descriptors
//!
//! If other code in the process closes the descriptor of a primitive, the process remains a member,
//! but it can no longer tell whether other members are alive. Two owners are never admitted then:
//! `try_…` and `…_timeout` methods fail, and a method that would have to wait for a possibly dead
//! member indefinitely panics with the reason.
//!
//! # Building other primitives
//!
//! [`raw`] contains the algorithms, without handles. The regions that they are placed in, and the
//! atomics and futexes that they are made of, come from `multiproc-shm`. Under `--cfg loom`, the
//! latter are loom's models, and the handles are left out.

#[doc(hidden)]
pub mod fault;
pub mod raw;

#[cfg(not(loom))]
mod array;
#[cfg(not(loom))]
mod atomic;
#[cfg(not(loom))]
mod atomic_array;
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
mod plain;
#[cfg(not(loom))]
mod rlock;
#[cfg(not(loom))]
mod robust;
#[cfg(not(loom))]
mod rwlock;
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
    atomic_array::AtomicInteger,
    barrier::{Barrier, BarrierWaitResult},
    bounded_semaphore::{BoundedSemaphore, Permit},
    condition::{Condition, ConditionGuard, Release, WaitTimeoutResult},
    error::{
        Abandoned, AbandonedError, AcquireTimeoutError, Broken, LockTimeoutError,
        SemaphoreOverflow, TryAcquireError, TryLockError,
    },
    event::Event,
    lock::{Lock, LockGuard},
    mutex::{Mutex, MutexGuard},
    plain::Plain,
    rlock::{RLock, RLockGuard},
    rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    semaphore::Semaphore,
};

#[cfg(not(loom))]
#[doc(hidden)]
pub use inspect::{Inspect, Inspection};
