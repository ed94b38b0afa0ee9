//! What a queue says when it cannot do what was asked. A failed put gives the item back.

use std::error::Error;
use std::fmt;
use std::io;

use multiproc_message::{DecodeError, EncodeError};
use rustix::io::Errno;

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

/// A system call failed. As [`io::Error`], which it can be turned into, but it can be compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OsError(i32);

impl OsError {
    pub(crate) fn from_code(code: i32) -> Self {
        Self(code)
    }

    /// Other code in this process has closed a descriptor of the queue.
    pub(crate) fn closed() -> Self {
        Self(Errno::BADF.raw_os_error())
    }

    /// The number that the kernel gave, as in [errno(3)](https://man7.org/linux/man-pages/man3/errno.3.html).
    #[must_use]
    pub fn raw_os_error(self) -> i32 {
        self.0
    }
}

impl fmt::Debug for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from(*self).fmt(f)
    }
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::closed() {
            return f.write_str(
                "a descriptor of the queue was closed by other code in this process (a \
                 `close_range`, or a `close` of a number that it does not own): keep descriptors of \
                 multiproc open",
            );
        }
        io::Error::from(*self).fmt(f)
    }
}

impl Error for OsError {}

impl From<OsError> for io::Error {
    fn from(error: OsError) -> Self {
        Self::from_raw_os_error(error.0)
    }
}

/// Why an item can not be put, whatever the time.
pub(crate) enum Reason {
    Closed,
    Disconnected,
    Encode(EncodeError),
    TooLarge { size: usize, max: usize },
    OutOfMemory,
    Os(OsError),
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
            /// The queue was shut down, or this handle closed. Nothing was put.
            Closed(T),
            /// Nobody is left who could get the item. Nothing was put.
            Disconnected(T),
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
            /// The kernel has no memory for the item. Nothing was put; later, there may be some.
            OutOfMemory(T),
            /// The kernel does not pass the descriptors in the item on. Nothing was put.
            Os(T, OsError),
            /// The queue is of no use any more. Nothing was put.
            Corrupted(T, Corrupted),
        }

        impl<T> $name<T> {
            pub(crate) fn new(item: T, reason: Reason) -> Self {
                match reason {
                    Reason::Closed => Self::Closed(item),
                    Reason::Disconnected => Self::Disconnected(item),
                    Reason::Encode(error) => Self::Encode(item, error),
                    Reason::TooLarge { size, max } => Self::TooLarge { item, size, max },
                    Reason::OutOfMemory => Self::OutOfMemory(item),
                    Reason::Os(error) => Self::Os(item, error),
                    Reason::Corrupted(error) => Self::Corrupted(item, error),
                }
            }

            /// The item that was not put.
            pub fn into_inner(self) -> T {
                match self {
                    $($(Self::$not_now(item) => item,)+)?
                    Self::Closed(item)
                    | Self::Disconnected(item)
                    | Self::Encode(item, _)
                    | Self::TooLarge { item, .. }
                    | Self::OutOfMemory(item)
                    | Self::Os(item, _)
                    | Self::Corrupted(item, _) => item,
                }
            }

            $($(
            /// Whether this is the reason.
            pub fn $is(&self) -> bool {
                matches!(self, Self::$not_now(_))
            }
            )+)?

            /// Whether this is the reason: the queue was shut down, or this handle closed.
            pub fn is_closed(&self) -> bool {
                matches!(self, Self::Closed(_))
            }

            /// Whether this is the reason: nobody is left who could get.
            pub fn is_disconnected(&self) -> bool {
                matches!(self, Self::Disconnected(_))
            }
        }

        /// Does not ask for `T: Debug`: the item is left out.
        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($(Self::$not_now(_) => f.write_str(concat!(stringify!($not_now), "(..)")),)+)?
                    Self::Closed(_) => f.write_str("Closed(..)"),
                    Self::Disconnected(_) => f.write_str("Disconnected(..)"),
                    Self::Encode(_, error) => write!(f, "Encode(.., {error:?})"),
                    Self::TooLarge { size, max, .. } => {
                        write!(f, "TooLarge {{ size: {size}, max: {max}, .. }}")
                    }
                    Self::OutOfMemory(_) => f.write_str("OutOfMemory(..)"),
                    Self::Os(_, error) => write!(f, "Os(.., {error:?})"),
                    Self::Corrupted(_, error) => write!(f, "Corrupted(.., {error:?})"),
                }
            }
        }

        impl<T> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($(Self::$not_now(_) => f.write_str($text),)+)?
                    Self::Closed(_) => f.write_str(
                        "putting an item failed: the queue was shut down, or this handle closed",
                    ),
                    Self::Disconnected(_) => f.write_str(
                        "putting an item failed: nobody is left who could get it",
                    ),
                    Self::Encode(_, error) => write!(f, "putting an item failed: {error}"),
                    Self::TooLarge { size, max, .. } => write!(
                        f,
                        "putting an item failed: it takes {size} bytes, and this queue takes items \
                         of up to {max} (`max_bytes` of its builder)"
                    ),
                    Self::OutOfMemory(_) => f.write_str(
                        "putting an item failed: the kernel has no memory for it; get some items \
                         first, or raise the limit of this control group",
                    ),
                    Self::Os(_, error) => write!(
                        f,
                        "putting an item failed: the kernel does not pass its descriptors on: {error}"
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

/// `put_many` did not put all items: those that were are the queue's, the others come back.
pub struct PutManyError<T> {
    pub(crate) put: usize,
    pub(crate) error: PutError<T>,
    pub(crate) rest: Vec<T>,
}

impl<T> PutManyError<T> {
    /// How many items were put.
    pub fn put(&self) -> usize {
        self.put
    }

    /// Why the next one was not.
    pub fn error(&self) -> &PutError<T> {
        &self.error
    }

    /// The items that were taken from the iterator and not put, in order. What the iterator has not
    /// given yet is still in it.
    pub fn into_items(self) -> Vec<T> {
        std::iter::once(self.error.into_inner()).chain(self.rest).collect()
    }
}

impl<T> fmt::Debug for PutManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { put, error, rest } = self;
        write!(f, "PutManyError {{ put: {put}, error: {error:?}, rest: {} }}", rest.len())
    }
}

