//! `init`, the first statement of `main`; and `enable_in_tests!`, which stands in for it.
//!
//! Opens `unsafe` for the constructor of `enable_in_tests!`, and to ignore SIGPIPE where std has not.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{ptr, thread};

use crate::newborn::{newborn, refuse};
use crate::thread::{all_signals, set_blocked_signals};
use crate::{bootstrap, child_table};

/// Whether a child of this program would know what to do.
pub(crate) static INITIALIZED: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::Relaxed)
}

/// Makes this program able to start processes. The first statement of `main`.
///
/// In a process that was started by [`Process::spawn`](crate::Process::spawn) it runs the function,
/// and never returns: nothing of `main` behind it happens in a child. Otherwise it returns a guard,
/// which looks after the children at the end of `main`: see [`Runtime`].
///
/// What comes before it in `main` happens in every child, too.
///
/// A child that cannot run its function prints why on standard error, and exits with code 102. It
/// never comes to what is behind `init`.
///
/// # With an async runtime
///
/// `#[tokio::main]` and the like make `main` a task of a runtime, which has started its threads by the
/// time `init` is called. A child would run its function inside that runtime, where it cannot start one
/// of its own. So a child that finds threads that `main` has started exits with code 102. Call `init`
/// first, and start the runtime after it:
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
/// (A runtime of one thread, as with `#[tokio::main(flavor = "current_thread")]`, is not noticed. It is
/// wrong for the same reason.)
///
/// # Panics
///
/// If it is called twice: the first guard to be dropped would end the children of the other. So it
/// belongs neither into libraries nor into tests: there
/// [`enable_in_tests!`](crate::enable_in_tests) takes its place.
///
/// ```
/// fn main() {
///     let _runtime = multiproc::init();
///     // ... the program ...
/// }
/// ```
#[track_caller]
pub fn init() -> Runtime {
    static CALLED: AtomicBool = AtomicBool::new(false);
    assert!(
        !CALLED.swap(true, Ordering::Relaxed),
        "multiproc::init() was called a second time: it belongs into `main`, once, as its first \
         statement; in tests `multiproc::enable_in_tests!()` takes its place"
    );
    INITIALIZED.store(true, Ordering::Relaxed);
    if let Some(newborn) = newborn() {
        if newborn.has_started_threads() {
            refuse(
                "`multiproc::init()` was called after `main` had started other threads (`#[tokio::main]` \
                 starts some); call it first in an ordinary `fn main`, and start the runtime after it",
            );
        }
        bootstrap::run(newborn.parent);
    }
    // Queues need it. With one thread it takes 10 µs, with several 10 ms.
    multiproc_shm::primitives::has_light_fences();
    Runtime { this: PhantomData }
}

/// The guard of [`init`]. When it is dropped, at the end of `main`, daemon children are terminated
/// (SIGTERM, and SIGKILL if they are still there a second later), and all others are waited for.
///
/// Waited for as long as they take, also when `main` ends early with an error, which is shown only
/// afterwards. So let workers that wait for work that may never come be daemons:
/// [`Builder::daemon`](crate::Builder::daemon).
///
/// If the program ends without dropping it (by `std::process::exit`, a signal, an abort), daemon
/// children end within a second all the same, and the others go on.
#[derive(Debug)]
#[must_use = "dropping it waits for the children: bind it, `let _runtime = multiproc::init();`"]
pub struct Runtime {
    /// Stays in the thread that runs `main`.
    this: PhantomData<*const ()>,
}

impl Drop for Runtime {
    fn drop(&mut self) {
        child_table::finish();
    }
}

/// Makes a test program able to start processes: once, at the top level of the program.
///
/// For programs whose `main` is not their own: unit tests, integration tests (each file under
/// `tests/` is a program), benches with a harness. It adds a function that the loader calls before
/// `main`: a child runs its function there, and never comes to the test harness. So the child's
/// output is not captured, and no test is run twice.
///
/// There is no guard then: a test should join what it starts.
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
            // SAFETY: the loader calls the functions in this section before `main`, and this one has
            // the type that it calls.
            #[unsafe(link_section = ".init_array")]
            static BEFORE_MAIN: $crate::private::Constructor = before_main;

            // SAFETY: the linker puts this symbol behind the last function of that section.
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
                // SAFETY: this is called from the one place, and the other one is behind it.
                unsafe { $crate::private::in_tests(&raw const BEFORE_MAIN, &raw const END, run) };
            }
        };
    };
}

/// A function that the loader calls before `main`. (glibc passes these arguments. Other C libraries pass
/// none, and none of their programs looks at them.)
pub type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// What [`enable_in_tests!`](crate::enable_in_tests) lets the loader call before `main`.
///
/// # Safety
///
/// The loader calls the constructors from a table, and is at `this` in it, which ends at `end`. `run`
/// calls one of them.
pub unsafe fn in_tests(
    this: *const Constructor,
    end: *const Constructor,
    run: impl Fn(Constructor),
) {
    INITIALIZED.store(true, Ordering::Relaxed);
    if let Some(newborn) = newborn() {
        // The loader would call them next, and never gets to it.
        // The compiler knows `this` as a single constructor, and not as a part of a table.
        let mut next = black_box(this.addr()) + size_of::<Constructor>();
        while next < end.addr() {
            let entry = ptr::with_exposed_provenance::<Option<Constructor>>(next);
            // SAFETY: by the contract, it lies in the table.
            if let Some(constructor) = unsafe { entry.read() } {
                run(constructor);
            }
            next += size_of::<Constructor>();
        }
        // std's own start-up has not run. It ignores SIGPIPE, so that writing to a closed pipe is
        // an error and not the end.
        // SAFETY: nothing else runs yet, and SIG_IGN is a disposition.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        // It names the main thread. A thread of our own has a name, the usual stack of a main
        // thread, and a panic in it cannot unwind into the loader.
        let main = thread::Builder::new().name("main".to_owned()).stack_size(8 << 20);
        // This thread only waits. The signals of the process are for the other one.
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
    fn a_private_function_runs_in_a_process() {
        assert_eq!(Process::spawn(private, 1).unwrap().join().unwrap(), 2);
    }
}
