//! Connecting to a listener.

use std::io;
use std::time::Duration;

use multiproc_shm::Deadline;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SocketFlags, SocketType};
use serde::Deserialize;

use super::bind::{describe, new_socket};
use super::credentials::Credentials;
use crate::address::Address;
use crate::connection::Connection;
use crate::stream::Stream;

/// How long a client waits for the hello of a listener of another process. One that is waiting to accept
/// sends it at once; one that is not must not hold up the client.
const PATIENCE: Duration = Duration::from_millis(250);

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
pub fn connect<S, R>(address: impl Into<Address>) -> io::Result<Connection<S, R>>
where
    S: Deserialize<'static>,
    R: Deserialize<'static>,
{
    greet(connect_until(&address.into(), Deadline::NEVER)?, Deadline::NEVER)
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
) -> io::Result<Connection<S, R>>
where
    S: Deserialize<'static>,
    R: Deserialize<'static>,
{
    let deadline = Deadline::after(timeout);
    greet(connect_until(&address.into(), deadline)?, deadline)
}

/// Connects to a listener that begins without a hello, and has messages in the native format.
///
/// # Errors
///
/// As [`connect_timeout`].
#[doc(hidden)] // for the manager, which has a hello of its own
pub fn connect_without_hello<S, R>(
    address: impl Into<Address>,
    timeout: Duration,
) -> io::Result<Connection<S, R>> {
    connect_until(&address.into(), Deadline::after(timeout)).map(Connection::over)
}

/// Sends a hello, and checks the listener's if that comes soon.
fn greet<S, R>(stream: Stream, deadline: Deadline) -> io::Result<Connection<S, R>>
where
    S: Deserialize<'static>,
    R: Deserialize<'static>,
{
    // A listener of this process may be accepted from by this thread, after this.
    let is_ours = Credentials::of(&stream)?.pid == std::process::id();
    let connection = Connection::greeting(stream)?;
    let patience = if is_ours { Duration::ZERO } else { PATIENCE };
    connection.greet_until(deadline.or_earlier(Deadline::after(patience)))?;
    Ok(connection)
}

fn connect_until(address: &Address, deadline: Deadline) -> io::Result<Stream> {
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
            Ok(Stream::socket(socket))
        }
        Err(Errno::AGAIN) => {
            let text = format!("cannot connect to {address}: too many are waiting already");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
        Err(error) => Err(describe("connect to", address, error.into())),
    }
}
