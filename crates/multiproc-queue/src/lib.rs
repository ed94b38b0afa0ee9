#![doc = include_str!("../README.md")]
//!
//! ## Guarantees
//!
//! - **Delivery.** When `put` returns `Ok`, the item is in shared memory. There is no feeder thread
//!   and no buffer in the producer: if the producer is killed at the next instruction, the item is
//!   delivered.
//! - **Atomicity.** A process that is killed at any instruction inside `put` or `get` leaves no
//!   partial item, no lost capacity and no wrong [`len`](Queue::len). An item that a consumer had
//!   already taken from a [`Queue`] is lost with the consumer.
//! - **No peer blocks on a dead process.** No lock is held while a process waits, encodes or
//!   decodes. A lock whose owner was killed is recovered within about 10 ms.
//! - **Shared memory is not trusted.** Whatever another process writes into it, the operations of
//!   this process return [`Corrupted`]; they neither crash nor block.
//! - **No leaks.** A queue has no name in the file system. Its memory is released with its last
//!   handle.
//!
//! ## Limitations
//!
//! - A queue does not outlive its last handle.
//! - Any process that has a queue open can corrupt it. The others then get [`Corrupted`].
//! - A lock is not taken from a process that is only stopped (SIGSTOP) in the middle of a put or a
//!   get. The other processes wait for it, within their timeouts.

#[cfg(not(loom))]
mod builder;
#[cfg(not(loom))]
mod channel;
#[cfg(not(loom))]
mod dead_letter;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod fd_lane;
#[cfg(not(loom))]
mod inner;
#[cfg(not(loom))]
mod iter;
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
#[cfg(not(loom))]
mod task_ends;
#[cfg(not(loom))]
mod task_methods;
#[cfg(not(loom))]
mod worker;

#[cfg_attr(loom, allow(dead_code))]
mod engine;

#[cfg(all(test, loom))]
mod loom_tests;

#[cfg(not(loom))]
pub use {
    builder::{JoinableQueueBuilder, QueueBuilder},
    channel::{channel, tasks, unbounded_channel, unbounded_tasks},
    dead_letter::{DeadLetter, DeadLetterSource, DeathReason},
    error::{
        Corrupted, GetError, GetManyError, GetTimeoutError, JoinTasksError, JoinTasksTimeoutError,
        OsError, PutError, PutManyError, PutManyTimeoutError, PutTimeoutError, TooManyTaskDone,
        TryGetError, TryPutError, TryPutManyError,
    },
    iter::{IntoIter, Iter, TaskIntoIter, TaskIter, TryIter, TryTaskIter},
    joinable::JoinableQueue,
    queue::{Consumer, Producer, Queue, Shutdown},
    receipt::Receipt,
    task::{FinishAndPutError, FinishError, FinishManyError, NotFinished, Puts, Task},
    task_ends::{TaskConsumer, TaskProducer},
    worker::{Worker, WorkerEnd},
};

/// The failpoints of `put`, in order: one after each step.
#[doc(hidden)]
pub const PUT_POINTS: &[&str] = &[
    "put.locked",
    "put.half_written",
    "put.written",
    "put.prepared",
    "put.committed",
    "put.unlocked",
];

/// The failpoints of `get`, in order: one after each step.
#[doc(hidden)]
pub const GET_POINTS: &[&str] =
    &["get.locked", "get.copied", "get.prepared", "get.committed", "get.unlocked"];

/// The additional failpoints of items in the overflow ring, where memory is reserved and returned.
#[doc(hidden)]
pub const OVERFLOW_POINTS: &[&str] =
    &["put.block_reserved", "put.block_prepared", "put.block_taken", "get.trimmed"];

/// The failpoints of steps that are rarely taken.
#[doc(hidden)]
pub const SELDOM_POINTS: &[&str] = &[
    "put.hot_reserved",
    "put.seen",
    "get.seen",
    "get.trim_prepared",
    "get.trim_committed",
    "get.trimmed_some",
];

/// The additional failpoints of items with descriptors.
#[doc(hidden)]
pub const LANE_POINTS: &[&str] = &["put.tagged", "put.sent", "get.received", "get.removed"];

/// The failpoints of operations on tasks, in order.
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

/// The additional failpoints of a task that is finished together with a put, in order.
#[doc(hidden)]
pub const FINISH_POINTS: &[&str] = &[
    "finish.written",
    "finish.named",
    "finish.armed",
    "finish.committed",
    "finish.freed",
    "finish.unlocked",
];
