//! The ends of connections: `Connection`, `Sender` and `Receiver`.
//!
//! Longer than other files because the three have the same methods: two macros contain them once.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{
    RecvBytesError, RecvError, RecvTimeoutError, SendError, SendFault, SendTimeoutError,
    TryRecvError, TrySendError,
};
use crate::frame_reader::Reader;
use crate::frame_writer::Writer;
#[cfg(feature = "listener")]
use crate::hello::Hello;
use crate::iter::{IntoIter, Iter, TryIter};
use crate::stream::{Role, Stream};
use multiproc_message::{Encode, Format, check_type};
use multiproc_shm::Deadline;

/// One end of a two-way connection, which sends `S` and receives `R`. Created by
/// [`duplex`](crate::duplex), [`connect`](crate::connect) and [`Listener`](crate::Listener).
///
/// It can be sent to another process, as an argument or in a message, together with the bytes that
/// it has read ahead and the rest of a message that it has not written yet.
///
/// # When a process dies
///
/// If the other side dies, every complete message that it has sent can still be received, and then
/// `recv` returns `Disconnected`, or `Corrupted` if it died within a message. A `send` returns
/// `Disconnected` with the value.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (left, right) = multiproc_pipe::duplex::<u32, String>()?;
/// left.send(7)?;
/// assert_eq!(right.recv()?, 7);
/// right.send("seven".to_owned())?;
/// drop(right);
/// assert_eq!(left.recv()?, "seven");
/// assert!(left.recv().unwrap_err().is_disconnected());
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Pipe")]
#[doc(alias = "UnixStream")]
pub struct Connection<S, R> {
    outgoing: Outgoing<S>,
    pub(crate) reader: Reader,
    types: PhantomData<fn() -> R>,
}

/// The sending end of a one-way connection. Created by [`simplex`](crate::simplex) and
/// [`Connection::split`].
///
/// It can be sent to another process, as an argument or in a message, together with the rest of a
/// message that it has not written yet. If the receiver dies, `send` returns `Disconnected` with
/// the value.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (receiver, sender) = multiproc_pipe::simplex::<u32>()?;
/// sender.send(7)?;
/// assert_eq!(receiver.recv()?, 7);
/// drop(receiver);
/// let error = sender.send(8).unwrap_err();
/// assert!(error.is_disconnected());
/// assert_eq!(error.into_inner(), 8);
/// # Ok(())
/// # }
/// ```
pub struct Sender<T> {
    outgoing: Outgoing<T>,
}

/// The sending part of an end.
///
/// It has the sending methods for types that are not known to implement `Deserialize`. The ends
/// dereference to it, so a call ends here where their own methods, which require `Deserialize` and
/// check the type, do not apply.
pub struct Outgoing<T> {
    pub(crate) stream: Stream,
    pub(crate) writer: Writer,
    /// Whether the type was found to be one that can be received.
    is_checked: Cell<bool>,
    types: PhantomData<fn(T)>,
}

/// The receiving end of a one-way connection. Created by [`simplex`](crate::simplex) and
/// [`Connection::split`].
///
/// It can be sent to another process, as an argument or in a message, together with the bytes that
/// it has read ahead. If the sender dies, every complete message can still be received, and then
/// `recv` returns `Disconnected`, or `Corrupted` if it died within a message.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (receiver, sender) = multiproc_pipe::simplex::<u32>()?;
/// (0..3).try_for_each(|number| sender.send(number))?;
/// drop(sender);
/// assert_eq!(receiver.into_iter().collect::<Result<Vec<_>, _>>()?, [0, 1, 2]);
/// # Ok(())
/// # }
/// ```
pub struct Receiver<T> {
    pub(crate) stream: Stream,
    pub(crate) reader: Reader,
    types: PhantomData<fn() -> T>,
}

impl<S, R> Connection<S, R> {
    pub(crate) fn over(stream: Stream) -> Self {
        Self::with(stream, Writer::default(), Reader::default())
    }

    pub(crate) fn with(stream: Stream, writer: Writer, reader: Reader) -> Self {
        Self { outgoing: Outgoing::new(stream, writer), reader, types: PhantomData }
    }

