//! What a queue says when it cannot do what was asked. A failed put gives the item back.

use std::error::Error;
use std::fmt;

use multiproc_pipe::{DecodeError, EncodeError};

/// The queue's shared memory holds what no member writes: another process has scribbled over it.
///
/// It is of no use any more. What was received from it before is as trustworthy as its senders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupted {
    pub(crate) what: &'static str,
}

impl fmt::Display for Corrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the queue's shared memory is corrupted: {} cannot be true; drop this queue",
            self.what
        )
    }
}

impl Error for Corrupted {}

/// Why an item can never be put, whatever the time.
pub(crate) enum Reason {
    Encode(EncodeError),
    TooLarge { size: usize, max: usize },
    Corrupted(Corrupted),
}

/// The three put errors: what they share, and what "not now" is for each.
macro_rules! put_error {
    ($(#[$doc:meta])* $name:ident $({
        $($(#[$not_now_doc:meta])* $not_now:ident, $is:ident, $text:literal;)+
    })?) => {
        $(#[$doc])*
        #[non_exhaustive]
        pub enum $name<T> {
            $($($(#[$not_now_doc])* $not_now(T),)+)?
            /// The item cannot be turned into bytes. Nothing was put.
            Encode(T, EncodeError),
            /// The item is larger than any that this queue takes. Nothing was put.
            TooLarge {
                /// The item.
                item: T,
                /// Its size in bytes, encoded.
                size: usize,
                /// The largest size that this queue takes.
                max: usize,
            },
            /// The queue is of no use any more. Nothing was put.
            Corrupted(T, Corrupted),
        }

        impl<T> $name<T> {
            pub(crate) fn new(item: T, reason: Reason) -> Self {
                match reason {
                    Reason::Encode(error) => Self::Encode(item, error),
                    Reason::TooLarge { size, max } => Self::TooLarge { item, size, max },
                    Reason::Corrupted(error) => Self::Corrupted(item, error),
                }
            }

            /// The item that was not put.
            pub fn into_inner(self) -> T {
                match self {
                    $($(Self::$not_now(item) => item,)+)?
                    Self::Encode(item, _)
                    | Self::TooLarge { item, .. }
                    | Self::Corrupted(item, _) => item,
                }
            }

            $($(
            /// Whether this is the reason.
            pub fn $is(&self) -> bool {
                matches!(self, Self::$not_now(_))
            }
            )+)?
        }

        /// Does not ask for `T: Debug`: the item is left out.
        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($(Self::$not_now(_) => f.write_str(concat!(stringify!($not_now), "(..)")),)+)?
                    Self::Encode(_, error) => write!(f, "Encode(.., {error:?})"),
                    Self::TooLarge { size, max, .. } => {
                        write!(f, "TooLarge {{ size: {size}, max: {max}, .. }}")
                    }
                    Self::Corrupted(_, error) => write!(f, "Corrupted(.., {error:?})"),
                }
            }
        }

        impl<T> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($(Self::$not_now(_) => f.write_str($text),)+)?
                    Self::Encode(_, error) => write!(f, "putting an item failed: {error}"),
                    Self::TooLarge { size, max, .. } => write!(
                        f,
                        "putting an item failed: it takes {size} bytes, and this queue takes items \
                         of up to {max}"
                    ),
                    Self::Corrupted(_, error) => write!(f, "putting an item failed: {error}"),
                }
            }
        }

        impl<T> Error for $name<T> {}
    };
}

put_error! {
    /// `put` failed.
    PutError
}
put_error! {
    /// `try_put` did not put the item.
    TryPutError {
        /// There is no room now.
        Full, is_full, "the queue is full";
        /// A process that was stopped (SIGSTOP, a debugger) in the middle of a put holds up the
        /// others.
        Stalled, is_stalled, "a stopped process holds up the queue: let it go on, or kill it";
    }
}
put_error! {
    /// `put_timeout` or `put_deadline` did not put the item.
    PutTimeoutError {
        /// There was no room in time.
        Timeout, is_timeout, "the queue was full all the time";
    }
}

/// The three get errors: what they share, and what "not now" is for each.
macro_rules! get_error {
    ($(#[$doc:meta])* $name:ident $({
        $($(#[$not_now_doc:meta])* $not_now:ident, $is:ident, $text:literal;)+
    })?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($($(#[$not_now_doc])* $not_now,)+)?
            /// The next item is no value of the expected type. It is gone; the next call gives the
            /// one after it.
            Decode(DecodeError),
            /// The queue is of no use any more.
            Corrupted(Corrupted),
        }

        $(impl $name {
            $(
            /// Whether this is the reason.
            #[must_use]
            pub fn $is(&self) -> bool {
                matches!(self, Self::$not_now)
            }
            )+
        })?

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($(Self::$not_now => f.write_str($text),)+)?
                    Self::Decode(error) => write!(f, "getting an item failed: {error}"),
                    Self::Corrupted(error) => write!(f, "getting an item failed: {error}"),
                }
            }
        }

        impl Error for $name {}
    };
}

get_error! {
    /// `get` failed.
    GetError
}
get_error! {
    /// `try_get` gave no item.
    TryGetError {
        /// There is no item now.
        Empty, is_empty, "the queue is empty";
        /// A process that was stopped (SIGSTOP, a debugger) in the middle of a get holds up the
        /// others.
        Stalled, is_stalled, "a stopped process holds up the queue: let it go on, or kill it";
    }
}
get_error! {
    /// `get_timeout` or `get_deadline` gave no item.
    GetTimeoutError {
        /// There was no item in time.
        Timeout, is_timeout, "the queue was empty all the time";
    }
}

macro_rules! widen {
    ($($name:ident)*) => {$(
        impl From<GetError> for $name {
            fn from(error: GetError) -> Self {
                match error {
                    GetError::Decode(error) => Self::Decode(error),
                    GetError::Corrupted(error) => Self::Corrupted(error),
                }
            }
        }
    )*};
}
widen!(TryGetError GetTimeoutError);
