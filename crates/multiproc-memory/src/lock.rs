//! How a segment's owner knows that it is still lent: an open-file-description lock, which the kernel
//! drops when the last copy of that description is closed, by whatever cause. See "Open file
//! description locks" in [fcntl_locking(2)].
//!
//! Opens `unsafe` for two calls of fcntl(2), which rustix does not have.
//!
//! [fcntl_locking(2)]: https://man7.org/linux/man-pages/man2/fcntl_locking.2.html
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A lock of the first byte.
#[allow(clippy::cast_possible_truncation)] // the constants are 0 to 2
fn first_byte(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    }
}

/// Puts a read lock on the description of this descriptor: any number can have one.
pub(crate) fn lock(descriptor: impl AsFd) -> io::Result<()> {
    let lock = first_byte(libc::F_RDLCK);
    // SAFETY: F_OFD_SETLK reads a `flock`, and this is one.
    let result =
        unsafe { libc::fcntl(descriptor.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether another description has a lock.
pub(crate) fn is_locked(descriptor: impl AsFd) -> bool {
    let mut lock = first_byte(libc::F_WRLCK);
    // SAFETY: F_OFD_GETLK reads and writes a `flock`, and this is one.
    let result =
        unsafe { libc::fcntl(descriptor.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    // If the kernel cannot tell (it has no memory), it is still lent.
    result != 0 || libc::c_int::from(lock.l_type) != libc::F_UNLCK
}
