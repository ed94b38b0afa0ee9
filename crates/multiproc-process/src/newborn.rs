//! What a child does before `main`.
//!
//! A child detects in a constructor, before `main`, that it is one. At that time no code of the
//! program has run, so the environment, standard input and the descriptors are those that its
//! parent passed, and no other thread can observe the changes. `init` takes the result.
//!
//! Unsafe code: the constructor, the environment and the descriptors that the parent passed, and
//! calls of libc that query privileges and threads, ignore a signal, or exit without running
//! destructors.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::{env, fs, io};

use multiproc_shm::above_stdio;
use rustix::fs::{FileType, fstat};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::bootstrap::{ToParent, UNFIT};
use crate::inherited::close_inherited;
use crate::protocol::{MARKER, Mark};
use crate::thread::{no_signals, set_blocked_signals};
use crate::{executable, failpoint};

/// What a child has found before `main`.
pub(crate) struct Newborn {
    pub(crate) parent: ToParent,
    /// The number of threads before `main`, if a library has started some when it was loaded.
    threads: Option<u64>,
}

/// `None` in a process that was not started by [`Process::spawn`](crate::Process::spawn), and after
/// the value was taken.
static NEWBORN: LazyLock<Mutex<Option<Newborn>>> = LazyLock::new(|| Mutex::new(Newborn::detect()));

/// Called by the loader before `main`, and before the constructors of the program itself.
#[used]
// SAFETY: the loader calls the functions in this section, with this type. Sections with a number
// come first, in ascending order; that of std, which stores the arguments, has 99.
#[unsafe(link_section = ".init_array.00100")]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn before_main() {
        LazyLock::force(&NEWBORN);
    }
    before_main
};

/// Takes the value. Computes it if a linker has removed the constructor.
pub(crate) fn newborn() -> Option<Newborn> {
    NEWBORN.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Newborn {
    fn detect() -> Option<Self> {
        let mark = env::var_os(MARKER)?;
        let Some(mark) = mark.to_str().and_then(Mark::parse) else {
            // With a socket as standard input, the marker may be for another version of this
            // library.
            if socket_of(io::stdin()).is_none() {
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
        // This copy of the library started this process, to run one function. If it cannot do that,
        // it must exit, because `main` would start another process.
        if is_privileged() {
            refuse(
                "the program has more privileges than the user who started it (set-user-ID, \
                 set-group-ID or file capabilities), so it does not trust its environment",
            );
        }
        // SAFETY: it is only queried. No code that could close it runs yet.
        let descriptor = unsafe { BorrowedFd::borrow_raw(mark.descriptor) };
        if socket_of(descriptor) != Some(mark.socket) {
            refuse(match mark.descriptor {
                0 => "its standard input is not the socket of its parent",
                _ => "its parent has not passed it a socket",
            });
        }
        // Programs started by this process must not inherit the marker.
        // SAFETY: before `main`, no code of the program runs in another thread, and the loader and
        // the libraries that it has loaded do not use the environment.
        unsafe { env::remove_var(MARKER) };
        failpoint::reached("child.started");
        Some(Self::be_child(&mark).unwrap_or_else(|error| refuse(&error.to_string())))
    }

    fn be_child(mark: &Mark) -> io::Result<Self> {
        if mark.ignores_sigint {
            // SAFETY: no other thread runs yet, and SIG_IGN is a valid disposition.
            unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
        }
        // The thread that started this process may have had signals blocked.
        set_blocked_signals(&no_signals());
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let null = above_stdio(null.into())?;
        let socket = if mark.descriptor == 0 {
            let socket = fcntl_dupfd_cloexec(io::stdin(), 3)?;
            dup2_stdin(&null)?;
            socket
        } else {
            // SAFETY: it is the socket that the parent left open for this code.
            let socket = unsafe { OwnedFd::from_raw_fd(mark.descriptor) };
            fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
            socket
        };
        // std does the same, but not before `main`. Thereby no descriptor that is opened below
        // receives these numbers.
        if fcntl_getfd(io::stdout()).is_err() {
            dup2_stdout(&null)?;
        }
        if fcntl_getfd(io::stderr()).is_err() {
            dup2_stderr(&null)?;
        }
        close_inherited(mark.inherits, &mark.keep)?;
        let parent = ToParent::from_socket(socket)?;
        if mark.inherits.any {
            // A dead parent is detected later.
            let _ = parent.send(None);
        }
        Ok(Self { parent, threads: (!has_one_thread()).then(threads) })
    }

    /// Returns `true` if threads have been started since before `main`.
    pub(crate) fn has_started_threads(&self) -> bool {
        !has_one_thread() && self.threads.is_none_or(|before| threads() > before)
    }
}

/// Returns the inode number of a socket, or `None` if the descriptor is another one.
fn socket_of(descriptor: impl AsFd) -> Option<u64> {
    let stat = fstat(descriptor).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::Socket).then_some(stat.st_ino)
}

/// Returns `true` if the calling thread is the only one of this process, and `false` if that is
/// unknown.
fn has_one_thread() -> bool {
    // With this flag, unshare(2) changes nothing, and fails if there are other threads. In a new
    // process it is much faster than reading /proc.
    // SAFETY: it changes nothing.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// Returns a number that grows with each thread of this process.
fn threads() -> u64 {
    // The link count of a directory grows with each subdirectory, which here is a thread.
    fs::metadata("/proc/self/task").map_or(0, |tasks| tasks.nlink())
}

/// Exits a child that must not continue in `main`.
pub(crate) fn refuse(why: &str) -> ! {
    eprintln!("multiproc: a child process cannot run its function: {why}");
    // SAFETY: it has no preconditions. It runs no destructors, because not all constructors have
    // run, or other threads still use what they would destroy.
    unsafe { libc::_exit(UNFIT) }
}

/// Returns `true` if this program has more privileges than the user who started it. Then it does
/// not let its environment decide what it runs, and so cannot start children.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: it only reads a number that the kernel passed to this program.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
