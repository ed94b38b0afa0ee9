//! Queues in shared memory, between processes, that lose nothing when one is killed.
//!
//! A [`Queue`] can be cloned, sent to other processes (as an argument, through a connection), and
//! used by all of them, each to put and to get. Items are values: anything that implements serde's
//! `Serialize` and `Deserialize`.
//!
//! ```
//! use multiproc_queue::Queue;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let jobs = Queue::bounded(100)?;
//! jobs.put(("resize".to_owned(), 640))?;
//! assert_eq!(jobs.len(), 1);
//! let (what, width) = jobs.get()?;
//! assert_eq!((&*what, width), ("resize", 640));
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - **put is delivery.** When `put` returns `Ok`, the item is in shared memory. There is no feeder
//!   thread and no buffer in the producer: kill it at the next instruction, and the item arrives.
//! - **All or nothing.** A process that is killed at any instruction inside `put` or `get` leaves no
//!   half item, no lost capacity and no wrong [`len`](Queue::len). What a consumer had already taken
//!   ends with it.
//! - **Nobody hangs on the dead.** No lock is held while anybody waits, encodes or decodes; a lock
//!   whose holder is killed is taken over, within some 10 ms.
//! - **Shared memory is not trusted.** Whatever another process writes into it, this one gets an
//!   error, `Corrupted`.
//! - **Nothing is left behind.** A queue has no name. It ends with the last handle.
//!
//! # Order
//!
//! First in, first out, over all producers: the order in which their `put` calls took effect.
//!
//! # What an item can be
//!
//! Any value, of up to [`max_bytes`](QueueBuilder::max_bytes) (and 4 GiB), also one that holds handles: a
//! `Sender` for the reply, a file, another queue. One item can have 253 descriptors. They wait in
//! the kernel, which takes those of some hundred items of a queue at a time. An ordinary user can also
//! have only so many descriptors in flight, in all queues and sockets together, as it can have open in
//! one process (`RLIMIT_NOFILE`, `ulimit -n`). A `put` beyond one of these limits waits as on a full
//! queue, until some are received. (For the user's limit that can be anywhere, and nothing tells the
//! producer: it tries again after 1 ms, then less and less often, at last every quarter of a second.)
//!
//! A value that could be put and not be got comes back from `put`: one that is nested more than 256
//! levels deep, or of a type whose `Deserialize` asks the data what comes next (`serde_json::Value`, an
//! enum with serde's `untagged`, `tag` or `content`, a struct with `flatten`). Wrap such a type in `Json`,
//! which the feature `json` of `multiproc-message` adds. A type that implements only `Serialize` is not
//! checked.
//!
//! # The end
//!
//! Hand out [`Producer`]s and [`Consumer`]s: when nobody is left on the other side, killed or not,
//! getting (of what is left) and putting end with `Disconnected`. Or say that it is over, by
//! [`shutdown`](Queue::shutdown). Items that nobody can get any more are discarded: their memory is
//! released, and the handles in them are closed.
//!
//! # Work
//!
//! What a consumer has taken from a `Queue` is its own: if it is killed before it is done, the item is
//! gone. From a [`JoinableQueue`] it takes a [`Task`], which goes to another one then; and
//! [`join`](JoinableQueue::join) waits until all are done.
//!
//! # What it does not do
//!
//! A queue does not outlive its last handle, and whoever can open one can spoil it (the others get
//! `Corrupted`). A process that is stopped (SIGSTOP) in the middle of a put or a get is not robbed
//! of its lock: others wait for it, with their timeouts.

#[cfg(not(loom))]
mod builder;
#[cfg(not(loom))]
mod dead_letter;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod fd_lane;
#[cfg(not(loom))]
mod inner;
#[cfg(not(loom))]
mod joinable;
#[cfg(not(loom))]
mod memory;
#[cfg(not(loom))]
mod methods;
#[cfg(not(loom))]
mod queue;
#[cfg(not(loom))]
mod receipt;
#[cfg(not(loom))]
mod scratch;
#[cfg(not(loom))]
mod task;

#[cfg_attr(loom, allow(dead_code))]
mod engine;

#[cfg(all(test, loom))]
mod loom_tests;

#[cfg(not(loom))]
pub use {
    builder::{JoinableQueueBuilder, QueueBuilder},
    dead_letter::{DeadLetter, DeathReason},
    error::{
        Corrupted, GetError, GetManyError, GetTimeoutError, JoinTasksError, JoinTasksTimeoutError,
        OsError, PutError, PutManyError, PutTimeoutError, TooManyTaskDone, TryGetError,
        TryPutError,
    },
    joinable::JoinableQueue,
    queue::{Consumer, Producer, Queue, Shutdown},
    receipt::Receipt,
    task::{FinishError, Puts, Task},
};

/// The points of `put` at which tests let a producer die, in order: one after each step.
#[doc(hidden)]
pub const PUT_POINTS: &[&str] = &[
    "put.locked",
    "put.half_written",
    "put.written",
    "put.prepared",
    "put.committed",
    "put.unlocked",
];

/// The points of `get` at which tests let a consumer die, in order: one after each step.
#[doc(hidden)]
pub const GET_POINTS: &[&str] =
    &["get.locked", "get.copied", "get.prepared", "get.committed", "get.unlocked"];

/// The same, beside those, of items that go into the overflow ring, where they take memory and give
/// it back.
#[doc(hidden)]
pub const OVERFLOW_POINTS: &[&str] =
    &["put.block_reserved", "put.block_prepared", "put.block_taken", "get.trimmed"];

/// The same, of what is done now and then.
#[doc(hidden)]
pub const SELDOM_POINTS: &[&str] = &[
    "put.hot_reserved",
    "put.seen",
    "get.seen",
    "get.trim_prepared",
    "get.trim_committed",
    "get.trimmed_some",
];

/// The same, beside those, of items that have descriptors.
#[doc(hidden)]
pub const LANE_POINTS: &[&str] = &["put.tagged", "put.sent", "get.received", "get.removed"];

/// The points at which tests let a process die that has to do with tasks, in order.
#[doc(hidden)]
pub const TASK_POINTS: &[&str] = &[
    "task.taken",
    "task.filled",
    "task.numbered",
    "task.doing",
    "task.done",
    "task.reclaiming",
    "task.returning",
    "task.given_up",
    "task.seized",
];
