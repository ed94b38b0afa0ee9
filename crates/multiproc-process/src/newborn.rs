//! What a child does before `main`.
//!
//! A child finds out that it is one before `main`, in a constructor: nothing of the program has run
//! then, so its environment, standard input and descriptors are those that its parent gave it, and
//! there are no threads that could notice a change. What it finds waits for `init`.
//!
//! Opens `unsafe` to be such a constructor, to take the marker out of the environment, and for calls
//! of libc: whether there are privileges or threads, and to end without destructors.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::{env, fs, io};

use multiproc_shm::above_stdio;
use rustix::fs::{FileType, fstat};
use rustix::io::{fcntl_dupfd_cloexec, fcntl_getfd};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::bootstrap::{ToParent, UNFIT};
use crate::inherited::close_inherited;
use crate::protocol::{MARKER, Mark};
use crate::thread::{no_signals, set_blocked_signals};
use crate::{executable, failpoint};

/// What a child knows before `main`.
pub(crate) struct Newborn {
    pub(crate) parent: ToParent,
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
pub(crate) fn newborn() -> Option<Newborn> {
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
        if Some(mark.copy) != executable::this_copy() {
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
        failpoint::reached("child.started");
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
    pub(crate) fn has_started_threads(&self) -> bool {
        !has_one_thread() && self.threads.is_none_or(|before| threads() > before)
    }
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
pub(crate) fn refuse(why: &str) -> ! {
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