impl<T> fmt::Display for PutManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items were put; then {}", self.put, self.error)
    }
}

impl<T> Error for PutManyError<T> {}

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
            /// The queue was shut down, and nothing is left to get.
            Closed,
            /// Nobody is left who could put, and nothing is left to get.
            Disconnected,
            /// The next item is no value of the expected type. It is gone; the next call gives the
            /// one after it.
            Decode(DecodeError),
            /// The descriptors in the next item cannot be opened here: most likely, this process has
            /// as many open as it may. The item stays where it is.
            Os(OsError),
            /// The kernel has no memory for the task (of a joinable queue). It stays where it is;
            /// later, there may be some.
            OutOfMemory,
            /// As many tasks are in progress as there can be (of a joinable queue), and none has come
            /// back: finish some first. Nothing was taken. Tasks that were
            /// [detached](crate::Task::detach) count until all of their process are done; those with
            /// [receipts](crate::Task::into_parts) do not wait for each other.
            TooManyTasks,
            /// The queue is of no use any more.
            Corrupted(Corrupted),
        }

        impl $name {
            $($(
            /// Whether this is the reason.
            #[must_use]
            pub fn $is(&self) -> bool {
                matches!(self, Self::$not_now)
            }
            )+)?

            /// Whether this is the reason: the queue was shut down.
            #[must_use]
            pub fn is_closed(&self) -> bool {
                matches!(self, Self::Closed)
            }

            /// Whether this is the reason: nobody is left who could put.
            #[must_use]
            pub fn is_disconnected(&self) -> bool {
                matches!(self, Self::Disconnected)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($(Self::$not_now => f.write_str($text),)+)?
                    Self::Closed => f.write_str("the queue was shut down, and nothing is left"),
                    Self::Disconnected => {
                        f.write_str("nobody is left who could put an item, and nothing is left")
                    }
                    Self::Decode(error) => write!(f, "getting an item failed: {error}"),
                    Self::Os(error) => write!(
                        f,
                        "getting an item failed: its descriptors cannot be opened here: {error}"
                    ),
                    Self::OutOfMemory => f.write_str(
                        "getting a task failed: the kernel has no memory for it; finish some first, \
                         or raise the limit of this control group",
                    ),
                    Self::TooManyTasks => f.write_str(
                        "as many tasks are in progress as there can be: finish some first, or let \
                         their processes end. (Tasks that were detached are completed only when \
                         all of their process are done: `Task::into_parts` returns a receipt that \
                         completes its own task at once.)",
                    ),
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
                    GetError::Closed => Self::Closed,
                    GetError::Disconnected => Self::Disconnected,
                    GetError::Decode(error) => Self::Decode(error),
                    GetError::Os(error) => Self::Os(error),
                    GetError::OutOfMemory => Self::OutOfMemory,
                    GetError::TooManyTasks => Self::TooManyTasks,
                    GetError::Corrupted(error) => Self::Corrupted(error),
                }
            }
        }

        impl From<DecodeError> for $name {
            fn from(error: DecodeError) -> Self {
                Self::Decode(error)
            }
        }
    )*};
}
widen!(TryGetError GetTimeoutError);

impl From<DecodeError> for GetError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// `get_many` met an error after it had got some items: they are in here.
pub struct GetManyError<T> {
    pub(crate) items: Vec<T>,
    pub(crate) error: GetError,
}

impl<T> GetManyError<T> {
    /// What went wrong.
    pub fn error(&self) -> &GetError {
        &self.error
    }

    /// The items that were got all the same, in order.
    pub fn into_items(self) -> Vec<T> {
        self.items
    }
}

impl<T> fmt::Debug for GetManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { items, error } = self;
        write!(f, "GetManyError {{ items: {}, error: {error:?} }}", items.len())
    }
}

impl<T> fmt::Display for GetManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (and {} items were got all the same)", self.error, self.items.len())
    }
}

impl<T> Error for GetManyError<T> {}

/// `task_done` was called more often than tasks were detached by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyTaskDone;

impl fmt::Display for TooManyTaskDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "`task_done` was called more often than there are tasks that this process has got and \
             detached; a task that was not detached, or has a receipt, is completed by its own \
             `task_done`",
        )
    }
}

impl Error for TooManyTaskDone {}

/// `join` cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinTasksError {
    /// This thread has a task of the queue itself, and would wait for its own end.
    InTask,
}

/// Not all tasks were done in time, or `join` cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinTasksTimeoutError {
    /// Some tasks are not done yet.
    Timeout,
    /// This thread has a task of the queue itself, and would wait for its own end.
    InTask,
}

impl JoinTasksTimeoutError {
    /// Whether this is the reason.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        *self == Self::Timeout
    }
}

const IN_TASK: &str = "this thread has a task of the queue that it wants to join, and would wait for \
                       itself: end the task first, with `task_done`";

impl fmt::Display for JoinTasksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(IN_TASK)
    }
}

impl fmt::Display for JoinTasksTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("not all tasks were done in time"),
            Self::InTask => f.write_str(IN_TASK),
        }
    }
}

impl Error for JoinTasksError {}
impl Error for JoinTasksTimeoutError {}
