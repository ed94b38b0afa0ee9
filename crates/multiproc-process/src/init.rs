//! `init`, the first statement of `main`, and `enable_in_tests!`, which replaces it in test
//! programs.
//!
//! Unsafe code: the constructor of `enable_in_tests!`, and ignoring SIGPIPE where std has not.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{ptr, thread};

use crate::finish::FinishFailure;
use crate::newborn::{newborn, refuse};
use crate::thread::{all_signals, set_blocked_signals};
use crate::{bootstrap, finish};

/// Whether a child of this program would run its function: `init` or `enable_in_tests!` is there.
pub(crate) static INITIALIZED: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::Relaxed)
}

/// Enables this program to start processes. It must be the first statement of `main`.
///
/// In a process started by [`Process::spawn`](crate::Process::spawn), `init` runs the function and
/// exits the process, so the rest of `main` never runs in a child. In any other process it returns
/// a guard that waits for the children, or terminates them, at the end of `main`: see [`Runtime`].
///
/// Code before `init` runs in every child as well.
///
/// A child that cannot run its function prints the reason on standard error and exits with code
/// 102. It never runs the code after `init`.
///
/// # With an async runtime
///
/// `#[tokio::main]` and similar attributes start a runtime with its threads before `init` is
/// called. A child would run its function inside that runtime, where it cannot start one of its
/// own. Therefore a child that finds threads started by `main` exits with code 102. Call `init`
/// first and start the runtime after it:
///
/// ```ignore
/// fn main() -> std::io::Result<()> {
///     let _runtime = multiproc::init();
///     tokio::runtime::Runtime::new()?.block_on(async {
///         // ... the program ...
///         Ok(())
///     })
/// }
/// ```
///
/// A single-threaded runtime, as with `#[tokio::main(flavor = "current_thread")]`, is not detected.
/// It is wrong for the same reason.
///
/// # Panics
///
/// Panics if it is called twice: the first guard to be dropped would end the children of the other.
/// Do not call it in libraries or tests. In tests, use
/// [`enable_in_tests!`](crate::enable_in_tests).
///
/// ```
/// fn main() {
///     let _runtime = multiproc::init();
///     // ... the program ...
/// }
/// ```
#[doc(alias = "freeze_support")]
#[track_caller]
pub fn init() -> Runtime {
    static CALLED: AtomicBool = AtomicBool::new(false);
    assert!(
        !CALLED.swap(true, Ordering::Relaxed),
        "multiproc::init() was called twice: call it once, as the first statement of `main`; in tests, \
         use `multiproc::enable_in_tests!()` instead"
    );
    INITIALIZED.store(true, Ordering::Relaxed);
    if let Some(newborn) = newborn() {
        if newborn.has_started_threads() {
            refuse(
                "`multiproc::init()` was called after `main` had started other threads (`#[tokio::main]` \
                 starts some); call it first in an ordinary `fn main`, and start the runtime after \
                 it",
            );
        }
        bootstrap::run(newborn.parent);
    }
    // Registers the process for membarrier(2), which queues need: 10 µs with one thread, 10 ms with
    // several.
    multiproc_shm::primitives::has_light_fences();
    Runtime { this: PhantomData }
}

/// The guard returned by [`init`]. Dropping it, at the end of `main`, terminates daemon children
/// (SIGTERM, and SIGKILL if they are still alive after one second) and waits for all other
/// children.
///
/// It waits without a limit, also when `main` returns an error early; the error is printed only
/// afterwards. After one second, the guard prints on standard error which children it waits for,
/// and how to end the wait. Make workers that may wait for work that never comes daemons:
/// [`Builder::daemon`](crate::Builder::daemon).
///
/// If the guard is dropped by a panic that unwinds `main`, it terminates all children instead of
/// waiting for them, as [`scope`](crate::scope) does.
///
/// If the program ends without dropping the guard (`std::process::exit`, a signal, an abort), the
/// children receive SIGTERM, and SIGKILL half a second later.
///
/// Children with [`Builder::outlive_parent`](crate::Builder::outlive_parent) continue to run after
/// a panic, and after an end without the guard.
///
/// ```
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let _runtime = multiproc::init();
///     let worker = multiproc::Process::spawn(|()| println!("done"), ())?;
///     drop(worker); // detached, but the end of `main` waits for it
///     Ok(())
/// }
/// ```
#[derive(Debug)]
#[must_use = "dropping it waits for the children: bind it, `let _runtime = multiproc::init();`"]
pub struct Runtime {
    /// `!Send`: the guard stays in the thread that runs `main`.
    this: PhantomData<*const ()>,
}

