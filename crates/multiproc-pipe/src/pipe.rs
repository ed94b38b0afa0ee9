//! Creating connections: `duplex` and `simplex`.

use std::io;

use multiproc_shm::above_stdio;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use crate::connection::{Connection, Receiver, Sender};
use crate::stream::Stream;
use crate::syscalls::{pipe_with, socketpair};

/// Creates a two-way connection and returns its two ends.
///
/// The first end sends `S` and receives `R`, the second one vice versa. It is a pair of Unix stream
/// sockets, so messages can carry descriptors.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (asks, answers) = multiproc_pipe::duplex::<(i32, i32), i32>()?;
/// asks.send((2, 3))?;
/// let (a, b) = answers.recv()?;
/// answers.send(a + b)?;
/// assert_eq!(asks.recv()?, 5);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If the process or the system has no descriptors or memory left.
#[doc(alias = "Pipe")]
#[doc(alias = "socketpair")]
pub fn duplex<S, R>() -> io::Result<(Connection<S, R>, Connection<R, S>)> {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC)?;
    let (a, b) = (above_stdio(a)?, above_stdio(b)?);
    Ok((Connection::over(Stream::socket(a)), Connection::over(Stream::socket(b))))
}

/// Creates a one-way connection and returns its ends, the receiver first, as [pipe(2)] does.
///
/// It is a kernel pipe: small messages are about three times as fast as over [`duplex`], but they
/// cannot carry descriptors. Sending a value that contains one returns an error before anything is
/// written.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (receiver, sender) = multiproc_pipe::simplex()?;
/// sender.send("hello".to_owned())?;
/// drop(sender);
/// assert_eq!(receiver.recv()?, "hello");
/// assert!(receiver.recv().unwrap_err().is_disconnected());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If the process or the system has no descriptors or memory left.
///
/// [pipe(2)]: https://man7.org/linux/man-pages/man2/pipe.2.html
#[doc(alias = "Pipe")]
#[doc(alias = "pipe")]
pub fn simplex<T>() -> io::Result<(Receiver<T>, Sender<T>)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let (reader, writer) = (above_stdio(reader)?, above_stdio(writer)?);
    Ok((Receiver::over(Stream::pipe(reader)), Sender::over(Stream::pipe(writer))))
}
