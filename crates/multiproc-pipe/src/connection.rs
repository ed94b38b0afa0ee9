//! The ends that users hold: `Connection`, `Sender`, `Receiver`.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bytes::Bytes;
use crate::deadline::Deadline;
use crate::descriptor::Descriptor;
use crate::error::{EncodeError, RecvError, RecvTimeoutError, SendError, TryRecvError};
use crate::frame::{Assembler, Frame, HEADER, Header, KEEP};
use crate::message;
use crate::stream::{ReadFault, Stream};

/// The sending half of the machinery: encodes into a buffer that is kept, writes it at once.
#[derive(Default)]
struct Writer {
    buffer: RefCell<Vec<u8>>,
    /// An earlier frame was written only in part.
    torn: Cell<bool>,
}

enum WriteFault {
    Encode(EncodeError),
    Io(io::Error),
}

impl Writer {
    fn send<T: Serialize>(&self, stream: &Stream, value: T) -> Result<(), SendError<T>> {
        match self.try_send(stream, &value) {
            Ok(()) => Ok(()),
            Err(WriteFault::Encode(error)) => Err(SendError::Encode(value, error)),
            Err(WriteFault::Io(error)) => match error.kind() {
                io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::NotConnected => Err(SendError::Disconnected(value)),
                _ => Err(SendError::Io(value, error)),
            },
        }
    }

    fn try_send<T: Serialize>(&self, stream: &Stream, value: &T) -> Result<(), WriteFault> {
        // Taken out while the value's own code runs: that may send on this very connection.
        let mut buffer = self.buffer.take();
        buffer.clear();
        buffer.extend_from_slice(&[0; HEADER]);
        let result = message::encode(value, &mut buffer)
            .map_err(WriteFault::Encode)
            .and_then(|descriptors| self.write::<T>(stream, &mut buffer, &descriptors));
        if buffer.capacity() <= KEEP {
            self.buffer.replace(buffer);
        }
        result
    }

    /// Writes what is encoded in `frame`, behind the room for its header.
    fn write<T>(
        &self,
        stream: &Stream,
        frame: &mut [u8],
        descriptors: &[OwnedFd],
    ) -> Result<(), WriteFault> {
        if !descriptors.is_empty() && !stream.carries_descriptors() {
            return Err(WriteFault::Encode(EncodeError::new::<T>(
                "it holds descriptors, and a simplex connection cannot carry them; use `duplex`",
            )));
        }
        if self.torn.get() {
            return Err(WriteFault::Io(io::Error::other(
                "an earlier message was sent only in part; drop this connection",
            )));
        }
        let header = Header { length: frame.len() - HEADER, descriptors: descriptors.len() };
        frame[..HEADER].copy_from_slice(&header.to_bytes());
        let mut written = 0;
        let result = stream.write_frame(frame, descriptors, &mut written);
        // If the other side is gone, that is what the next send will say, too.
        let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        self.torn.set(written > 0 && result.as_ref().is_err_and(|error| !is_gone(error)));
        result.map_err(WriteFault::Io)
    }
}

/// The receiving half: reads as much as is there, keeps what is not complete.
struct Reader {
    assembler: RefCell<Assembler>,
    /// Why no further message can be made out.
    corrupted: RefCell<Option<String>>,
}

impl Reader {
    fn new(assembler: Assembler) -> Self {
        Self { assembler: RefCell::new(assembler), corrupted: RefCell::default() }
    }

