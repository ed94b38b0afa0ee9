//! Keeps the library's descriptors away from standard input, output and error.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;

/// The lowest number that is not one of the three.
const FIRST: i32 = 3;

/// Moves a descriptor to a number above 2 if it is 0, 1 or 2.
///
/// A new descriptor gets the lowest free number. In a program that has closed its standard output
/// this may be 1, and every `println!` would then write into the descriptor's file. Therefore each
/// descriptor that the library creates or receives passes through this function before it is used.
///
/// # Errors
///
/// If the process has reached its limit of open descriptors.
pub fn above_stdio(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() >= FIRST {
        return Ok(descriptor);
    }
    Ok(fcntl_dupfd_cloexec(&descriptor, FIRST)?)
}
