//! The errors of queues. A failed put returns the item.
//!
//! One file, because the errors of putting and of getting share their variants and texts.

use std::error::Error;
use std::fmt;
use std::io;

use multiproc_message::{DecodeError, EncodeError, debug_is_display};
use rustix::io::Errno;

/// The queue's shared memory is invalid: another process has overwritten it.
///
/// The queue can no longer be used. Items that were received before are as trustworthy as their
/// senders.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Corrupted {
    pub(crate) what: &'static str,
}

impl fmt::Display for Corrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the queue's shared memory is corrupted (invalid: {}); drop this queue",
            self.what
        )
    }
}

impl Error for Corrupted {}

/// A failed system call. It converts to an [`io::Error`], but can also be compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OsError(i32);

impl OsError {
    pub(crate) fn from_code(code: i32) -> Self {
        Self(code)
    }

    /// The error for a descriptor of the queue that other code in this process has closed.
    pub(crate) fn closed() -> Self {
        Self(Errno::BADF.raw_os_error())
    }

    /// Returns the error number of the kernel: see
    /// [errno(3)](https://man7.org/linux/man-pages/man3/errno.3.html).
    #[must_use]
    pub fn raw_os_error(self) -> i32 {
        self.0
    }
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::closed() {
            return f.write_str(
                "a descriptor of the queue was closed by other code in this process (by \
                 `close_range`, or by `close` of a number that it does not own): keep the \
                 descriptors of multiproc open",
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

/// The reason why an item cannot be put, now or later.
pub(crate) enum Reason {
    Closed,
    Disconnected,
    Encode(EncodeError),
    TooLarge { size: usize, max: usize },
    OutOfMemory,
    Os(OsError),
    Corrupted(Corrupted),
}

/// Defines one of the three put errors, with its own variants for "not now".
macro_rules! put_error {
    ($(#[$doc:meta])* $name:ident $({
        $($(#[$not_now_doc:meta])* $not_now:ident, $is:ident, $text:literal;)+
    })?) => {
        $(#[$doc])*
        #[non_exhaustive]
        pub enum $name<T> {
            $($($(#[$not_now_doc])* $not_now(T),)+)?
            /// The queue was shut down, or this handle was closed. Nothing was put.
            Closed(T),
            /// No consumer is left. Nothing was put.
            Disconnected(T),
            /// The item cannot be encoded. Nothing was put.
            Encode(T, EncodeError),
            /// The item is larger than the limit of this queue. Nothing was put.
            TooLarge {
                /// The item.
                item: T,
                /// Its encoded size in bytes.
                size: usize,
                /// The maximum size of an item of this queue.
                max: usize,
            },
            /// The kernel has no memory for the item. Nothing was put. A later attempt may succeed.
            OutOfMemory(T),
            /// The kernel refused to transfer the descriptors in the item. Nothing was put.
            Os(T, OsError),
            /// The queue can no longer be used. Nothing was put.
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

            /// Returns the item that was not put.
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

            /// Drops the item, and returns the error without it: for `?` in a function whose error
            /// type must be `Send`, `Sync` or `'static`, where the item is not.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::cell::Cell;
            ///
            /// use multiproc_queue::{PutError, Queue};
            ///
            /// type Error = Box<dyn std::error::Error + Send + Sync>;
            ///
            /// fn enqueue(queue: &Queue<Cell<u32>>, item: Cell<u32>) -> Result<(), Error> {
            ///     Ok(queue.put(item).map_err(PutError::without_value)?)
            /// }
            /// # let queue = Queue::bounded(1).unwrap();
            /// # queue.close();
            /// # assert!(enqueue(&queue, Cell::new(1)).is_err());
            /// ```
            pub fn without_value(self) -> $name<()> {
                match self {
                    $($(Self::$not_now(_) => $name::$not_now(()),)+)?
                    Self::Closed(_) => $name::Closed(()),
                    Self::Disconnected(_) => $name::Disconnected(()),
                    Self::Encode(_, error) => $name::Encode((), error),
                    Self::TooLarge { size, max, .. } => $name::TooLarge { item: (), size, max },
                    Self::OutOfMemory(_) => $name::OutOfMemory(()),
                    Self::Os(_, error) => $name::Os((), error),
                    Self::Corrupted(_, error) => $name::Corrupted((), error),
                }
            }

            $($(
            /// Returns `true` if this is the reason.
            pub fn $is(&self) -> bool {
                matches!(self, Self::$not_now(_))
            }
            )+)?

            /// Returns `true` if the queue was shut down, or this handle was closed.
            pub fn is_closed(&self) -> bool {
                matches!(self, Self::Closed(_))
            }

            /// Returns `true` if no consumer is left.
            pub fn is_disconnected(&self) -> bool {
                matches!(self, Self::Disconnected(_))
            }
        }

        // Does not require `T: Debug`, and leaves the item out.
        debug_is_display!($name<T>);

        impl<T> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($(Self::$not_now(_) => f.write_str($text),)+)?
                    Self::Closed(_) => f.write_str(
                        "putting an item failed: the queue was shut down, or this handle was closed",
                    ),
                    Self::Disconnected(_) => f.write_str(
                        "putting an item failed: no consumer is left",
                    ),
                    Self::Encode(_, error) => write!(f, "putting an item failed: {error}"),
                    Self::TooLarge { size, max, .. } => write!(
                        f,
                        "putting an item failed: it has {size} bytes, and the maximum of this queue \
                         is {max} (`max_bytes` of its builder)"
                    ),
                    Self::OutOfMemory(_) => f.write_str(
                        "putting an item failed: the kernel has no memory for it; get some items \
                         first, or raise the limit of this control group",
                    ),
                    Self::Os(_, error) => write!(
                        f,
                        "putting an item failed: the kernel refused its descriptors: {error}"
                    ),
                    Self::Corrupted(_, error) => write!(f, "putting an item failed: {error}"),
                }
            }
        }

        impl<T> Error for $name<T> {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                match self {
                    Self::Encode(_, error) => Some(error),
                    Self::Os(_, error) => Some(error),
                    Self::Corrupted(_, error) => Some(error),
                    _ => None,
                }
            }
        }
    };
}

put_error! {
    /// The error of `put`.
    PutError
}
put_error! {
    /// The error of `try_put`.
    TryPutError {
        /// There is no room now.
        Full, is_full, "the queue is full";
        /// A process that was stopped (SIGSTOP, a debugger) in the middle of a put blocks the
        /// others.
        Stalled, is_stalled, "a stopped process blocks the queue: resume it or kill it";
    }
}
put_error! {
    /// The error of `put_timeout` and `put_deadline`.
    PutTimeoutError {
        /// There was no room before the deadline.
        Timeout, is_timeout, "the queue was full until the deadline";
    }
}

/// The error of `put_many`: some items were put, and this contains the others.
pub struct PutManyError<T> {
    pub(crate) put: usize,
    pub(crate) error: PutError<T>,
    pub(crate) rest: Vec<T>,
}

impl<T> PutManyError<T> {
    /// Returns the number of items that were put.
    pub fn put(&self) -> usize {
        self.put
    }

    /// Returns the error of the first item that was not put.
    pub fn error(&self) -> &PutError<T> {
        &self.error
    }

    /// Returns the items that were taken from the iterator and not put, in order. Items that were
    /// not taken are still in the iterator.
    pub fn into_items(self) -> Vec<T> {
        std::iter::once(self.error.into_inner()).chain(self.rest).collect()
    }
}

impl<T> fmt::Display for PutManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items were put; then {}", self.put, self.error)
    }
}

impl<T> Error for PutManyError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// Defines one of the three get errors, with its own variants for "not now".
macro_rules! get_error {
    ($(#[$doc:meta])* $name:ident $({
        $($(#[$not_now_doc:meta])* $not_now:ident, $is:ident, $text:literal;)+
    })?) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($($(#[$not_now_doc])* $not_now,)+)?
            /// The queue was shut down, and is empty.
            Closed,
            /// No producer is left, and the queue is empty.
            Disconnected,
            /// The next item cannot be decoded as the expected type. It was removed, and the next
            /// call returns the one after it.
            Decode(DecodeError),
            /// The descriptors in the next item cannot be opened: most likely, this process has as
            /// many open as it may. The item stays in the queue.
            Os(OsError),
            /// The kernel has no memory for the task (of a joinable queue). It stays in the queue,
            /// and a later attempt may succeed.
            OutOfMemory,
            /// The maximum number of tasks (of a joinable queue) is in progress, and none was put
            /// back. Finish some first. Nothing was taken. Tasks that were
            /// [detached](crate::Task::detach) count until all detached tasks of their process are
            /// done. Those with [receipts](crate::Task::into_parts) do not wait for each other.
            TooManyTasks,
            /// The queue can no longer be used.
            Corrupted(Corrupted),
        }

        impl $name {
            $($(
            /// Returns `true` if this is the reason.
            #[must_use]
            pub fn $is(&self) -> bool {
                matches!(self, Self::$not_now)
            }
            )+)?

            /// Returns `true` if the queue was shut down.
            #[must_use]
            pub fn is_closed(&self) -> bool {
                matches!(self, Self::Closed)
            }

            /// Returns `true` if no producer is left.
            #[must_use]
            pub fn is_disconnected(&self) -> bool {
                matches!(self, Self::Disconnected)
            }
        }

        debug_is_display!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($(Self::$not_now => f.write_str($text),)+)?
                    Self::Closed => f.write_str("the queue was shut down, and is empty"),
                    Self::Disconnected => {
                        f.write_str("no producer is left, and the queue is empty")
                    }
                    Self::Decode(error) => write!(f, "getting an item failed: {error}"),
                    Self::Os(error) => write!(
                        f,
                        "getting an item failed: its descriptors cannot be opened: {error}"
                    ),
                    Self::OutOfMemory => f.write_str(
                        "getting a task failed: the kernel has no memory for it; finish some first, \
                         or raise the limit of this control group",
                    ),
                    Self::TooManyTasks => f.write_str(
                        "getting a task failed: the maximum number of tasks is in progress; finish \
                         some first, or end their processes. (Detached tasks are completed only when \
                         all detached tasks of their process are done. `Task::into_parts` returns a \
                         receipt that completes its own task at once.)",
                    ),
                    Self::Corrupted(error) => write!(f, "getting an item failed: {error}"),
                }
            }
        }

        impl Error for $name {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                match self {
                    Self::Decode(error) => Some(error),
                    Self::Os(error) => Some(error),
                    Self::Corrupted(error) => Some(error),
                    _ => None,
                }
            }
        }
    };
}