    /// The next value; `None`, if it did not come in time.
    fn recv<T: DeserializeOwned>(
        &self,
        stream: &Stream,
        deadline: Deadline,
    ) -> Result<Option<T>, RecvError> {
        if let Some(why) = &*self.corrupted.borrow() {
            return Err(RecvError::Corrupted(why.clone()));
        }
        let mut assembler = self.assembler.borrow_mut();
        let mut has_read = false;
        loop {
            match assembler.next() {
                Ok(Some(Frame { body, descriptors })) => {
                    let value = message::decode(&body, descriptors);
                    if let Cow::Owned(body) = body {
                        assembler.recycle(body);
                    }
                    return value.map(Some).map_err(RecvError::Decode);
                }
                Ok(None) => {}
                Err(why) => return Err(self.give_up(&mut assembler, why)),
            }
            // Else a sender that is quick enough could keep it here in one endless message.
            if has_read && deadline.is_past() {
                return Ok(None);
            }
            if deadline != Deadline::NEVER
                && !stream.wait_readable(deadline).map_err(RecvError::Io)?
            {
                return Ok(None);
            }
            stream.let_some_gather();
            match read_more(stream, &mut assembler) {
                Ok(0) if assembler.is_inside_frame() => {
                    let why = "it ended inside a message".to_owned();
                    return Err(self.give_up(&mut assembler, why));
                }
                Ok(0) => return Err(RecvError::Disconnected),
                Ok(_) => has_read = true,
                Err(ReadFault::Io(error)) => return Err(RecvError::Io(error)),
                Err(ReadFault::DescriptorsLost) => {
                    let why = "descriptors were lost on arrival, because this process has as many \
                               open as it may (RLIMIT_NOFILE)";
                    return Err(self.give_up(&mut assembler, why.to_owned()));
                }
            }
        }
    }

    /// Nothing can be made out any more, so nothing is kept.
    fn give_up(&self, assembler: &mut Assembler, why: String) -> RecvError {
        *assembler = Assembler::new();
        self.corrupted.replace(Some(why.clone()));
        RecvError::Corrupted(why)
    }

    /// What was read ahead, to travel with the end.
    fn pending<E: serde::ser::Error>(&self) -> Result<(Vec<u8>, Vec<Descriptor>), E> {
        if let Some(why) = &*self.corrupted.borrow() {
            let why = format!("a connection that is corrupted cannot be sent: {why}");
            return Err(E::custom(message::refusal(why)));
        }
        let assembler = self.assembler.borrow();
        let (bytes, descriptors) = assembler.pending();
        let copies: io::Result<Vec<_>> =
            descriptors.iter().map(|fd| fd.try_clone().map(Descriptor)).collect();
        let copies = copies.map_err(|error| {
            E::custom(message::refusal(format!("a descriptor cannot be duplicated: {error}")))
        })?;
        Ok((bytes, copies))
    }

    fn resume(bytes: &[u8], descriptors: Vec<Descriptor>) -> Self {
        Self::new(Assembler::resume(bytes, descriptors.into_iter().map(OwnedFd::from).collect()))
    }
}

/// One read. A reset is an end: the other side closed without reading everything.
fn read_more(stream: &Stream, assembler: &mut Assembler) -> Result<usize, ReadFault> {
    let space = assembler
        .space()
        .map_err(|error| ReadFault::Io(io::Error::new(io::ErrorKind::OutOfMemory, error)))?;
    let is_ahead = matches!(space, crate::frame::Space::Ahead(..));
    let count = match stream.read(space) {
        Err(ReadFault::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => 0,
        other => other?,
    };
    if is_ahead {
        assembler.filled(count);
    }
    Ok(count)
}

/// One end of a two-way connection: sends `S`, receives `R`. Made by [`duplex`](crate::duplex).
///
/// It can be sent to another process: as an argument, or in a message. What it has read
/// ahead goes with it.
pub struct Connection<S, R> {
    stream: Stream,
    writer: Writer,
    reader: Reader,
    types: PhantomData<fn(S) -> R>,
}

/// The sending end of a one-way connection. Made by [`simplex`](crate::simplex).
///
/// It can be sent to another process: as an argument, or in a message.
pub struct Sender<T> {
    stream: Stream,
    writer: Writer,
    types: PhantomData<fn(T)>,
}

/// The receiving end of a one-way connection. Made by [`simplex`](crate::simplex).
///
/// It can be sent to another process: as an argument, or in a message. What it has read
/// ahead goes with it.
pub struct Receiver<T> {
    stream: Stream,
    reader: Reader,
    types: PhantomData<fn() -> T>,
}

impl<S, R> Connection<S, R> {
    pub(crate) fn over(stream: Stream) -> Self {
        Self::with_reader(stream, Reader::new(Assembler::new()))
    }

    fn with_reader(stream: Stream, reader: Reader) -> Self {
        Self { stream, writer: Writer::default(), reader, types: PhantomData }
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
        let Self { stream, writer, reader, .. } = self;
        Connection { stream, writer, reader, types: PhantomData }
    }
}

impl<T> Sender<T> {
    pub(crate) fn over(stream: Stream) -> Self {
        Self { stream, writer: Writer::default(), types: PhantomData }
    }
}

impl<T> Receiver<T> {
    pub(crate) fn over(stream: Stream) -> Self {
        Self { stream, reader: Reader::new(Assembler::new()), types: PhantomData }
    }
}

macro_rules! sends {
    ($end:ident<$($param:ident),*> $type:ident) => {
        impl<$($param),*> $end<$($param),*>
        where
            $type: Serialize,
        {
            /// Sends a value: returns when all of it is with the kernel.
            ///
            /// Blocks while the other side's buffer is full. If the receiver dies, it returns at
            /// once.
            ///
            /// # Errors
            ///
            /// See [`SendError`]: it gives the value back.
            pub fn send(&self, value: $type) -> Result<(), SendError<$type>> {
                self.writer.send(&self.stream, value)
            }
        }
    };
}

macro_rules! receives {
    ($end:ident<$($param:ident),*> $type:ident) => {
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
        }
    };
}

