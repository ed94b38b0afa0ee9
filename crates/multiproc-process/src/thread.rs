//! Threads of the library, and the signals that they block.
//!
//! Opens `unsafe` to set which signals a thread blocks.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::{io, thread};

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

pub(crate) fn no_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: it writes a set there.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: now there is one.
    unsafe { set.assume_init() }
}

pub(crate) fn all_signals() -> libc::sigset_t {
    let mut set = no_signals();
    // SAFETY: it writes a set there. (Without those that the C library needs for itself.)
    unsafe { libc::sigfillset(&raw mut set) };
    set
}

/// Blocks these signals in this thread, and no others. Returns those that were blocked before.
pub(crate) fn set_blocked_signals(signals: &libc::sigset_t) -> libc::sigset_t {
    let mut before = no_signals();
    // SAFETY: it reads the one set and writes the other.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, signals, &raw mut before) };
    before
}
