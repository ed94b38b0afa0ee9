//! What can go wrong, said so that the reader knows what to do.

use std::error::Error;
use std::{fmt, io};

/// A value could not be turned into a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeError {
    pub(crate) type_name: &'static str,
    pub(crate) reason: String,
}

impl EncodeError {
    /// A value of type `T` cannot be sent, for this reason.
    #[must_use]
    pub fn new<T: ?Sized>(reason: impl Into<String>) -> Self {
        Self { type_name: std::any::type_name::<T>(), reason: reason.into() }
    }

    /// The type of the value.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Why it failed.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type `{}` cannot be sent: {}", self.type_name, self.reason)
    }
}

impl Error for EncodeError {}

/// A message came whole, but it does not hold a value of the expected type.
///
/// The message is gone, its descriptors are closed; the next one can be received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    pub(crate) type_name: &'static str,
    pub(crate) reason: String,
}

impl DecodeError {
    /// The type that was expected.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Why the bytes are no value of it.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected a value of type `{}`, got a message that is none: {}; \
             do both sides use the same type?",
            self.type_name, self.reason
        )
    }
}

impl Error for DecodeError {}

/// Sending failed. The value comes back in the error: see [`into_inner`](Self::into_inner).
#[non_exhaustive]
pub enum SendError<T> {
    /// Nobody will ever receive: the other end is closed, or its process is dead.
    Disconnected(T),
    /// The value could not be turned into a message. Nothing was sent; the connection is as before.
    Encode(T, EncodeError),
    /// The operating system refused.
    Io(T, io::Error),
}

impl<T> SendError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            Self::Disconnected(value) | Self::Encode(value, _) | Self::Io(value, _) => value,
        }
    }

    /// Whether the other side is gone.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected(_))
    }
}

/// Does not ask for `T: Debug`: the value is left out.
impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected(_) => f.write_str("Disconnected(..)"),
            Self::Encode(_, error) => write!(f, "Encode(.., {error:?})"),
            Self::Io(_, error) => write!(f, "Io(.., {error:?})"),
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected(_) => f.write_str("sending failed: the other side is gone"),
            Self::Encode(_, error) => write!(f, "sending failed: {error}"),
            Self::Io(_, error) => write!(f, "sending failed: {error}"),
        }
    }
}

impl<T> Error for SendError<T> {}

/// The three receive errors differ in the one variant that says "nothing came".
macro_rules! recv_error {
    ($(#[$doc:meta])* $name:ident $(, $(#[$nothing_doc:meta])* $nothing:ident, $text:literal, $is:ident)?) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$nothing_doc])* $nothing,)?
            /// Everything that was sent has been received, and the other side is gone: closed, or
            /// its process died.
            Disconnected,
            /// A message came that is no value of the expected type, or one that is nested so
            /// deeply that decoding it takes more than 512 KiB of stack. It is gone; the next one
            /// can be received.
            Decode(DecodeError),
            /// What came is not a sequence of messages: the sender died in the middle of one, or is
            /// hostile. The connection is of no use any more.
            Corrupted(String),
            /// The operating system refused.
            Io(io::Error),
        }

        impl $name {
            /// Whether the other side is gone and everything was received.
            #[must_use]
            pub fn is_disconnected(&self) -> bool {
                matches!(self, Self::Disconnected)
            }

            $(
            /// Whether nothing had come in time.
            #[must_use]
            pub fn $is(&self) -> bool {
                matches!(self, Self::$nothing)
            }
            )?
        }

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
    /// `recv` failed.
    RecvError
}
recv_error! {
    /// `try_recv` gave no value.
    TryRecvError,
    /// No complete message is there yet.
    Empty, "no message is there yet", is_empty
}
recv_error! {
    /// `recv_timeout` or `recv_deadline` gave no value.
    RecvTimeoutError,
    /// No complete message came in time. A part of one is kept for the next call.
    Timeout, "no message came in time", is_timeout
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