sends!(Connection < S, R > S);
sends!(Sender<T> T);
receives!(Connection < S, R > R);
receives!(Receiver<T> T);

/// What all ends have: a descriptor to wait on, a text.
macro_rules! end {
    ($end:ident<$($param:ident),*> $mode:literal) => {
        /// For waiting with poll(2) or epoll(7). Reading or writing on it breaks the connection;
        /// what was read ahead does not show.
        impl<$($param),*> AsFd for $end<$($param),*> {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.stream.as_fd()
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

end!(Connection < S, R > "ReadWrite");
end!(Sender<T> "WriteOnly");
end!(Receiver<T> "ReadOnly");

impl<S, R> Connection<S, R> {
    /// Makes a connection of one end of a Unix stream socket that came from elsewhere.
    ///
    /// The other end must be a `Connection`, too, or write the same frames.
    ///
    /// # Errors
    ///
    /// If it is no socket: the error says what it is.
    pub fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        let stream = Stream::adopt(socket)?;
        if !stream.carries_descriptors() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "expected a stream socket, which a two-way connection goes over, got a pipe",
            ));
        }
        Ok(Self::over(stream))
    }
}

/// What was read ahead is lost.
impl<S, R> From<Connection<S, R>> for OwnedFd {
    fn from(connection: Connection<S, R>) -> Self {
        connection.stream.into()
    }
}

/// An end in a message: its descriptor, and what it had read ahead. Sending moves it.
#[derive(Serialize, Deserialize)]
struct Travelling {
    descriptor: Descriptor,
    ahead: Bytes,
    ahead_descriptors: Vec<Descriptor>,
}

impl Travelling {
    fn pack<S: Serializer>(
        stream: &Stream,
        reader: Option<&Reader>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let descriptor = stream.try_clone().map(Descriptor).map_err(|error| {
            let reason = format!("a connection cannot be duplicated: {error}");
            S::Error::custom(message::refusal(reason))
        })?;
        let (ahead, ahead_descriptors) =
            reader.map(Reader::pending).transpose()?.unwrap_or_default();
        Self { descriptor, ahead: Bytes(ahead), ahead_descriptors }.serialize(serializer)
    }

    fn unpack<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(Stream, Reader), D::Error> {
        let Self { descriptor, ahead, ahead_descriptors } = Self::deserialize(deserializer)?;
        let stream = Stream::adopt(descriptor.into())
            .map_err(|error| D::Error::custom(message::refusal(error)))?;
        Ok((stream, Reader::resume(&ahead.0, ahead_descriptors)))
    }
}

impl<S, R> Serialize for Connection<S, R> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        Travelling::pack(&self.stream, Some(&self.reader), serializer)
    }
}

impl<T> Serialize for Receiver<T> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        Travelling::pack(&self.stream, Some(&self.reader), serializer)
    }
}

impl<T> Serialize for Sender<T> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        Travelling::pack(&self.stream, None, serializer)
    }
}

impl<'de, S, R> Deserialize<'de> for Connection<S, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (stream, reader) = Travelling::unpack(deserializer)?;
        Ok(Self::with_reader(stream, reader))
    }
}

impl<'de, T> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (stream, reader) = Travelling::unpack(deserializer)?;
        Ok(Self { stream, reader, types: PhantomData })
    }
}

impl<'de, T> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (stream, _) = Travelling::unpack(deserializer)?;
        Ok(Self::over(stream))
    }
}