    /// Creates a connection on which both sides send a hello first. Sends ours without waiting.
    ///
    /// # Errors
    ///
    /// If the operating system refuses. If the other side is gone, the first use returns that.
    #[cfg(feature = "listener")]
    pub(crate) fn greeting(stream: Stream) -> io::Result<Self>
    where
        S: Deserialize<'static>,
        R: Deserialize<'static>,
    {
        let ours = Hello::new::<S, R>();
        let connection = Self::over(stream).in_format(Hello::FORMAT);
        let Self { outgoing: Outgoing { stream, writer, .. }, reader, .. } = connection;
        match writer.send_bytes(&stream, &ours.to_bytes(), Deadline::after(Duration::ZERO)) {
            Ok(()) | Err(SendFault::Unfinished | SendFault::Disconnected) => {}
            Err(SendFault::Io(error)) => return Err(error),
            Err(SendFault::TimedOut | SendFault::Encode(_)) => {
                return Err(io::Error::other("a new socket has no room for a hello"));
            }
        }
        Ok(Self::with(stream, writer, reader.expect(ours)))
    }

    /// Reads the other side's hello, if it comes before the deadline.
    ///
    /// # Errors
    ///
    /// If it does not match ours. Any other error is returned by the first use.
    #[cfg(feature = "listener")]
    pub(crate) fn greet_until(&self, deadline: Deadline) -> io::Result<()> {
        match self.reader.open(&self.outgoing.stream, deadline) {
            Err(RecvError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => Err(error),
            _ => Ok(()),
        }
    }

    /// Sets the format of the messages from here on. Both sides must do so.
    #[doc(hidden)] // for the manager, which has a hello of its own
    #[must_use]
    pub fn in_format(mut self, format: Format) -> Self {
        self.outgoing.writer.set_format(format);
        self.reader.set_format(format);
        self
    }

    fn into_stream(self) -> Stream {
        self.outgoing.stream
    }

    /// Creates a connection from a Unix stream socket.
    ///
    /// The other end must be a `Connection` as well, or write the same frames.
    ///
    /// # Errors
    ///
    /// If it is not such a socket. The error states what was expected and received.
    ///
    /// ```
    /// use multiproc_pipe::Connection;
    /// use std::os::unix::net::UnixStream;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (a, b) = UnixStream::pair()?;
    /// let a = Connection::<u32, ()>::from_socket(a.into())?;
    /// let b = Connection::<(), u32>::from_socket(b.into())?;
    /// a.send(7)?;
    /// assert_eq!(b.recv()?, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        Stream::adopt(socket, Role::Both).map(Self::over)
    }

    /// Returns the same connection with other types from here on, for a protocol with phases.
    ///
    /// Messages that were sent as the old types and not yet received are decoded as the new ones.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (a, b) = multiproc_pipe::duplex::<u32, ()>()?;
    /// a.send(2)?; // the number of names that follow
    /// let a = a.retype::<String, ()>();
    /// a.send("Ada".to_owned())?;
    /// assert_eq!(b.recv()?, 2);
    /// assert_eq!(b.retype::<(), String>().recv()?, "Ada");
    /// # Ok(())
    /// # }
    /// ```
    pub fn retype<S2, R2>(self) -> Connection<S2, R2> {
        let Self { outgoing: Outgoing { stream, mut writer, .. }, reader, .. } = self;
        writer.forget_type();
        Connection::with(stream, writer, reader)
    }

    /// Splits the connection into its two directions, for two threads or two processes.
    ///
    /// Dropping one half ends its direction. After the `Sender` is dropped, the other side receives
    /// what was sent and then `Disconnected`. After the `Receiver` is dropped, the other side's
    /// `send` returns `Disconnected`. The other half continues.
    ///
    /// The two halves remain one socket. If a process that holds one half is *killed*, or a half is
    /// lost in a message that is never received, the other side notices only when the other
    /// half ends as well. Where that matters, use two [`simplex`](crate::simplex) connections
    /// instead.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (left, right) = multiproc_pipe::duplex::<u32, u32>()?;
    /// let (sender, receiver) = left.split();
    /// let doubling = std::thread::spawn(move || {
    ///     for number in &right {
    ///         right.send(number.unwrap() * 2).unwrap();
    ///     }
    /// });
    /// sender.send(1)?;
    /// sender.send(2)?;
    /// drop(sender); // no more: ends the loop
    /// assert_eq!(receiver.into_iter().collect::<Result<Vec<_>, _>>()?, [2, 4]);
    /// doubling.join().unwrap();
    /// # Ok(())
    /// # }
    /// ```
    pub fn split(self) -> (Sender<S>, Receiver<R>) {
        let Self { outgoing: Outgoing { stream, writer, .. }, reader, .. } = self;
        let (sends, receives) = stream.split();
        (Sender::with(sends, writer), Receiver::with(receives, reader))
    }
}

