//! The errors of sending, receiving and connecting.

use std::error::Error;
use std::{fmt, io};

use multiproc_message::{DecodeError, EncodeError, debug_is_display};

/// The reason why a message was not sent completely. The public errors add the value.
pub(crate) enum SendFault {
    /// Nothing was written before the deadline.
    TimedOut,
    /// A part was written before the deadline. The rest is kept.
    Unfinished,
    Disconnected,
    Encode(EncodeError),
    Io(io::Error),
}

impl From<io::Error> for SendFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected => Self::Disconnected,
            _ => Self::Io(error),
        }
    }
}

/// The three send errors differ in the variants for a deadline.
macro_rules! send_error {
    ($(#[$doc:meta])* $name:ident $(, $(#[$nothing_doc:meta])* $nothing:ident, $text:literal, $is:ident)?) => {
        $(#[$doc])*
        #[non_exhaustive]
        pub enum $name<T> {
            $(
            $(#[$nothing_doc])*
            $nothing(T),
            /// Only a part of the message was written before the deadline. The connection keeps the
            /// rest and writes it before the next message or in `flush`, so do not send the value
            /// again.
            Unfinished(T),
            )?
            /// The other end is closed, or its process has died.
            Disconnected(T),
            /// The value could not be encoded. Nothing was sent, and the connection is unchanged.
            Encode(T, EncodeError),
            /// The operating system returned an error.
            Io(T, io::Error),
        }

        impl<T> $name<T> {
            /// Returns the value that was not sent.
            pub fn into_inner(self) -> T {
                match self {
                    $(Self::$nothing(value) | Self::Unfinished(value) => value,)?
                    Self::Disconnected(value) | Self::Encode(value, _) | Self::Io(value, _) => value,
                }
            }

            /// Drops the value, and returns the error without it: for `?` in a function whose error
            /// type must be `Send`, `Sync` or `'static`, where the value is not.
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_pipe::{SendError, Sender};
            ///
            /// # fn main() {
            /// type Error = Box<dyn std::error::Error + Send + Sync>;
            ///
            /// fn ask(server: &Sender<Sender<u32>>, reply: Sender<u32>) -> Result<(), Error> {
            ///     Ok(server.send(reply).map_err(SendError::without_value)?)
            /// }
            /// # let (requests, server) = multiproc_pipe::simplex().unwrap();
            /// # let (_replies, reply) = multiproc_pipe::simplex().unwrap();
            /// # drop(requests);
            /// # assert!(ask(&server, reply).is_err());
            /// # }
            /// ```
            pub fn without_value(self) -> $name<()> {
                match self {
                    $(
                    Self::$nothing(_) => $name::$nothing(()),
                    Self::Unfinished(_) => $name::Unfinished(()),
                    )?
                    Self::Disconnected(_) => $name::Disconnected(()),
                    Self::Encode(_, error) => $name::Encode((), error),
                    Self::Io(_, error) => $name::Io((), error),
                }
            }

            /// Returns `true` if the other side is gone.
            pub fn is_disconnected(&self) -> bool {
                matches!(self, Self::Disconnected(_))
            }

            $(
            /// Returns `true` if nothing was written before the deadline, so that it can be sent
            /// again.
            pub fn $is(&self) -> bool {
                matches!(self, Self::$nothing(_))
            }

            /// Returns `true` if a part was written before the deadline. The rest follows.
            pub fn is_unfinished(&self) -> bool {
                matches!(self, Self::Unfinished(_))
            }
            )?

            pub(crate) fn new(fault: SendFault, value: T) -> Self {
                match fault {
                    $(
                    SendFault::TimedOut => Self::$nothing(value),
                    SendFault::Unfinished => Self::Unfinished(value),
                    )?
                    SendFault::Disconnected => Self::Disconnected(value),
                    SendFault::Encode(error) => Self::Encode(value, error),
                    SendFault::Io(error) => Self::Io(value, error),
                    // Does not occur in an error without a deadline.
                    #[allow(unreachable_patterns, reason = "the variants above may be all")]
                    SendFault::TimedOut | SendFault::Unfinished => {
                        Self::Io(value, io::ErrorKind::TimedOut.into())
                    }
                }
            }
        }

        // Leaves out the value, so that `T: Debug` is not required.
        debug_is_display!($name<T>);

        impl<T> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(
                    Self::$nothing(_) => f.write_str($text),
                    Self::Unfinished(_) => f.write_str(
                        "only a part of the message was sent before the deadline; the rest precedes the \
                         next message, or is sent by `flush`",
                    ),
                    )?
                    Self::Disconnected(_) => f.write_str("sending failed: the other side is gone"),
                    Self::Encode(_, error) => write!(f, "sending failed: {error}"),
                    Self::Io(_, error) => write!(f, "sending failed: {error}"),
                }
            }
        }

        impl<T> Error for $name<T> {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                match self {
                    Self::Encode(_, error) => Some(error),
                    Self::Io(_, error) => Some(error),
                    _ => None,
                }
            }
        }
    };
}

