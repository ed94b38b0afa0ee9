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
//! Nothing is forked: a child has fresh memory and one thread (a daemon has a second one, which
//! watches its parent). It starts with no signals blocked, and threads of the library handle none. It
//! has the parent's command line, environment and working directory, unless [`Builder`] says otherwise.
//!
//! Its descriptors are standard input, output and error, those in its arguments, and two that tie it to
//! its parent. What its parent has open without close-on-exec it closes before `main`, unless
//! [`keep_descriptor`](Builder::keep_descriptor) asks for it.
//! (A library that the loader loads runs before that. A descriptor that it opens then without
//! close-on-exec cannot be told from one that was inherited, and is closed.)
//!
//! # What is where
//!
//! | | |
//! |---|---|
//! | start | [`Process::spawn`]; with name, daemon, environment, directory, output: [`Process::builder`] |
//! | for a piece of code | [`scope`]: all its processes have ended when it returns |
//! | the result, or why there is none | [`Process::join`], [`join_timeout`](Process::join_timeout) |
//! | wait, look | [`wait`](Child::wait), [`wait_timeout`](Child::wait_timeout), [`is_alive`](Child::is_alive), [`exit_status`](Child::exit_status); a [`Process`] is its own sentinel (`AsFd`) |
//! | end | [`interrupt`](Child::interrupt), [`terminate`](Child::terminate), [`kill`](Child::kill) |
//! | for programs that start apart | [`Manager`]: queues, locks and the rest by name |
//! | who is there | [`active_children`], [`current_process`], [`parent_process`], [`cpu_count`] |
//!
//! # When a process dies
//!
//! [`Process::join`] gives the result of the function, or says how the child ended: its panic
//! message, its exit code, the signal that killed it. That holds from the first instruction of the
//! child to its last: one that dies before [`init`], or while it takes its arguments, or with half
//! its result sent, is reported at once. Whatever it held of the layers below is recovered there,
//! see their pages. When the parent dies, however it dies, its daemon children end within a second.
//!
//! A panic in a child is printed on its standard error, after the name of the process, and `join` has
//! its message and place. The process ends with exit code 101; or by SIGABRT, if the program is built
//! to abort on panics, or the panic comes where nothing can unwind.
//!
//! # What it does not do
//!
//! Linux only (5.10 or newer; x86-64 is tested, aarch64 should work). Parent and child must be the
//! same executable: a library that is loaded at run time cannot start processes
//! ([`SpawnError::NotInExecutable`]), nor can a program that was started by naming the loader
//! (`ld.so program`). Nor can a program that has more rights than the user who started it, as a
//! set-user-ID program has ([`SpawnError::Privileged`]).
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

#[doc(no_inline)]
pub use multiproc_pipe as pipe;
#[doc(no_inline)]
pub use multiproc_queue as queue;
#[doc(no_inline)]
pub use multiproc_sync as sync;

#[cfg(feature = "manager")]
pub use multiproc_manager::{Manager, ManagerBuilder, ManagerError, Name, ObjectInfo, ObjectKind};
#[cfg(feature = "json")]
pub use multiproc_pipe::Json;
#[doc(no_inline)]
pub use multiproc_process::ProcessBuilder;
pub use multiproc_process::{
    Builder, Child, CurrentProcess, ExitStatus, JoinError, JoinTimeoutError, ParentProcess,
    Process, Runtime, Scope, SpawnError, active_children, cpu_count, current_process,
    enable_in_tests, init, parent_process, scope,
};
pub use multiproc_queue::{
    Consumer, DeadLetter, JoinableQueue, Producer, Queue, Receipt, Shutdown, Task,
};
pub use multiproc_sync::{
    Atomic, Barrier, BoundedSemaphore, Condition, Event, Lock, Mutex, RLock, Semaphore, Shared,
};

#[doc(hidden)]
pub use multiproc_process::private;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/from-python.md")]
struct FromPython;