impl Runtime {
    /// Ends the children as dropping the guard does: terminates daemons and waits for the others.
    /// Returns an error that lists the children which failed and whose failure the program has not
    /// handled.
    ///
    /// A child has failed if its exit code is not 0: its function panicked, or it was killed, or it
    /// exited with another code. The failure counts as handled if a handle of the child was used to
    /// join it, to wait for it, to query its exit status, or to signal it. The children of all
    /// threads count, and those whose handles were dropped.
    ///
    /// Drop the queues and connections that the children wait for first.
    ///
    /// ```
    /// # use multiproc::Process;
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let runtime = multiproc::init();
    ///     for n in 0..3 {
    ///         Process::spawn(|n: u32| println!("{n}"), n)?; // the handle is dropped
    ///     }
    ///     runtime.finish()?; // all have ended, and none has failed
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns a [`FinishFailure`] with the name, the process ID and the exit status of each child
    /// that failed.
    ///
    /// # When a process dies
    ///
    /// The wait for a child that is killed ends at once, and the child is in the list.
    #[doc(alias = "join")]
    pub fn finish(self) -> Result<(), FinishFailure> {
        drop(self);
        finish::unnoticed_failures()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if std::thread::panicking() {
            finish::terminate_children();
        } else {
            finish::wait_for_children();
        }
    }
}

/// Enables a test program to start processes. Invoke it once, at the top level of the program.
///
/// It is for programs with a generated `main`: unit tests, integration tests (each file under
/// `tests/` is a program), and benchmarks with a harness. The macro adds a function that the loader
/// calls before `main`. A child runs its function there and never reaches the test harness, so the
/// output of a child is not captured, and no test runs twice.
///
/// There is no guard: each test should join the processes that it starts.
///
/// ```
/// multiproc::enable_in_tests!();
///
/// # fn main() {
/// // in a #[test]
/// let child = multiproc::Process::spawn(|n: u32| n + 1, 41).unwrap();
/// assert_eq!(child.join().unwrap(), 42);
/// # }
/// ```
#[macro_export]
macro_rules! enable_in_tests {
    () => {
        const _: () = {
            #[used]
            // SAFETY: the loader calls the functions in this section before `main`, with the
            // arguments of this type.
            #[unsafe(link_section = ".init_array")]
            static BEFORE_MAIN: $crate::private::Constructor = before_main;

            // SAFETY: the linker defines this symbol, at the end of that section.
            unsafe extern "C" {
                #[link_name = "__init_array_end"]
                static END: $crate::private::Constructor;
            }

            extern "C" fn before_main(
                count: ::core::ffi::c_int,
                arguments: *const *const ::core::ffi::c_char,
                environment: *const *const ::core::ffi::c_char,
            ) {
                let run = |constructor: $crate::private::Constructor| {
                    constructor(count, arguments, environment);
                };
                // SAFETY: the loader calls this function from `BEFORE_MAIN`, and the table ends at
                // `END`.
                unsafe { $crate::private::in_tests(&raw const BEFORE_MAIN, &raw const END, run) };
            }
        };
    };
}

/// A function that the loader calls before `main`. glibc passes these arguments. Other C libraries
/// pass none, and constructors of their programs do not read any.
pub type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// The function that [`enable_in_tests!`](crate::enable_in_tests) registers to run before `main`.
///
/// # Safety
///
/// The loader must be calling the constructors of a table in which `this` is the current entry and
/// `end` is the end. `run` must call the constructor that it is passed.
pub unsafe fn in_tests(
    this: *const Constructor,
    end: *const Constructor,
    run: impl Fn(Constructor),
) {
    INITIALIZED.store(true, Ordering::Relaxed);
    if let Some(newborn) = newborn() {
        // The loader would call the remaining constructors next, but this function does not return.
        // `black_box`: to the compiler, `this` points to a single constructor, and not into a
        // table.
        let mut next = black_box(this.addr()) + size_of::<Constructor>();
        while next < end.addr() {
            let entry = ptr::with_exposed_provenance::<Option<Constructor>>(next);
            // SAFETY: by the contract, the address lies in the table.
            if let Some(constructor) = unsafe { entry.read() } {
                run(constructor);
            }
            next += size_of::<Constructor>();
        }
        // std's startup code has not run. It ignores SIGPIPE, so that a write to a closed pipe is
        // an error instead of a fatal signal.
        // SAFETY: no other thread runs yet, and SIG_IGN is a valid disposition.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        // As std names the main thread. A separate thread has the name and the usual stack size of
        // a main thread, and a panic in it cannot unwind into the loader.
        let main = thread::Builder::new().name("main".to_owned()).stack_size(8 << 20);
        // This thread only waits. Signals sent to the process are delivered to the other one.
        let signals = set_blocked_signals(&all_signals());
        let run = move || {
            set_blocked_signals(&signals);
            bootstrap::run(newborn.parent)
        };
        match main.spawn(run) {
            Ok(main) => _ = main.join(),
            Err(error) => eprintln!("multiproc: a child process has no main thread: {error}"),
        }
        std::process::abort();
    }
}

/// Unit tests are one of the places where `enable_in_tests!` is needed.
#[cfg(test)]
mod tests {
    use crate::Process;

    crate::enable_in_tests!();

    fn private(n: u32) -> u32 {
        n + 1
    }

    #[test]
    fn private_function_runs_in_a_process() {
        assert_eq!(Process::spawn(private, 1).unwrap().join().unwrap(), 2);
    }
}
