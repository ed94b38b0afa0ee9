//! Connecting to a listener.

use std::io;
use std::time::Duration;

use multiproc_shm::Deadline;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SocketFlags, SocketType};

use super::bind::{describe, new_socket};
use crate::address::Address;
use crate::connection::Connection;
use crate::stream::Stream;

/// Connects to a [`Listener`]: the connection sends `S` and receives `R`.
///
/// If it has been accepted cannot be seen from here: one that is turned away says `Disconnected` when it
/// is used. It blocks while more are waiting to be accepted than the listener's backlog holds.
///
/// # Errors
///
/// `NotFound`, if there is no such path; `ConnectionRefused`, if nobody listens there (any more);
/// `PermissionDenied`, if the path's permissions say so; `InvalidInput`, if the address is too long or
/// empty.
pub fn connect<S, R>(address: impl Into<Address>) -> io::Result<Connection<S, R>> {
    connect_until(&address.into(), Deadline::NEVER)
}

/// Connects to a [`Listener`], and waits for at most `timeout` while too many others are waiting. It
/// does not wait for a listener to appear.
///
/// # Errors
///
/// `TimedOut` if there was no place in time; else as [`connect`].
pub fn connect_timeout<S, R>(
    address: impl Into<Address>,
    timeout: Duration,
) -> io::Result<Connection<S, R>> {
    connect_until(&address.into(), Deadline::after(timeout))
}

fn connect_until<S, R>(address: &Address, deadline: Deadline) -> io::Result<Connection<S, R>> {
    let to = address.to_socket_address()?;
    let socket = new_socket(SocketType::STREAM, SocketFlags::CLOEXEC)?;
    let connected = retry_on_intr(|| {
        // The kernel bounds connect by the time for sending. Zero would mean for ever.
        let left = deadline.remaining().map(|left| left.max(Duration::from_micros(1)));
        set_socket_timeout(&socket, Timeout::Send, left)?;
        rustix::net::connect(&socket, &to)
    });
    match connected {
        Ok(()) => {
            set_socket_timeout(&socket, Timeout::Send, None)?;
            Ok(Connection::over(Stream::socket(socket)))
        }
        Err(Errno::AGAIN) => {
            let text = format!("cannot connect to {address}: too many are waiting already");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
        Err(error) => Err(describe("connect to", address, error.into())),
    }
}
