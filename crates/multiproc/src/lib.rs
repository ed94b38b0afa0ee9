#![doc = include_str!("../README.md")]
//!
//! # How a process starts
//!
//! [`Process::spawn`] starts this executable again, and passes it the function and its arguments.
//! The child runs `main`, so the first statement of `main` must be [`init`]: there the child runs
//! the function and exits. In the parent, `init` returns a guard that waits for the children at the
//! end of `main`. Test programs have no `main` of their own: invoke [`enable_in_tests!`] in them
//! once.
//!
//! Nothing is forked. A child has fresh memory and one thread, beside a small one that watches its
//! parent. A child's threads end when its function returns, as those of a program end with `main`.
//! It starts with no signal blocked, and the threads of the library handle no
//! signals. It has the command line, environment and working directory of its parent, unless
//! [`Builder`] changes them.
//!
//! The descriptors of a child are standard input, output and error, those in its arguments, and two
//! that connect it to its parent. Descriptors that the parent has open without close-on-exec are
//! closed in the child before `main`, except those passed to
//! [`keep_descriptor`](Builder::keep_descriptor). A descriptor that a shared library opens without
//! close-on-exec when it is loaded is closed as well.
//!
//! # Overview
//!
//! | task | item |
//! |---|---|
//! | start a process | [`Process::spawn`]; with a name, environment, directory or output: [`Process::builder`] |
//! | start processes that end with a block | [`scope`] |
//! | get the result | [`Process::join`], [`join_timeout`](Process::join_timeout); of a function that returns a `Result`: [`join_result`](Process::join_result), [`RemoteError`] |
//! | wait, or query the status | [`wait`](Child::wait), [`wait_timeout`](Child::wait_timeout), [`is_alive`](Child::is_alive), [`exit_status`](Child::exit_status); a [`Process`] is a pollable descriptor (`AsFd`) |
//! | end a process | [`interrupt`](Child::interrupt), [`terminate`](Child::terminate), [`kill`](Child::kill) |
//! | queue items | [`Queue`]; with acknowledgement and redelivery: [`JoinableQueue`] |
//! | send messages | [`duplex`], [`simplex`]; between separate programs: `Listener` and `connect` |
//! | wait for the first of several things | [`wait`](wait()), [`WaitSet`]: messages, items, children that end |
//! | synchronise | [`Lock`], [`RLock`], [`Mutex`], [`RwLock`], [`Semaphore`], [`Condition`], [`Event`], [`Barrier`] |
//! | share memory | [`Shared`], [`Atomic`], [`SharedBytes`] |
//! | find objects by name | `Manager` |
//! | list processes | [`active_children`], [`current_process`], [`parent_process`], [`cpu_count`] |
//!
//! # When a process dies
//!
//! [`Process::join`] returns the result of the function, or reports how the child ended: its panic
//! message, its exit code, or the signal that killed it. A child that dies at any time is reported
//! at once: before [`init`], while it decodes its arguments, or while it sends its result. What it
//! held of queues, connections and locks is recovered as their pages describe. When a parent dies
//! in any way, its children end within one second, unless
//! [`outlive_parent`](Builder::outlive_parent) is set.
//!
//! A panic in a child is printed on its standard error after a line with the name of the process,
//! and `join` returns its message and location. The process exits with code 101. If the program is
//! built to abort on panics, or the panic cannot unwind, it ends by SIGABRT.
//!
//! # Limitations
//!
//! Parent and child run the same executable. A library that is loaded at run time cannot start
//! processes ([`SpawnError::NotInExecutable`]), and neither can a program started through the
//! loader (`ld.so program`). A program with more privileges than the user who started it, such as a
//! set-user-ID program, cannot start processes either ([`SpawnError::Privileged`]).
//!
//! # Crates
//!
//! This crate re-exports the crates below. Each can be used alone.
//!
//! | crate | contents |
//! |---|---|
//! | `multiproc-process` | [`Process`], [`scope`], [`init`] |
//! | [`multiproc-pipe`](pipe) | typed connections, and messages that carry descriptors |
//! | [`multiproc-sync`](sync) | locks, semaphores, events, conditions and barriers in shared memory |
//! | [`multiproc-queue`](queue) | queues in shared memory |
//! | `multiproc-manager` | `Manager`: objects by name, for separate programs |
//!
//! # Features
//!
//! - `listener` (default): `Listener` and `connect`, for connections between programs.
//! - `manager` (default): `Manager`.
//! - `program` (default): the program `multiproc-manager`, the same as `multiproc manager` of the
//!   crate `multiproc-cli`. A library can disable it.
//! - `anyhow`, `eyre`: [`RemoteError`] converts into the errors of these crates. Theirs convert
//!   into it in any case.
//! - `json`: [`Json`](pipe), for values that only a self-describing format can hold.

// The examples show whole programs, because `init` belongs in `main`.
#![allow(clippy::needless_doctest_main)]

#[doc(no_inline)]
pub use multiproc_pipe as pipe;
#[doc(no_inline)]
pub use multiproc_queue as queue;
#[doc(no_inline)]
pub use multiproc_sync as sync;

#[cfg(feature = "manager")]
pub use multiproc_manager::{
    Diagnosis, ManagedObject, ManagedQueueBuilder, Manager, ManagerBuilder, ManagerError, Name,
    ObjectInfo, ObjectKind,
};
#[cfg(feature = "json")]
pub use multiproc_pipe::Json;
#[cfg(feature = "listener")]
pub use multiproc_pipe::{Address, Listener, connect};
pub use multiproc_pipe::{
    Bytes, Connection, Descriptor, Receiver, Sender, SharedBytes, SharedPool, Source, WaitSet,
    duplex, simplex, wait,
};
#[doc(no_inline)]
pub use multiproc_pipe::{Decode, Encode, Message};
#[doc(no_inline)]
pub use multiproc_process::ProcessBuilder;
pub use multiproc_process::{
    Arguments, Builder, Child, CurrentProcess, ExitStatus, FailedProcess, FinishFailure, Function,
    JoinError, JoinTimeoutError, ParentProcess, Process, RemoteError, Resource, Runtime, Scope,
    SpawnError, StartResult, active_children, cpu_count, current_process, enable_in_tests, init,
    parent_process, scope,
};
pub use multiproc_queue::{
    Consumer, DeadLetter, JoinableQueue, Producer, Queue, Receipt, Shutdown, Task, TaskConsumer,
    TaskProducer,
};
pub use multiproc_sync::{
    Atomic, Barrier, BoundedSemaphore, Condition, Event, Lock, Mutex, RLock, RwLock, Semaphore,
    Shared,
};

#[doc(hidden)]
pub use multiproc_process::private;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/from-python.md")]
struct FromPython;
