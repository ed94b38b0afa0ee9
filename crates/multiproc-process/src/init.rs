//! `init`, the first statement of `main`; `enable_in_tests!`, which stands in for it; and what a child
//! does before either.
//!
//! A child finds out that it is one before `main`, in a constructor: nothing of the program has run
//! then, so its environment, standard input and descriptors are those that its parent gave it, and
//! there are no threads that could notice a change. What it finds waits for `init`.
//!
//! Opens `unsafe` to be such a constructor, to take the marker out of the environment, and to set what
//! happens on signals: to ignore SIGPIPE where std has not, and to block signals in threads of the
//! library.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::fs::File;
use std::hint::black_box;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::{env, fs, io, ptr, thread};

use multiproc_shm::above_stdio;
use rustix::fs::{FileType, fstat};
use rustix::io::{fcntl_dupfd_cloexec, fcntl_getfd};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::bootstrap::{ToParent, UNFIT};
use crate::protocol::{Inherits, MARKER, Mark};
use crate::{bootstrap, children, fault};

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

/// What a child knows before `main`.
struct Newborn {
    parent: ToParent,
    /// How many threads it had before `main`, if a library has started some when it was loaded.
    threads: Option<u64>,
}

/// `None` in a process that was not started by [`Process::spawn`](crate::Process::spawn), and as soon
/// as somebody has taken it.
static NEWBORN: LazyLock<Mutex<Option<Newborn>>> = LazyLock::new(|| Mutex::new(Newborn::look()));

/// Called by the loader before `main`, and before the constructors of the program itself.
#[used]
// SAFETY: the loader calls the functions in this section, and this one has the type that it calls.
// Those with a number come first, in its order; std's own, which keeps the arguments, has 99.
#[unsafe(link_section = ".init_array.00100")]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn before_main() {
        LazyLock::force(&NEWBORN);
    }
    before_main
};