send_error! {
    /// The error of `send`. It contains the value: see [`into_inner`](Self::into_inner).
    SendError
}
send_error! {
    /// The error of `try_send`. It contains the value: see [`into_inner`](Self::into_inner).
    TrySendError,
    /// There is no room at present. Nothing of the message was written.
    Full, "there is no room for a message at present", is_full
}
send_error! {
    /// The error of `send_timeout` and `send_deadline`. It contains the value: see
    /// [`into_inner`](Self::into_inner).
    SendTimeoutError,
    /// There was no room before the deadline. Nothing of the message was written.
    Timeout, "there was no room for a message before the deadline", is_timeout
}

/// The three receive errors differ in the variant for no message.
macro_rules! recv_error {
    ($(#[$doc:meta])* $name:ident $(, $(#[$nothing_doc:meta])* $nothing:ident, $text:literal, $is:ident)?) => {
        $(#[$doc])*
        #[non_exhaustive]
        pub enum $name {
            $($(#[$nothing_doc])* $nothing,)?
            /// All complete messages have been received, and the other side is gone: it was closed,
            /// or its process has died.
            Disconnected,
            /// A message is not a value of the expected type, has more than 256 levels, or the
            /// type's `Deserialize` panicked. The message has been consumed, and the next one can
            /// be received.
            Decode(DecodeError),
            /// The bytes are not a sequence of messages: the sender died within one, or is hostile.
            /// The connection cannot be used any more.
            Corrupted(String),
            /// The operating system returned an error.
            Io(io::Error),
        }

        impl $name {
            /// Returns `true` if the other side is gone and everything was received.
            #[must_use]
            pub fn is_disconnected(&self) -> bool {
                matches!(self, Self::Disconnected)
            }

            $(
            /// Returns `true` if no complete message had arrived.
            #[must_use]
            pub fn $is(&self) -> bool {
                matches!(self, Self::$nothing)
            }
            )?
        }

        debug_is_display!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$nothing => f.write_str($text),)?
                    Self::Disconnected => {
                        f.write_str("receiving failed: the other side is gone and everything it sent was received")
                    }
                    Self::Decode(error) => write!(f, "receiving failed: {error}"),
                    Self::Corrupted(what) => {
                        write!(f, "receiving failed: the stream is corrupted: {what}; drop this connection")
                    }
                    Self::Io(error) => write!(f, "receiving failed: {error}"),
                }
            }
        }

        impl Error for $name {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                match self {
                    Self::Decode(error) => Some(error),
                    Self::Io(error) => Some(error),
                    _ => None,
                }
            }
        }
    };
}

recv_error! {
    /// The error of `recv`.
    RecvError
}
recv_error! {
    /// The error of `try_recv`.
    TryRecvError,
    /// No complete message has arrived yet.
    Empty, "no message has arrived yet", is_empty
}
recv_error! {
    /// The error of `recv_timeout` and `recv_deadline`.
    RecvTimeoutError,
    /// No complete message arrived before the deadline. A part of one is kept for the next call.
    Timeout, "no message arrived before the deadline", is_timeout
}

macro_rules! widen {
    ($($name:ident)*) => {$(
        impl From<RecvError> for $name {
            fn from(error: RecvError) -> Self {
                match error {
                    RecvError::Disconnected => Self::Disconnected,
                    RecvError::Decode(error) => Self::Decode(error),
                    RecvError::Corrupted(what) => Self::Corrupted(what),
                    RecvError::Io(error) => Self::Io(error),
                }
            }
        }
    )*};
}
widen!(TryRecvError RecvTimeoutError);

