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

/// How long a client waits for the hello of a listener of another process. A listener that is
/// accepting sends it at once. One that is not must not hold up the client.
const PATIENCE: Duration = Duration::from_millis(250);

/// Connects to a [`Listener`](crate::Listener): the connection sends `S` and receives `R`.
///
/// It blocks while the listener's backlog is full. Whether the client was accepted is not visible
/// here: a client that is refused gets `Disconnected` at its first use. If the listener dies, the
/// connection is `Disconnected` as well.
///
/// # Errors
///
/// - `NotFound` if there is no such path.
/// - `ConnectionRefused` if no process listens there (any more).
/// - `PermissionDenied` if the permissions of the path do not allow it.
/// - `InvalidInput` if the address is empty or too long.
/// - `InvalidData` with a [`HandshakeError`](crate::HandshakeError) if the other side has other
///   types or another version.
///
/// ```
/// use multiproc_pipe::{Listener, connect};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let address = format!("@multiproc-connect-{}", std::process::id());
/// let listener = Listener::bind(&address)?;
/// let client = connect::<u32, ()>(&address)?;
/// client.send(7)?;
/// assert_eq!(listener.accept::<(), u32>()?.recv()?, 7);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Client")]
#[doc(alias = "UnixStream")]
pub fn connect<S, R>(address: impl Into<Address>) -> io::Result<Connection<S, R>>
where
    S: Deserialize<'static>,
    R: Deserialize<'static>,
{
    greet(connect_until(&address.into(), Deadline::NEVER)?, Deadline::NEVER)
}

/// Connects to a [`Listener`](crate::Listener), waiting for at most `timeout` while its backlog is
/// full. It does not wait for a listener to appear.
///
/// # Errors
///
/// `TimedOut` if the backlog stayed full. Otherwise as [`connect`].
///
/// ```
/// use multiproc_pipe::{Listener, connect_timeout};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = Listener::bind(format!("@multiproc-patience-{}", std::process::id()))?;
/// let client = connect_timeout::<u32, ()>(listener.local_address(), Duration::from_secs(1))?;
/// client.send(7)?;
/// assert_eq!(listener.accept::<(), u32>()?.recv()?, 7);
/// # Ok(())
/// # }
/// ```
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

/// Connects to a listener that sends no hello and has messages in the native format.
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

/// Sends a hello, and checks that of the listener if it arrives soon.
fn greet<S, R>(stream: Stream, deadline: Deadline) -> io::Result<Connection<S, R>>
where
    S: Deserialize<'static>,
    R: Deserialize<'static>,
{
    // This thread itself may be the one that accepts, after this.
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
        // The kernel bounds connect by the timeout for sending. Zero would mean none.
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
