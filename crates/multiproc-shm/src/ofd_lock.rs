//! Open file description locks: locks on bytes of a file that belong to an open file description.
//!
//! The kernel drops them when the last copy of that description is closed, for whatever reason.
//! They therefore tell whether a process still has a resource, without a pid that could be reused
//! and without a polling thread. See "Open file description locks" in [fcntl_locking(2)].
//!
//! Contains `unsafe` for two calls of fcntl(2), which rustix does not have.
//!
//! [fcntl_locking(2)]: https://man7.org/linux/man-pages/man2/fcntl_locking.2.html
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Which other locks the same byte may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Other shared locks.
    Shared,
    /// None.
    Exclusive,
}

fn on_byte(kind: Kind, byte: u32) -> libc::flock {
    let kind = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
    };
    of_byte(kind, byte)
}

#[allow(clippy::cast_possible_truncation)] // the constants are 0 to 2
fn of_byte(kind: libc::c_int, byte: u32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte.into(),
        l_len: 1,
        l_pid: 0,
    }
}

/// Locks a byte for the open file description of this descriptor. Returns `false` if another
/// description has a conflicting lock.
///
/// # Errors
///
/// If the kernel refuses. The descriptor must be open for reading for [`Kind::Shared`], and for
/// writing for [`Kind::Exclusive`].
///
/// ```
/// use multiproc_shm::{memfd, ofd_lock};
/// use rustix::fs::OFlags;
///
/// # fn main() -> std::io::Result<()> {
/// let file = memfd::create("locked")?;
/// assert!(ofd_lock::try_lock(&file, ofd_lock::Kind::Exclusive, 0)?);
/// // Another open file description, as another process would have.
/// let other = memfd::reopen(&file, OFlags::RDWR)?;
/// assert!(!ofd_lock::try_lock(&other, ofd_lock::Kind::Exclusive, 0)?);
/// drop(file);
/// assert!(!ofd_lock::is_locked(&other, 0));
/// # Ok(())
/// # }
/// ```
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

/// Releases the lock of this open file description on a byte, if it has one.
///
/// # Errors
///
/// If the kernel refuses.
pub fn unlock(descriptor: impl AsFd, byte: u32) -> io::Result<()> {
    let lock = of_byte(libc::F_UNLCK, byte);
    let descriptor = descriptor.as_fd().as_raw_fd();
    // SAFETY: F_OFD_SETLK reads a `flock`, and this is one.
    let result = unsafe { libc::fcntl(descriptor, libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns `true` if another open file description has a lock on a byte, and also if the kernel
/// cannot tell (out of memory), so that nothing is taken from a living owner.
pub fn is_locked(descriptor: impl AsFd, byte: u32) -> bool {
    let mut lock = on_byte(Kind::Exclusive, byte);
    let descriptor = descriptor.as_fd().as_raw_fd();
    // SAFETY: F_OFD_GETLK reads and writes a `flock`, and this is one.
    let result = unsafe { libc::fcntl(descriptor, libc::F_OFD_GETLK, &raw mut lock) };
    result != 0 || libc::c_int::from(lock.l_type) != libc::F_UNLCK
}