/// The error of `recv_bytes_into`.
#[non_exhaustive]
pub enum RecvBytesError {
    /// The message is longer than the buffer. This is the whole message.
    TooLong(Vec<u8>),
    /// All complete messages have been received, and the other side is gone: it was closed, or its
    /// process has died.
    Disconnected,
    /// The bytes are not a sequence of messages: the sender died within one, or is hostile. The
    /// connection cannot be used any more.
    Corrupted(String),
    /// The operating system returned an error.
    Io(io::Error),
}

impl RecvBytesError {
    /// Returns `true` if the other side is gone and everything was received.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected)
    }
}

impl From<RecvError> for RecvBytesError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Disconnected => Self::Disconnected,
            RecvError::Corrupted(what) => Self::Corrupted(what),
            RecvError::Io(error) => Self::Io(error),
            // Bytes are not decoded.
            RecvError::Decode(error) => Self::Io(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

debug_is_display!(RecvBytesError, HandshakeError);

impl fmt::Display for RecvBytesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(message) => write!(
                f,
                "the message has {} bytes, more than the buffer; the error contains the message",
                message.len()
            ),
            Self::Disconnected => RecvError::Disconnected.fmt(f),
            Self::Corrupted(what) => RecvError::Corrupted(what.clone()).fmt(f),
            Self::Io(error) => write!(f, "receiving failed: {error}"),
        }
    }
}

impl Error for RecvBytesError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// The error of two programs that connect with different types, versions or formats.
///
/// [`connect`](crate::connect) and [`Listener::accept`](crate::Listener::accept) return it inside
/// an `io::Error` of the kind `InvalidData`. If the other side's hello arrives later, the first
/// call that receives returns it inside its variant `Io`. The connection cannot be used then. Other
/// connections of the listener are not affected.
///
/// ```
/// use multiproc_pipe::{HandshakeError, Listener, connect};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let address = format!("@multiproc-handshake-{}", std::process::id());
/// let listener = Listener::bind(&address)?;
/// let _client = connect::<u32, String>(&address)?;
/// let error = listener.accept::<String, u64>().unwrap_err();
/// let reason = error.get_ref().and_then(|error| error.downcast_ref::<HandshakeError>());
/// assert!(matches!(reason, Some(HandshakeError::Types { .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The first bytes of the other side are not those of a `Listener` or `connect` of this
    /// library.
    NotAHello,
    /// The other side has another version of the protocol.
    Version {
        /// The version of this side.
        ours: u32,
        /// The version of the other side.
        theirs: u32,
    },
    /// The other side has another format of messages.
    Format {
        /// The format of this side.
        ours: u32,
        /// The format of the other side.
        theirs: u32,
    },
    /// One side sends another type than the other receives.
    Types {
        /// The type that this side sends.
        sends: String,
        /// The type that this side receives.
        receives: String,
        /// The type that the other side sends.
        peer_sends: String,
        /// The type that the other side receives.
        peer_receives: String,
    },
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAHello => f.write_str(
                "the other side does not speak the protocol of `Listener` and `connect`: check the \
                 address, and that both programs use this version of multiproc or a later one",
            ),
            Self::Version { ours, theirs } => write!(
                f,
                "the other side has version {theirs} of the protocol, and this side version {ours}: \
                 build both programs with the same version of multiproc"
            ),
            Self::Format { ours, theirs } => write!(
                f,
                "the other side has format {theirs} of messages, and this side format {ours}: build \
                 both programs with the same version of multiproc"
            ),
            Self::Types { sends, receives, peer_sends, peer_receives } => {
                write!(
                    f,
                    "this side sends `{sends}` and receives `{receives}`, and the other side sends \
                     `{peer_sends}` and receives `{peer_receives}`"
                )?;
                if sends == peer_receives && receives == peer_sends {
                    f.write_str(", of the same names with other fields or variants")?;
                }
                f.write_str(": build both programs with the same types")
            }
        }
    }
}

impl Error for HandshakeError {}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}
