//! The descriptors without close-on-exec, which a child inherits and closes.
//!
//! Opens `unsafe` to ask about descriptors by number, and to close them.
#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::{fs, io};

use crate::protocol::Inherits;

/// Closes what the parent has not opened for this process: all descriptors without close-on-exec. So
/// those that a library has opened when it was loaded stay open, unless it has left out that flag.
pub(crate) fn close_inherited(inherits: Inherits, keep: &[RawFd]) -> io::Result<()> {
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