get_error! {
    /// The error of `get`.
    GetError
}
get_error! {
    /// The error of `try_get`.
    TryGetError {
        /// There is no item now.
        Empty, is_empty, "the queue is empty";
        /// A process that was stopped (SIGSTOP, a debugger) in the middle of a get blocks the
        /// others.
        Stalled, is_stalled, "a stopped process blocks the queue: resume it or kill it";
    }
}
get_error! {
    /// The error of `get_timeout` and `get_deadline`.
    GetTimeoutError {
        /// There was no item before the deadline.
        Timeout, is_timeout, "the queue was empty until the deadline";
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

/// The error of `get_many`. It contains the items that were got nevertheless.
pub struct GetManyError<T> {
    pub(crate) items: Vec<T>,
    pub(crate) error: GetError,
}

impl<T> GetManyError<T> {
    /// Returns the first error.
    pub fn error(&self) -> &GetError {
        &self.error
    }

    /// Returns the items that were got nevertheless, in order.
    pub fn into_items(self) -> Vec<T> {
        self.items
    }
}

impl<T> fmt::Display for GetManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} other items were got", self.error, self.items.len())
    }
}

impl<T> Error for GetManyError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// The error of `JoinableQueue::task_done`: there were more calls than detached tasks of this
/// process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TooManyTaskDone;

