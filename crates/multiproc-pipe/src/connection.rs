//! The ends that users hold: `Connection`, `Sender`, `Receiver`.

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
use crate::iter::{IntoIter, Iter};
use crate::stream::{Role, Stream};
use multiproc_message::{Format, check_type};
use multiproc_shm::Deadline;

/// One end of a two-way connection: sends `S`, receives `R`. Made by [`duplex`](crate::duplex).
///
/// It can be sent to another process: as an argument, or in a message. What it has read
/// ahead, and the rest of a message that it has not written yet, go with it.
pub struct Connection<S, R> {
    outgoing: Outgoing<S>,
    pub(crate) reader: Reader,
    types: PhantomData<fn() -> R>,
}

/// The sending end of a one-way connection. Made by [`simplex`](crate::simplex), or half of what
/// [`Connection::split`] gives.
///
/// It can be sent to another process: as an argument, or in a message. The rest of a message that
/// it has not written yet goes with it.
pub struct Sender<T> {
    outgoing: Outgoing<T>,
}

/// What an end sends with, and all that an end has which only sends.
///
/// It has `send` and its kin as the ends have them, for types that are not known to implement
/// `Deserialize`. The ends dereference to it, so that a call goes there where theirs, which ask for
/// more and check the type, do not apply.
pub struct Outgoing<T> {
    pub(crate) stream: Stream,
    pub(crate) writer: Writer,
    /// The type was found to be one that can be received.
    is_checked: Cell<bool>,
    types: PhantomData<fn(T)>,
}

/// The receiving end of a one-way connection. Made by [`simplex`](crate::simplex), or half of what
/// [`Connection::split`] gives.
///
/// It can be sent to another process: as an argument, or in a message. What it has read
/// ahead goes with it.
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

    /// A connection on which both sides send a hello first. Sends ours, without waiting.
    ///
    /// # Errors
    ///
    /// If the operating system refuses. That the other side is gone is for the first use to tell.
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
    /// If it does not match ours. Anything else is for the first use to tell.
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

    /// Makes a connection of one end of a Unix stream socket that came from elsewhere.
    ///
    /// The other end must be a `Connection`, too, or write the same frames.
    ///
    /// # Errors
    ///
    /// If it is no such socket: the error says what was expected, and what it is.
    pub fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        Stream::adopt(socket, Role::Both).map(Self::over)
    }

    /// The same connection, for other types from here on: for a protocol with phases.
    ///
    /// Messages that were sent for the old types and not yet received are decoded as the new ones.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (a, b) = multiproc_pipe::duplex::<u32, ()>()?;
    /// a.send(2)?; // how many names will come
    /// let a = a.retype::<String, ()>();
    /// a.send("Ada".to_owned())?;
    /// assert_eq!(b.recv()?, 2);
    /// assert_eq!(b.retype::<(), String>().recv()?, "Ada");
    /// # Ok(())
    /// # }
    /// ```
    pub fn retype<S2, R2>(self) -> Connection<S2, R2> {
        let Self { outgoing: Outgoing { stream, writer, .. }, reader, .. } = self;
        Connection::with(stream, writer, reader)
    }

    /// The two directions as ends of their own: for two threads, or two processes.
    ///
    /// Dropping one half ends its direction: after the `Sender` is gone, the other side receives what
    /// was sent and then `Disconnected`; after the `Receiver` is gone, the other side's `send` says
    /// `Disconnected`. The other half goes on.
    ///
    /// The two halves remain one socket. So when a process that holds one of them is *killed*, or a
    /// half is lost in a message that nobody receives, the other side hears of it only when the other
    /// half ends as well. Where that matters, use two [`simplex`](crate::simplex) connections instead.
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

    /// Makes a sender of the writing end of a pipe, or of a Unix stream socket, that came from
    /// elsewhere.
    ///
    /// # Errors
    ///
    /// If it is neither: the error says what was expected, and what it is.
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

    /// Makes a receiver of the reading end of a pipe, or of a Unix stream socket, that came from
    /// elsewhere.
    ///
    /// # Errors
    ///
    /// If it is neither: the error says what was expected, and what it is.
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
    /// An error, if values of this type could be sent and not received.
    #[inline]
    fn check_type(&self) -> Result<(), SendFault> {
        if self.is_checked.get() { Ok(()) } else { self.check_type_once() }
    }

    #[cold]
    fn check_type_once(&self) -> Result<(), SendFault> {
        check_type::<T>().map_err(SendFault::Encode)?;
        self.is_checked.set(true);
        Ok(())
    }
}

