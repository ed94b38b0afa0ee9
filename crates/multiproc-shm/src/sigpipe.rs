//! Writing to a pipe whose reader is gone, without SIGPIPE.
//!
//! The kernel sends SIGPIPE to a thread that writes to such a pipe. std ignores it from the start
//! of a program, but programs for shell pipelines often reset it to its default, which kills the
//! process. Sockets have a flag against it. Pipes have one only since Linux 6.18.
//!
//! Contains `unsafe` because neither the disposition of a signal nor a thread's mask is in rustix.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

use rustix::io::{Errno, Result};

/// Returns `true` if this process ignores SIGPIPE, so that no write sends one.
#[must_use]
pub fn is_ignored() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, it writes the present one to a place that is large enough.
    let result = unsafe { libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zeros are a valid one, if the call has failed.
    let action = unsafe { action.assume_init() };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Performs a write whose SIGPIPE does not reach the program: the signal is blocked in this thread
/// meanwhile and consumed before it is unblocked.
///
/// # Errors
///
/// Those of the write.
pub fn blocked<T>(write: impl FnOnce() -> Result<T>) -> Result<T> {
    let pipe = only_sigpipe();
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: both sets are valid for the call.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, before.as_mut_ptr()) };
    // SAFETY: the call before has filled it; and zeros are a valid set, too.
    let before = unsafe { before.assume_init() };
    // A signal that the program itself keeps blocked and pending is left alone.
    let was_pending = is_pending();
    let result = write();
    if matches!(result, Err(Errno::PIPE)) && !was_pending {
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: set and time are valid for the call, which does not wait.
        unsafe { libc::sigtimedwait(&raw const pipe, ptr::null_mut(), &raw const now) };
    }
    // SAFETY: the set is the one that this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    result
}

fn only_sigpipe() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: it makes the set an empty one.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set is initialised, and the signal exists.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE) };
    // SAFETY: the calls have filled it.
    unsafe { set.assume_init() }
}

fn is_pending() -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: it writes a set to a place that is large enough.
    unsafe { libc::sigpending(pending.as_mut_ptr()) };
    // SAFETY: the set is initialised, and the signal exists.
    unsafe { libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1 }
}