impl<T> Sender<T> {
    pub(crate) fn over(stream: Stream) -> Self {
        Self::with(stream, Writer::default())
    }

    pub(crate) fn with(stream: Stream, writer: Writer) -> Self {
        Self { outgoing: Outgoing::new(stream, writer) }
    }

    fn into_stream(self) -> Stream {
        self.outgoing.stream
    }

    /// Creates a sender from the writing end of a pipe or from a Unix stream socket.
    ///
    /// ```
    /// use multiproc_pipe::{Receiver, Sender};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (reader, writer) = std::io::pipe()?;
    /// let sender = Sender::<u32>::from_fd(writer.into())?;
    /// let receiver = Receiver::<u32>::from_fd(reader.into())?;
    /// sender.send(7)?;
    /// assert_eq!(receiver.recv()?, 7);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If it is neither. The error states what was expected and received.
    pub fn from_fd(descriptor: OwnedFd) -> io::Result<Self> {
        Stream::adopt(descriptor, Role::Sends).map(Self::over)
    }
}

impl<T> Receiver<T> {
    pub(crate) fn over(stream: Stream) -> Self {
        Self::with(stream, Reader::default())
    }

    pub(crate) fn with(stream: Stream, reader: Reader) -> Self {
        Self { stream, reader, types: PhantomData }
    }

    fn into_stream(self) -> Stream {
        self.stream
    }

    /// Creates a receiver from the reading end of a pipe or from a Unix stream socket.
    ///
    /// ```
    /// use multiproc_pipe::{Receiver, Sender};
    /// use std::os::unix::net::UnixStream;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let receiver = Receiver::<String>::from_fd(ours.into())?;
    /// Sender::<String>::from_fd(theirs.into())?.send("text".to_owned())?;
    /// assert_eq!(receiver.recv()?, "text");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If it is neither. The error states what was expected and received.
    pub fn from_fd(descriptor: OwnedFd) -> io::Result<Self> {
        Stream::adopt(descriptor, Role::Receives).map(Self::over)
    }
}

impl<T> Outgoing<T> {
    fn new(stream: Stream, writer: Writer) -> Self {
        Self { stream, writer, is_checked: Cell::new(false), types: PhantomData }
    }
}

// Not `DeserializeOwned`: a type such as `&str` would match that as well, and then not compile.
impl<T: Deserialize<'static>> Outgoing<T> {
    /// Returns an error if values of this type could be sent but not received.
    #[inline]
    fn check_type(&self) -> Result<(), SendFault> {
        if self.is_checked.get() { Ok(()) } else { self.check_type_once() }
    }

    #[cold]
    fn check_type_once(&self) -> Result<(), SendFault> {
        check_type::<T>().map_err(SendFault::Encode)?;
        self.writer.set_type::<T>();
        self.is_checked.set(true);
        Ok(())
    }
}

// The bound is that of the methods, so that the compiler finds them for every type and reports
// that the type cannot be sent, in place of that there is no such method.
#[doc(hidden)]
impl<T> Outgoing<T> {
    #[inline]
    pub fn send(&self, value: T) -> Result<(), SendError<T>>
    where
        T: Encode,
    {
        match self.writer.send(&self.stream, &value, Deadline::NEVER) {
            Ok(()) => Ok(()),
            Err(fault) => Err(SendError::new(fault, value)),
        }
    }

    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>>
    where
        T: Encode,
    {
        self.writer
            .send(&self.stream, &value, Deadline::after(Duration::ZERO))
            .map_err(|fault| TrySendError::new(fault, value))
    }

    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>>
    where
        T: Encode,
    {
        self.send_until(value, Deadline::after(timeout))
    }

