//! Descriptors without close-on-exec, which a child inherits and has to close.
//!
//! Unsafe code: querying and closing descriptors by number, and code between fork and exec.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{fs, io};

use rustix::io::{FdFlags, fcntl_setfd};

use crate::protocol::Inherits;

/// Closes all descriptors without close-on-exec, except those in `keep`. Descriptors that a library
/// opened with close-on-exec when it was loaded stay open.
pub(crate) fn close_inherited(inherits: Inherits, keep: &[RawFd]) -> io::Result<()> {
    // Listing them takes 100 µs in a new process; trying one number takes 0.1 µs.
    let numbers: Vec<RawFd> = match inherits.below {
        RawFd::MAX => open_descriptors()?.collect(),
        below => (3..below).collect(),
    };
    for number in numbers.into_iter().filter(|&number| is_inherited(number, keep)) {
        // SAFETY: no code in this process has opened it, so none relies on it.
        unsafe { rustix::io::close(number) };
    }
    Ok(())
}

/// Determines which descriptors a child inherits and has to close. For a process with many
/// descriptors the answer is an upper bound, so that it takes little time.
pub(crate) fn what_a_child_inherits(keep: &[RawFd]) -> io::Result<Inherits> {
    const MANY: usize = 256;
    /// How many descriptors other threads may open until the child has started. They receive the
    /// lowest free numbers.
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

/// Lets the child that `command` starts inherit the descriptor under the same number, although it
/// is close-on-exec in this process.
pub(crate) fn let_inherit(command: &mut Command, descriptor: &OwnedFd) {
    let number = descriptor.as_raw_fd();
    // SAFETY: the function runs in a copy of this process with one thread, where only system calls
    // are safe. It makes one, by number: the copy has the descriptors of this process.
    unsafe {
        command.pre_exec(move || {
            let descriptor = BorrowedFd::borrow_raw(number);
            Ok(fcntl_setfd(descriptor, FdFlags::empty())?)
        });
    }
}

fn open_descriptors() -> io::Result<impl Iterator<Item = RawFd>> {
    let entries = fs::read_dir("/proc/self/fd")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// Returns `true` if a program started by this process inherits the descriptor, and it is not in
/// `keep`.
fn is_inherited(number: RawFd, keep: &[RawFd]) -> bool {
    // SAFETY: any number may be passed; it fails if there is no such descriptor.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    number > 2 && flags != -1 && flags & libc::FD_CLOEXEC == 0 && !keep.contains(&number)
}
