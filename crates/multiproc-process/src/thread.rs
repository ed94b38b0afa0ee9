//! Threads of the library, and the signals that they block.
//!
//! Unsafe code: setting the signal mask of a thread.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::{io, thread};

/// Starts a thread of the library. It blocks all signals: a handler may need more stack than this
/// thread has, and a signal that the program waits for must not be delivered here.
pub(crate) fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = thread::Builder::new().name(name.to_owned()).stack_size(64 * 1024);
    // A thread inherits the signal mask of the thread that starts it.
    let signals = set_blocked_signals(&all_signals());
    let started = builder.spawn(body);
    set_blocked_signals(&signals);
    started.map(drop)
}

pub(crate) fn no_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: it writes a set to this address.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised above.
    unsafe { set.assume_init() }
}

pub(crate) fn all_signals() -> libc::sigset_t {
    let mut set = no_signals();
    // SAFETY: it writes a set to this address, without the signals that the C library needs.
    unsafe { libc::sigfillset(&raw mut set) };
    set
}

/// Sets the signal mask of this thread. Returns the previous one.
pub(crate) fn set_blocked_signals(signals: &libc::sigset_t) -> libc::sigset_t {
    let mut before = no_signals();
    // SAFETY: it reads the first set and writes the second.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, signals, &raw mut before) };
    before
}