    pub fn send_deadline(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>>
    where
        T: Encode,
    {
        self.send_until(value, Deadline::at(deadline))
    }
}

impl<T: Serialize> Outgoing<T> {
    fn send_until(&self, value: T, deadline: Deadline) -> Result<(), SendTimeoutError<T>> {
        self.writer
            .send(&self.stream, &value, deadline)
            .map_err(|fault| SendTimeoutError::new(fault, value))
    }
}

macro_rules! sends {
    ($end:ident<$($param:ident),*> $type:ident) => {
        /// Sending values.
        impl<$($param),*> $end<$($param),*>
        where
            $type: Serialize + Deserialize<'static>,
        {
            /// Sends a value. Returns when the kernel has all of it.
            ///
            /// The receiver gets a value of its own, decoded from the bytes. The value that was
            /// sent is dropped here, so a `Drop` of its type runs in both processes. Handles in it
            /// are closed here, since the message has duplicates of their descriptors.
            ///
            /// Blocks while the buffer of the other side is full. With handles in the value, it
            /// also blocks while the user has the maximum number of descriptors in flight
            /// (RLIMIT_NOFILE), which is checked at least every 64 ms. If the receiver dies, it
            /// returns at once.
            ///
            /// # Errors
            ///
            /// See [`SendError`], which returns the value. A type that could not be received (for
            /// example an enum with serde's `untagged`) is an encode error.
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (left, right) = multiproc_pipe::duplex::<(u32, String), ()>()?;
            /// left.send((1, "one".to_owned()))?;
            /// assert_eq!(right.recv()?, (1, "one".to_owned()));
            /// # Ok(())
            /// # }
            /// ```
            #[inline]
            pub fn send(&self, value: $type) -> Result<(), SendError<$type>> {
                match self.outgoing.check_type() {
                    Ok(()) => self.outgoing.send(value),
                    Err(fault) => Err(SendError::new(fault, value)),
                }
            }

            /// Sends a value if there is room for it, without waiting.
            ///
            /// If there is room for a part only, it returns
            /// [`Unfinished`](TrySendError::Unfinished), and the connection keeps the rest. The
            /// next call that sends, or [`flush`](Self::flush), writes the rest first. If an end
            /// with a rest is dropped, the other side gets `Corrupted`.
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<u64>()?;
            /// let mut sent = 0;
            /// let error = loop {
            ///     match sender.try_send(sent) {
            ///         Ok(()) => sent += 1,
            ///         Err(error) => break error, // the receiver does not read
            ///     }
            /// };
            /// assert!(error.is_full());
            /// assert_eq!(error.into_inner(), sent);
            /// assert_eq!(receiver.recv()?, 0);
            /// # Ok(())
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// [`Full`](TrySendError::Full) if there is no room, or none after the rest of an
            /// earlier message. Otherwise as `send`.
            pub fn try_send(&self, value: $type) -> Result<(), TrySendError<$type>> {
                match self.outgoing.check_type() {
                    Ok(()) => self.outgoing.try_send(value),
                    Err(fault) => Err(TrySendError::new(fault, value)),
                }
            }

            /// Sends a value, waiting for room for at most `timeout`.
            ///
            /// The timeout bounds the whole call, on the monotonic clock. If it expires within the
            /// message, the error is [`Unfinished`](SendTimeoutError::Unfinished): see
            /// [`try_send`](Self::try_send). If the receiver dies, it returns at once.
            ///
            /// # Errors
            ///
            /// [`Timeout`](SendTimeoutError::Timeout) if nothing could be written before the
            /// timeout. Otherwise as `send`.
            ///
            /// ```
            /// use std::time::Duration;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<u32>()?;
            /// sender.send_timeout(7, Duration::from_millis(10))?;
            /// assert_eq!(receiver.recv()?, 7);
            /// # Ok(())
            /// # }
            /// ```
            pub fn send_timeout(
                &self,
                value: $type,
                timeout: Duration,
            ) -> Result<(), SendTimeoutError<$type>> {
                match self.outgoing.check_type() {
                    Ok(()) => self.outgoing.send_timeout(value, timeout),
                    Err(fault) => Err(SendTimeoutError::new(fault, value)),
                }
            }

            /// Sends a value, waiting for room until `deadline`.
            ///
            /// # Errors
            ///
            /// As [`send_timeout`](Self::send_timeout).
            ///
            /// ```
            /// use std::time::{Duration, Instant};
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<u32>()?;
            /// let deadline = Instant::now() + Duration::from_millis(10);
            /// for number in 0..3 {
            ///     sender.send_deadline(number, deadline)?; // one deadline for all of them
            /// }
            /// assert_eq!(receiver.recv()?, 0);
            /// # Ok(())
            /// # }
            /// ```
            pub fn send_deadline(
                &self,
                value: $type,
                deadline: Instant,
            ) -> Result<(), SendTimeoutError<$type>> {
                match self.outgoing.check_type() {
                    Ok(()) => self.outgoing.send_deadline(value, deadline),
                    Err(fault) => Err(SendTimeoutError::new(fault, value)),
                }
            }
        }

        /// For types that are not known to implement `Deserialize`.
        impl<$($param),*> Deref for $end<$($param),*> {
            type Target = Outgoing<$type>;

            #[inline]
            fn deref(&self) -> &Outgoing<$type> {
                &self.outgoing
            }
        }

        /// Sending bytes, and the rest of a message.
        impl<$($param),*> $end<$($param),*> {
            /// Sends bytes as one message, which [`recv_bytes`](Receiver::recv_bytes) returns.
            ///
            /// A message is not marked as bytes or as a value. `recv` tries to decode what
            /// `send_bytes` sent, and `recv_bytes` returns the encoded bytes of what `send` sent,
            /// without its descriptors. Both sides must therefore agree on the order of the two.
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<String>()?;
            /// sender.send_bytes(b"\x00\xff")?;
            /// sender.send("text".to_owned())?;
            /// assert_eq!(receiver.recv_bytes()?, b"\x00\xff");
            /// assert_eq!(receiver.recv()?, "text");
            /// # Ok(())
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// As `send`, without a value.
            pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), SendError<()>> {
                self.writer
                    .send_bytes(&self.stream, bytes, Deadline::NEVER)
                    .map_err(|fault| SendError::new(fault, ()))
            }

            /// Sends bytes as one message if there is room for it, without waiting.
            ///
            /// # Errors
            ///
            /// As `try_send`.
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<()>()?;
            /// sender.try_send_bytes(b"short")?;
            /// assert_eq!(receiver.recv_bytes()?, b"short");
            /// drop(receiver);
            /// assert!(sender.try_send_bytes(b"more").unwrap_err().is_disconnected());
            /// # Ok(())
            /// # }
            /// ```
            pub fn try_send_bytes(&self, bytes: &[u8]) -> Result<(), TrySendError<()>> {
                self.writer
                    .send_bytes(&self.stream, bytes, Deadline::after(Duration::ZERO))
                    .map_err(|fault| TrySendError::new(fault, ()))
            }

            /// Sends bytes as one message, waiting for room for at most `timeout`.
            ///
            /// # Errors
            ///
            /// As `send_timeout`.
            ///
            /// ```
            /// use std::time::Duration;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<()>()?;
            /// // More than a pipe holds, and the receiver does not read.
            /// let patience = Duration::from_millis(1);
            /// let error = sender.send_bytes_timeout(&[0; 1 << 20], patience).unwrap_err();
            /// assert!(error.is_unfinished());
            /// # drop(receiver);
            /// # Ok(())
            /// # }
            /// ```
            pub fn send_bytes_timeout(
                &self,
                bytes: &[u8],
                timeout: Duration,
            ) -> Result<(), SendTimeoutError<()>> {
                self.writer
                    .send_bytes(&self.stream, bytes, Deadline::after(timeout))
                    .map_err(|fault| SendTimeoutError::new(fault, ()))
            }

            /// Writes the rest of a message that was [`Unfinished`](TrySendError::Unfinished),
            /// waiting for room. Does nothing if there is no rest.
            ///
            /// # Errors
            ///
            /// As `send`. If the operating system refused, it can be called again.
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<()>()?;
            /// let message = vec![7; 1 << 20]; // more than a pipe holds
            /// assert!(sender.try_send_bytes(&message).unwrap_err().is_unfinished());
            /// let received = std::thread::spawn(move || receiver.recv_bytes().unwrap());
            /// sender.flush()?; // the rest of the message
            /// assert_eq!(received.join().unwrap(), message);
            /// # Ok(())
            /// # }
            /// ```
            pub fn flush(&self) -> Result<(), SendError<()>> {
                self.writer
                    .flush(&self.stream, Deadline::NEVER)
                    .map_err(|fault| SendError::new(fault, ()))
            }

            /// Writes the rest of a message that was [`Unfinished`](TrySendError::Unfinished),
            /// waiting for room for at most `timeout`.
            ///
            /// # Errors
            ///
            /// [`Timeout`](SendTimeoutError::Timeout) if a rest remains. Otherwise as
            /// [`flush`](Self::flush).
            ///
            /// ```
            /// use std::time::Duration;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<()>()?;
            /// let message = vec![7; 1 << 20]; // more than a pipe holds
            /// assert!(sender.try_send_bytes(&message).unwrap_err().is_unfinished());
            /// let received = std::thread::spawn(move || receiver.recv_bytes().unwrap());
            /// sender.flush_timeout(Duration::from_secs(10))?; // the rest of the message
            /// assert_eq!(received.join().unwrap(), message);
            /// # Ok(())
            /// # }
            /// ```
            pub fn flush_timeout(&self, timeout: Duration) -> Result<(), SendTimeoutError<()>> {
                self.writer
                    .flush(&self.stream, Deadline::after(timeout))
                    .map_err(|fault| SendTimeoutError::new(fault, ()))
            }
        }
    };
}

