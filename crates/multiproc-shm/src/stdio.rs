//! Standard input, output and error are no place for the library's own descriptors.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;

/// The lowest number that is not one of the three.
const FIRST: i32 = 3;

/// Moves a descriptor above standard input, output and error, if it is one of these.
///
/// A new descriptor gets the lowest free number. In a program that has closed its standard output,
/// that may be 1, and then every `println!` in the program writes into whatever the descriptor
/// refers to. So each descriptor that the library makes or receives passes through here before it
/// is used.
///
/// # Errors
///
/// If the process has as many descriptors open as it may.
pub fn above_stdio(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() >= FIRST {
        return Ok(descriptor);
    }
    Ok(fcntl_dupfd_cloexec(&descriptor, FIRST)?)
}