impl fmt::Display for TooManyTaskDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "`task_done` was called more often than this process has detached tasks; a task that was \
             not detached, or has a receipt, is completed by its own `task_done`",
        )
    }
}

impl Error for TooManyTaskDone {}

/// The error of `join`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinTasksError {
    /// This thread has a task of the queue itself, and would wait for itself.
    InTask,
}

/// The error of `join_timeout` and `join_deadline`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinTasksTimeoutError {
    /// Some tasks were not done before the deadline.
    Timeout,
    /// This thread has a task of the queue itself, and would wait for itself.
    InTask,
}

impl JoinTasksTimeoutError {
    /// Returns `true` if this is the reason.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        *self == Self::Timeout
    }
}

const IN_TASK: &str = "this thread has a task of the queue that it joins, and would wait for itself: \
                       complete the task first, with `task_done`";

impl fmt::Display for JoinTasksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(IN_TASK)
    }
}

impl fmt::Display for JoinTasksTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("some tasks were not done before the deadline"),
            Self::InTask => f.write_str(IN_TASK),
        }
    }
}

impl Error for JoinTasksError {}
impl Error for JoinTasksTimeoutError {}

debug_is_display!(
    Corrupted,
    OsError,
    PutManyError<T>,
    GetManyError<T>,
    TooManyTaskDone,
    JoinTasksError,
    JoinTasksTimeoutError,
);

#[cfg(test)]
mod tests;