macro_rules! receives {
    ($end:ident<$($param:ident),*> $type:ident) => {
        /// Receiving values.
        impl<$($param),*> $end<$($param),*>
        where
            $type: DeserializeOwned,
        {
            /// Receives the next value, waiting for it indefinitely.
            ///
            /// If the sender dies, the messages that it has sent completely are received first, and
            /// then the error is returned.
            ///
            /// # Errors
            ///
            /// See [`RecvError`].
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<u32>()?;
            /// sender.send(7)?;
            /// drop(sender);
            /// assert_eq!(receiver.recv()?, 7);
            /// assert!(receiver.recv().unwrap_err().is_disconnected());
            /// # Ok(())
            /// # }
            /// ```
            #[inline]
            pub fn recv(&self) -> Result<$type, RecvError> {
                // `None` means that the deadline passed, and there is none.
                self.reader
                    .recv(&self.stream, Deadline::NEVER)
                    .and_then(|value| value.ok_or(RecvError::Disconnected))
            }

            /// Receives a value if a complete message has arrived, without waiting.
            ///
            /// # Errors
            ///
            /// [`Empty`](TryRecvError::Empty) if none has. Otherwise as `recv`.
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<u32>()?;
            /// assert!(receiver.try_recv().unwrap_err().is_empty());
            /// sender.send(7)?;
            /// assert_eq!(receiver.try_recv()?, 7);
            /// # Ok(())
            /// # }
            /// ```
            pub fn try_recv(&self) -> Result<$type, TryRecvError> {
                self.reader
                    .recv(&self.stream, Deadline::after(Duration::ZERO))?
                    .ok_or(TryRecvError::Empty)
            }

            /// Receives the next value, waiting for at most `timeout`.
            ///
            /// The timeout bounds the whole call, on the monotonic clock. If it expires within a
            /// message, nothing is lost: the next call continues there.
            ///
            /// # Errors
            ///
            /// [`Timeout`](RecvTimeoutError::Timeout) if none arrived before the timeout. Otherwise
            /// as `recv`.
            ///
            /// ```
            /// use std::time::Duration;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, _sender) = multiproc_pipe::simplex::<u32>()?;
            /// let error = receiver.recv_timeout(Duration::from_millis(1)).unwrap_err();
            /// assert!(error.is_timeout());
            /// # Ok(())
            /// # }
            /// ```
            pub fn recv_timeout(&self, timeout: Duration) -> Result<$type, RecvTimeoutError> {
                self.reader
                    .recv(&self.stream, Deadline::after(timeout))?
                    .ok_or(RecvTimeoutError::Timeout)
            }

            /// Receives the next value, waiting until `deadline`.
            ///
            /// # Errors
            ///
            /// As [`recv_timeout`](Self::recv_timeout).
            ///
            /// ```
            /// use std::time::{Duration, Instant};
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<u32>()?;
            /// sender.send(7)?;
            /// let deadline = Instant::now() + Duration::from_millis(10);
            /// assert_eq!(receiver.recv_deadline(deadline)?, 7);
            /// assert!(receiver.recv_deadline(deadline).unwrap_err().is_timeout());
            /// # Ok(())
            /// # }
            /// ```
            pub fn recv_deadline(&self, deadline: Instant) -> Result<$type, RecvTimeoutError> {
                self.reader
                    .recv(&self.stream, Deadline::at(deadline))?
                    .ok_or(RecvTimeoutError::Timeout)
            }

            /// Returns an iterator over the values, until the other side is gone.
            ///
            /// An item is an error if a message could not be decoded, and the next one follows. Any
            /// other error is the last item. The iterator ends without an error when the other side
            /// is gone.
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<u32>()?;
            /// for number in 0..3 {
            ///     sender.send(number)?;
            /// }
            /// drop(sender);
            /// let mut sum = 0;
            /// for number in receiver.iter() {
            ///     sum += number?;
            /// }
            /// assert_eq!(sum, 3);
            /// # Ok(())
            /// # }
            /// ```
            pub fn iter(&self) -> Iter<'_, $type> {
                Iter::new(&self.stream, &self.reader)
            }

            /// Returns an iterator over the values that have arrived completely. It does not wait,
            /// and ends where [`try_recv`](Self::try_recv) would return
            /// [`Empty`](TryRecvError::Empty), or when the other side is gone.
            ///
            /// An item is an error as for [`iter`](Self::iter). A sender that sends faster than the
            /// items are used keeps the iterator going.
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<u32>()?;
            /// sender.send(1)?;
            /// sender.send(2)?;
            /// assert_eq!(receiver.try_iter().collect::<Result<Vec<_>, _>>()?, [1, 2]);
            /// sender.send(3)?; // the sender still exists
            /// assert_eq!(receiver.try_iter().collect::<Result<Vec<_>, _>>()?, [3]);
            /// # Ok(())
            /// # }
            /// ```
            pub fn try_iter(&self) -> TryIter<'_, $type> {
                TryIter::new(&self.stream, &self.reader)
            }
        }

        /// Receiving bytes, and waiting.
        impl<$($param),*> $end<$($param),*> {
            /// Waits for at most `timeout` until `recv` would return at once. Returns `false` if
            /// the timeout expired.
            ///
            /// `recv` returns at once if a complete message has arrived, the other side is gone
            /// (also by its death) or the stream is corrupted, but not if only a part of a message
            /// has arrived.
            ///
            /// # Errors
            ///
            /// If the operating system refuses.
            ///
            /// ```
            /// use std::time::Duration;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<u32>()?;
            /// assert!(!receiver.poll(Duration::ZERO)?);
            /// sender.send(7)?;
            /// assert!(receiver.poll(Duration::MAX)?);
            /// # Ok(())
            /// # }
            /// ```
            pub fn poll(&self, timeout: Duration) -> io::Result<bool> {
                self.reader.poll(&self.stream, Deadline::after(timeout))
            }

            /// Receives the bytes of the next message, waiting for it indefinitely. Usually
            /// [`send_bytes`](Sender::send_bytes) has sent them.
            ///
            /// # Errors
            ///
            /// As `recv`, but nothing is decoded.
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (left, right) = multiproc_pipe::duplex::<(), ()>()?;
            /// left.send_bytes(b"\x00\xff")?;
            /// drop(left);
            /// assert_eq!(right.recv_bytes()?, b"\x00\xff");
            /// assert!(right.recv_bytes().unwrap_err().is_disconnected());
            /// # Ok(())
            /// # }
            /// ```
            pub fn recv_bytes(&self) -> Result<Vec<u8>, RecvError> {
                self.reader
                    .recv_bytes(&self.stream, Deadline::NEVER)
                    .and_then(|bytes| bytes.ok_or(RecvError::Disconnected))
            }

            /// Receives the bytes of the next message if it has arrived completely, without
            /// waiting.
            ///
            /// # Errors
            ///
            /// As `try_recv`, but nothing is decoded.
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<()>()?;
            /// assert!(receiver.try_recv_bytes().unwrap_err().is_empty());
            /// sender.send_bytes(b"bytes")?;
            /// assert_eq!(receiver.try_recv_bytes()?, b"bytes");
            /// # Ok(())
            /// # }
            /// ```
            pub fn try_recv_bytes(&self) -> Result<Vec<u8>, TryRecvError> {
                self.reader
                    .recv_bytes(&self.stream, Deadline::after(Duration::ZERO))?
                    .ok_or(TryRecvError::Empty)
            }

            /// Receives the bytes of the next message, waiting for at most `timeout`.
            ///
            /// # Errors
            ///
            /// As `recv_timeout`, but nothing is decoded.
            ///
            /// ```
            /// use std::time::Duration;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, _sender) = multiproc_pipe::simplex::<()>()?;
            /// let error = receiver.recv_bytes_timeout(Duration::from_millis(1)).unwrap_err();
            /// assert!(error.is_timeout());
            /// # Ok(())
            /// # }
            /// ```
            pub fn recv_bytes_timeout(
                &self,
                timeout: Duration,
            ) -> Result<Vec<u8>, RecvTimeoutError> {
                self.reader
                    .recv_bytes(&self.stream, Deadline::after(timeout))?
                    .ok_or(RecvTimeoutError::Timeout)
            }

            /// Receives the bytes of the next message into a buffer, and returns their number.
            ///
            /// ```
            /// use multiproc_pipe::RecvBytesError;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<()>()?;
            /// sender.send_bytes(b"short")?;
            /// sender.send_bytes(b"a longer one")?;
            /// let mut buffer = [0; 8];
            /// assert_eq!(receiver.recv_bytes_into(&mut buffer)?, 5);
            /// match receiver.recv_bytes_into(&mut buffer) {
            ///     Err(RecvBytesError::TooLong(message)) => assert_eq!(message, b"a longer one"),
            ///     other => panic!("{other:?}"),
            /// }
            /// # Ok(())
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// [`TooLong`](RecvBytesError::TooLong), with the whole message, if the buffer is too
            /// short. Otherwise as `recv_bytes`.
            pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize, RecvBytesError> {
                self.reader.recv_bytes_into(&self.stream, buffer)
            }
        }

        impl<'a, $($param),*> IntoIterator for &'a $end<$($param),*>
        where
            $type: DeserializeOwned,
        {
            type Item = Result<$type, RecvError>;
            type IntoIter = Iter<'a, $type>;

            fn into_iter(self) -> Iter<'a, $type> {
                self.iter()
            }
        }

        impl<'a, $($param),*> IntoIterator for &'a mut $end<$($param),*>
        where
            $type: DeserializeOwned,
        {
            type Item = Result<$type, RecvError>;
            type IntoIter = Iter<'a, $type>;

            fn into_iter(self) -> Iter<'a, $type> {
                self.iter()
            }
        }
    };
}