/// Also looks, should a linker have left the constructor out.
fn newborn() -> Option<Newborn> {
    NEWBORN.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Newborn {
    fn look() -> Option<Self> {
        let mark = env::var_os(MARKER)?;
        let stdin = fstat(io::stdin());
        let socket = stdin
            .ok()
            .filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
            .map(|stat| stat.st_ino);
        let Some(mark) = mark.to_str().and_then(Mark::parse) else {
            // With a socket, it may be for another version of this library.
            if socket.is_none() {
                eprintln!(
                    "multiproc: the environment variable {MARKER} is for internal use, and was not \
                     set by this library; it is ignored"
                );
            }
            return None;
        };
        if Some(mark.copy) != bootstrap::this_copy() {
            return None;
        }
        // This copy of the library started this process, and only to run a function: if it cannot do
        // that it must end, since `main` would start another one.
        if is_privileged() {
            refuse(
                "the program gives more rights than its user has (set-user-ID, set-group-ID or file \
                 capabilities), so whoever started it cannot be trusted",
            );
        }
        if socket != Some(mark.socket) {
            refuse("its standard input is not the socket of its parent");
        }
        // Nothing that this process starts by other means is to have it.
        // SAFETY: before `main`, so no code of the program runs in another thread, and that of the
        // loader and of the libraries that it has loaded does not use the environment.
        unsafe { env::remove_var(MARKER) };
        fault::reached("child.started");
        Some(Self::be_child(&mark).unwrap_or_else(|error| refuse(&error.to_string())))
    }

    fn be_child(mark: &Mark) -> io::Result<Self> {
        // The parent's thread that started this process may have blocked some.
        set_blocked_signals(&no_signals());
        let socket = fcntl_dupfd_cloexec(io::stdin(), 3)?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let null = above_stdio(null.into())?;
        dup2_stdin(&null)?;
        // As std does, but not before `main`. So none of what this process opens gets these numbers.
        if fcntl_getfd(io::stdout()).is_err() {
            dup2_stdout(&null)?;
        }
        if fcntl_getfd(io::stderr()).is_err() {
            dup2_stderr(&null)?;
        }
        close_inherited(mark.inherits, &mark.keep)?;
        let parent = ToParent::from_socket(socket)?;
        if mark.inherits.any {
            // If the parent has died, that is noticed later.
            let _ = parent.send(None);
        }
        Ok(Self { parent, threads: (!has_one_thread()).then(threads) })
    }

    /// Whether there are more threads now than before `main`.
    fn has_started_threads(&self) -> bool {
        !has_one_thread() && self.threads.is_none_or(|before| threads() > before)
    }
}

/// Closes what the parent has not opened for this process: all descriptors without close-on-exec. So
/// those that a library has opened when it was loaded stay open, unless it has left out that flag.
fn close_inherited(inherits: Inherits, keep: &[RawFd]) -> io::Result<()> {
    // A list of them takes 100 µs in a new process, and a try a tenth of a microsecond.
    let numbers: Vec<RawFd> = match inherits.below {
        RawFd::MAX => open_descriptors()?.collect(),
        below => (3..below).collect(),
    };
    for number in numbers.into_iter().filter(|&number| is_inherited(number, keep)) {
        // SAFETY: nothing in this process has opened it, so nothing expects it to be there.
        unsafe { rustix::io::close(number) };
    }
    Ok(())
}

/// Finds out what a child inherits and has to close. For a process with many descriptors this is a
/// guess, so that it takes no time.
pub(crate) fn what_a_child_inherits(keep: &[RawFd]) -> io::Result<Inherits> {
    const MANY: usize = 256;
    /// How many descriptors other threads may open until the child has started. They get the lowest
    /// numbers that are free.
    const MEANWHILE: RawFd = 64;
    let mut numbers = open_descriptors()?;
    let mut inherits = Inherits { any: false, below: 0 };
    for number in numbers.by_ref().take(MANY) {
        inherits.any |= is_inherited(number, keep);
        inherits.below = inherits.below.max(number.saturating_add(MEANWHILE));
    }
    let many = numbers.next().is_some() || inherits.below > 1024;
    Ok(if many { Inherits { any: true, below: RawFd::MAX } } else { inherits })
}

fn open_descriptors() -> io::Result<impl Iterator<Item = RawFd>> {
    let entries = fs::read_dir("/proc/self/fd")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// Whether a program that this process starts has the descriptor, and is not meant to have it.
fn is_inherited(number: RawFd, keep: &[RawFd]) -> bool {
    // SAFETY: it takes any number, and fails if there is no such descriptor.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    number > 2 && flags != -1 && flags & libc::FD_CLOEXEC == 0 && !keep.contains(&number)
}

/// Whether this thread is the only one of this process. `false` if the kernel does not tell.
fn has_one_thread() -> bool {
    // unshare(2): with this flag it changes nothing, and fails if there are other threads. (It is a
    // fraction of what /proc takes in a new process.)
    // SAFETY: it changes nothing.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// Returns a number that grows with each thread of this process.
fn threads() -> u64 {
    // A folder has a link for each folder in it, and here these are the threads.
    fs::metadata("/proc/self/task").map_or(0, |tasks| tasks.nlink())
}

/// Ends a child that must not go on in `main`.
fn refuse(why: &str) -> ! {
    eprintln!("multiproc: a child process cannot run its function: {why}");
    // SAFETY: it has no preconditions. It calls no destructors: not all constructors have been called,
    // or other threads still use what would be destroyed.
    unsafe { libc::_exit(UNFIT) }
}

/// Whether this program has more rights than whoever started it: then it does not let itself be told
/// what to run, and so cannot start children either.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: it looks up a number that the kernel gave to this program at its start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Starts a thread of the library. It handles no signals: a handler may need more stack than it has,
/// and a signal that the program waits for must not end up here.
pub(crate) fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = thread::Builder::new().name(name.to_owned()).stack_size(64 * 1024);
    // A thread begins with what is blocked where it is started.
    let signals = set_blocked_signals(&all_signals());
    let started = builder.spawn(body);
    set_blocked_signals(&signals);
    started.map(drop)
}

fn no_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: it writes a set there.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: now there is one.
    unsafe { set.assume_init() }
}

fn all_signals() -> libc::sigset_t {
    let mut set = no_signals();
    // SAFETY: it writes a set there. (Without those that the C library needs for itself.)
    unsafe { libc::sigfillset(&raw mut set) };
    set
}

/// Blocks these signals in this thread, and no others. Returns those that were blocked before.
fn set_blocked_signals(signals: &libc::sigset_t) -> libc::sigset_t {
    let mut before = no_signals();
    // SAFETY: it reads the one set and writes the other.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, signals, &raw mut before) };
    before
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