#[doc(hidden)]
impl<T: Serialize> Outgoing<T> {
    #[inline]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        match self.writer.send(&self.stream, &value, Deadline::NEVER) {
            Ok(()) => Ok(()),
            Err(fault) => Err(SendError::new(fault, value)),
        }
    }

    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.writer
            .send(&self.stream, &value, Deadline::after(Duration::ZERO))
            .map_err(|fault| TrySendError::new(fault, value))
    }

    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.send_until(value, Deadline::after(timeout))
    }

    pub fn send_deadline(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.send_until(value, Deadline::at(deadline))
    }

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
            /// Sends a value: returns when all of it is with the kernel.
            ///
            /// The receiver gets a value of its own, made of the bytes. The one that was sent is then
            /// dropped here, so a `Drop` of its type runs in both processes; handles in it are closed
            /// here, when the message has duplicates of their descriptors.
            ///
            /// Blocks while the other side's buffer is full; and, with handles in the value, while
            /// the user has as many descriptors in messages on their way as a process may open
            /// (RLIMIT_NOFILE), which is looked at up to every 64 ms. If the receiver dies, it
            /// returns at once.
            ///
            /// # Errors
            ///
            /// See [`SendError`]: it gives the value back. A type that could not be received (an enum
            /// with serde's `untagged`, say) is an encode error.
            #[inline]
            pub fn send(&self, value: $type) -> Result<(), SendError<$type>> {
                match self.outgoing.check_type() {
                    Ok(()) => self.outgoing.send(value),
                    Err(fault) => Err(SendError::new(fault, value)),
                }
            }

            /// Sends a value if there is room for it, without waiting.
            ///
            /// There may be room for a part of it: then it is
            /// [`Unfinished`](TrySendError::Unfinished), and the connection keeps the rest. The next
            /// call that sends writes that first, or [`flush`](Self::flush) does. An end that is
            /// dropped with a rest leaves half a message: the other side gets `Corrupted`.
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (receiver, sender) = multiproc_pipe::simplex::<u64>()?;
            /// let mut sent = 0;
            /// let error = loop {
            ///     match sender.try_send(sent) {
            ///         Ok(()) => sent += 1,
            ///         Err(error) => break error, // nobody reads
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
            /// [`Full`](TrySendError::Full) if there is no room, or none behind the rest of an earlier
            /// message; else as `send`.
            pub fn try_send(&self, value: $type) -> Result<(), TrySendError<$type>> {
                match self.outgoing.check_type() {
                    Ok(()) => self.outgoing.try_send(value),
                    Err(fault) => Err(TrySendError::new(fault, value)),
                }
            }

            /// Sends a value, waiting for room for at most `timeout`.
            ///
            /// The time bounds the whole call, on the monotonic clock. When it runs out in the middle
            /// of the message, that is [`Unfinished`](SendTimeoutError::Unfinished): see
            /// [`try_send`](Self::try_send).
            ///
            /// # Errors
            ///
            /// [`Timeout`](SendTimeoutError::Timeout) if nothing of it could be written in time; else
            /// as `send`.
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

            /// Sends a value, waiting for room until `deadline` at most.
            ///
            /// # Errors
            ///
            /// As [`send_timeout`](Self::send_timeout).
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

        /// Sending bytes, and what is left.
        impl<$($param),*> $end<$($param),*> {
            /// Sends bytes as one message, which [`recv_bytes`](Receiver::recv_bytes) gives back.
            ///
            /// Nothing marks a message as bytes or as a value: a message is its bytes. `recv` tries to
            /// decode what `send_bytes` sent, and `recv_bytes` gives the encoded bytes of what `send`
            /// sent, without its descriptors. So both sides must agree on which comes when.
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
            /// As `send`; there is no value to give back.
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
            pub fn send_bytes_timeout(
                &self,
                bytes: &[u8],
                timeout: Duration,
            ) -> Result<(), SendTimeoutError<()>> {
                self.writer
                    .send_bytes(&self.stream, bytes, Deadline::after(timeout))
                    .map_err(|fault| SendTimeoutError::new(fault, ()))
            }

            /// Writes the rest of a message that was [`Unfinished`](TrySendError::Unfinished), waiting
            /// for room as long as it takes. Nothing, if there is none.
            ///
            /// # Errors
            ///
            /// As `send`. If the operating system refused, it can be tried again.
            pub fn flush(&self) -> Result<(), SendError<()>> {
                self.writer
                    .flush(&self.stream, Deadline::NEVER)
                    .map_err(|fault| SendError::new(fault, ()))
            }

            /// Writes the rest of a message that was [`Unfinished`](TrySendError::Unfinished), waiting
            /// for room for at most `timeout`.
            ///
            /// # Errors
            ///
            /// [`Timeout`](SendTimeoutError::Timeout) if there still is a rest; else as
            /// [`flush`](Self::flush).
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
            /// Receives the next value, waiting for it as long as it takes.
            ///
            /// If the sender dies, what it had sent completely still comes, then the error.
            ///
            /// # Errors
            ///
            /// See [`RecvError`].
            #[inline]
            pub fn recv(&self) -> Result<$type, RecvError> {
                // `None` means "not in time", and never does not come.
                self.reader
                    .recv(&self.stream, Deadline::NEVER)
                    .and_then(|value| value.ok_or(RecvError::Disconnected))
            }

            /// Receives a value if all of it is there, without waiting.
            ///
            /// # Errors
            ///
            /// [`Empty`](TryRecvError::Empty) if there is none; else as `recv`.
            pub fn try_recv(&self) -> Result<$type, TryRecvError> {
                self.reader
                    .recv(&self.stream, Deadline::after(Duration::ZERO))?
                    .ok_or(TryRecvError::Empty)
            }

            /// Receives the next value, waiting for at most `timeout`.
            ///
            /// The time bounds the whole call, on the monotonic clock. When it runs out in the
            /// middle of a message, nothing is lost: the next call goes on there.
            ///
            /// # Errors
            ///
            /// [`Timeout`](RecvTimeoutError::Timeout) if none came in time; else as `recv`.
            pub fn recv_timeout(&self, timeout: Duration) -> Result<$type, RecvTimeoutError> {
                self.reader
                    .recv(&self.stream, Deadline::after(timeout))?
                    .ok_or(RecvTimeoutError::Timeout)
            }

            /// Receives the next value, waiting until `deadline` at most.
            ///
            /// # Errors
            ///
            /// As [`recv_timeout`](Self::recv_timeout).
            pub fn recv_deadline(&self, deadline: Instant) -> Result<$type, RecvTimeoutError> {
                self.reader
                    .recv(&self.stream, Deadline::at(deadline))?
                    .ok_or(RecvTimeoutError::Timeout)
            }

            /// The values that come, until the other side is gone.
            ///
            /// An item is an error if a message could not be decoded; the next one follows. Any other
            /// error is the last item. That the other side is gone is the end, and no item.
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
        }

        /// Receiving bytes, and waiting.
        impl<$($param),*> $end<$($param),*> {
            /// Whether `recv` would return at once, after waiting for that for at most `timeout`.
            ///
            /// It would if a whole message is there, or the other side is gone, or the stream is
            /// corrupted. It would not if only a part of a message is there.
            ///
            /// # Errors
            ///
            /// If the operating system refuses.
            pub fn poll(&self, timeout: Duration) -> io::Result<bool> {
                self.reader.poll(&self.stream, Deadline::after(timeout))
            }

            /// Receives the bytes of the next message, waiting for it as long as it takes.
            ///
            /// That of a message which `send_bytes` sent, as a rule: see
            /// [`send_bytes`](Sender::send_bytes).
            ///
            /// # Errors
            ///
            /// As `recv`, but nothing is decoded.
            pub fn recv_bytes(&self) -> Result<Vec<u8>, RecvError> {
                self.reader
                    .recv_bytes(&self.stream, Deadline::NEVER)
                    .and_then(|bytes| bytes.ok_or(RecvError::Disconnected))
            }

            /// Receives the bytes of the next message if all of it is there, without waiting.
            ///
            /// # Errors
            ///
            /// As `try_recv`, but nothing is decoded.
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
            pub fn recv_bytes_timeout(
                &self,
                timeout: Duration,
            ) -> Result<Vec<u8>, RecvTimeoutError> {
                self.reader
                    .recv_bytes(&self.stream, Deadline::after(timeout))?
                    .ok_or(RecvTimeoutError::Timeout)
            }

            /// Receives the bytes of the next message into a buffer, and says how many there are.
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
            /// [`TooLong`](RecvBytesError::TooLong), with the whole message, if the buffer is too short;
            /// else as `recv_bytes`.
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

/// What all ends have: a descriptor to wait on, a text.
macro_rules! end {
    ($end:ident<$($param:ident),*> $mode:literal $role:ident) => {
        /// For waiting with poll(2) or epoll(7). Reading or writing on it breaks the connection;
        /// what was read ahead does not show.
        impl<$($param),*> AsFd for $end<$($param),*> {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.stream.as_fd()
            }
        }

        /// Takes any descriptor. If messages cannot go over it, the first use is an error that says
        /// what was expected, and what it is; a constructor that looks at once is beside this.
        impl<$($param),*> From<OwnedFd> for $end<$($param),*> {
            fn from(descriptor: OwnedFd) -> Self {
                Self::over(Stream::assume(descriptor, Role::$role))
            }
        }

        /// What was read ahead is lost, and the rest of a message that was not written: let both
        /// sides be between two messages.
        ///
        /// Half of a [split](Connection::split) connection gives the whole socket, whose directions
        /// are then the caller's affair.
        ///
        /// # Panics
        ///
        /// With half of a split connection whose other half lives, if the process has no descriptors
        /// left: it takes a second one.
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