sends!(Connection < S, R > S);
sends!(Sender<T> T);
receives!(Connection < S, R > R);
receives!(Receiver<T> T);

impl<T: DeserializeOwned> IntoIterator for Receiver<T> {
    type Item = Result<T, RecvError>;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter::new(self.stream, self.reader)
    }
}

/// The traits of all ends: conversions from and to descriptors, and texts.
macro_rules! end {
    ($end:ident<$($param:ident),*> $mode:literal $role:ident) => {
        /// For waiting with poll(2) or epoll(7). Reading or writing on it breaks the connection,
        /// and messages that were read ahead are not visible.
        impl<$($param),*> AsFd for $end<$($param),*> {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.stream.as_fd()
            }
        }

        /// Takes any descriptor. If it cannot carry messages, the first use returns an error that
        /// states what was expected and received. `from_fd` and `from_socket` check at once.
        impl<$($param),*> From<OwnedFd> for $end<$($param),*> {
            fn from(descriptor: OwnedFd) -> Self {
                Self::over(Stream::assume(descriptor, Role::$role))
            }
        }

        /// Bytes that were read ahead and the rest of an unwritten message are lost, so both sides
        /// should be between two messages.
        ///
        /// Half of a [split](Connection::split) connection becomes the whole socket, whose
        /// directions are then up to the caller.
        ///
        /// # Panics
        ///
        /// If it is half of a split connection whose other half lives, and the process has no
        /// descriptor left for a duplicate.
        impl<$($param),*> From<$end<$($param),*>> for OwnedFd {
            fn from(end: $end<$($param),*>) -> Self {
                end.into_stream().into()
            }
        }

        impl<$($param),*> fmt::Debug for $end<$($param),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($end))
                    .field("fd", &self.stream.as_fd().as_raw_fd())
                    .field("mode", &format_args!($mode))
                    .finish()
            }
        }

        impl<$($param),*> fmt::Display for $end<$($param),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($mode, " connection {}"), self.stream.as_fd().as_raw_fd())
            }
        }
    };
}

end!(Connection < S, R > "ReadWrite" Both);
end!(Sender<T> "WriteOnly" Sends);
end!(Receiver<T> "ReadOnly" Receives);
