//! `init`, the first statement of `main`, and `enable_in_tests!`, which stands in for it.
//!
//! Opens `unsafe` to take the marker out of the environment, and to ignore SIGPIPE where std has not.
#![allow(unsafe_code)]

use std::env;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, fstat};

use crate::protocol::MARKER;
use crate::{bootstrap, children, fault};

/// Whether a child of this program would know what to do.
static INITIALIZED: AtomicBool = AtomicBool::new(false);

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
    if is_marked_child() {
        bootstrap::run();
    }
    // Queues need it. With one thread it takes 10 µs, with several 10 ms.
    multiproc_sync::primitives::has_light_fences();
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
        children::finish();
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
            static BEFORE_MAIN: extern "C" fn() = $crate::private::in_tests;
        };
    };
}

/// What [`enable_in_tests!`](crate::enable_in_tests) lets the loader call before `main`.
pub extern "C" fn in_tests() {
    INITIALIZED.store(true, Ordering::Relaxed);
    if is_marked_child() {
        // std's own start-up has not run. It ignores SIGPIPE, so that writing to a closed pipe is
        // an error and not the end.
        // SAFETY: nothing else runs yet, and SIG_IGN is a disposition.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        // It names the main thread. A thread of our own has a name, the usual stack of a main
        // thread, and a panic in it cannot unwind into the loader.
        let main = std::thread::Builder::new().name("main".to_owned()).stack_size(8 << 20);
        match main.spawn(|| bootstrap::run()) {
            Ok(main) => _ = main.join(),
            Err(error) => eprintln!("multiproc: a child process has no main thread: {error}"),
        }
        std::process::abort();
    }
}

/// Whether this process was started to run a function. Takes the mark away, so that no process that
/// it starts by other means has it.
fn is_marked_child() -> bool {
    let Some(mark) = env::var_os(MARKER) else { return false };
    fault::reached("child.started");
    // SAFETY: before anything else in `main`, or before `main`: there are no other threads yet that
    // could look at the environment. (A program that starts threads before `init` breaks what the
    // documentation of `init` says.)
    unsafe { env::remove_var(MARKER) };
    let stdin = std::io::stdin();
    // A program with more rights than whoever started it does not let itself be told what to run.
    // SAFETY: it looks up a number that the kernel gave to this program at its start.
    let is_privileged = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    let is_ours = !is_privileged
        && fstat(stdin.as_fd()).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::Socket
                && mark.to_str() == Some(&stat.st_ino.to_string())
        });
    if !is_ours {
        eprintln!(
            "multiproc: the environment variable {MARKER} is for internal use, and was not set by \
             this program; it is ignored"
        );
    }
    is_ours
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
