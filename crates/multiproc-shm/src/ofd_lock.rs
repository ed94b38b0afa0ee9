//! Locks on bytes of a file that belong to an open file description: the kernel drops them when the
//! last copy of that description is closed, by whatever cause. So they tell whether somebody still has
//! something, with no pid that could be reused, and no thread that polls. See "Open file description
//! locks" in [fcntl_locking(2)].
//!
//! Opens `unsafe` for two calls of fcntl(2), which rustix does not have.
//!
//! [fcntl_locking(2)]: https://man7.org/linux/man-pages/man2/fcntl_locking.2.html
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Who else may have a lock on the same byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Others with a shared one.
    Shared,
    /// Nobody.
    Exclusive,
}

#[allow(clippy::cast_possible_truncation)] // the constants are 0 to 2
fn on_byte(kind: Kind, byte: u32) -> libc::flock {
    let kind = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
    };
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte.into(),
        l_len: 1,
        l_pid: 0,
    }
}

/// Locks a byte for the description of this descriptor. False: another description has it.
///
/// # Errors
///
/// If the kernel refuses; for [`Kind::Shared`] the descriptor must be open to read, for
/// [`Kind::Exclusive`] to write.
pub fn try_lock(descriptor: impl AsFd, kind: Kind, byte: u32) -> io::Result<bool> {
    let lock = on_byte(kind, byte);
    let descriptor = descriptor.as_fd().as_raw_fd();
    // SAFETY: F_OFD_SETLK reads a `flock`, and this is one.
    let result = unsafe { libc::fcntl(descriptor, libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether another description has a lock on a byte. True also if the kernel cannot tell (it has no
/// memory), so that nobody is robbed.
pub fn is_locked(descriptor: impl AsFd, byte: u32) -> bool {
    let mut lock = on_byte(Kind::Exclusive, byte);
    let descriptor = descriptor.as_fd().as_raw_fd();
    // SAFETY: F_OFD_GETLK reads and writes a `flock`, and this is one.
    let result = unsafe { libc::fcntl(descriptor, libc::F_OFD_GETLK, &raw mut lock) };
    result != 0 || libc::c_int::from(lock.l_type) != libc::F_UNLCK
}
