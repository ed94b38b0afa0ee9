//! The kinds of objects, and their descriptions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of an object of a manager.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{Manager, ObjectKind};
///
/// let manager = Manager::start()?;
/// let _lock = manager.lock("printer")?;
/// assert_eq!(manager.list()?[0].kind, ObjectKind::Lock);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ObjectKind {
    /// A [`Queue`](multiproc_queue::Queue).
    Queue,
    /// A [`JoinableQueue`](multiproc_queue::JoinableQueue).
    JoinableQueue,
    /// A [`Lock`](multiproc_sync::Lock).
    Lock,
    /// An [`RLock`](multiproc_sync::RLock).
    RLock,
    /// A [`Semaphore`](multiproc_sync::Semaphore).
    Semaphore,
    /// A [`BoundedSemaphore`](multiproc_sync::BoundedSemaphore).
    BoundedSemaphore,
    /// A [`Condition`](multiproc_sync::Condition).
    Condition,
    /// An [`Event`](multiproc_sync::Event).
    Event,
    /// A [`Barrier`](multiproc_sync::Barrier).
    Barrier,
    /// A [`Mutex`](multiproc_sync::Mutex).
    Mutex,
    /// A [`Shared`](multiproc_sync::Shared) table.
    Shared,
    /// An [`Atomic`](multiproc_sync::Atomic) number.
    Atomic,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Queue => "queue",
            Self::JoinableQueue => "joinable queue",
            Self::Lock => "lock",
            Self::RLock => "rlock",
            Self::Semaphore => "semaphore",
            Self::BoundedSemaphore => "bounded semaphore",
            Self::Condition => "condition",
            Self::Event => "event",
            Self::Barrier => "barrier",
            Self::Mutex => "mutex",
            Self::Shared => "shared table",
            Self::Atomic => "atomic number",
        })
    }
}

/// A description of an object, returned by [`Manager::list`](crate::Manager::list).
///
/// It is a snapshot: other processes use the objects at the same time.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::Manager;
///
/// let manager = Manager::start()?;
/// let _jobs = manager.queue::<u32>("jobs", 5)?;
/// for info in manager.list()? {
///     println!("{} ({}): {} items, {} members", info.name, info.kind, info.length, info.members);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// The name.
    pub name: String,
    /// The kind.
    pub kind: ObjectKind,
    /// The type of the items of a queue, of the value of a mutex, or of the values of a table, as
    /// the client that created the object has it. The paths of a program's types are left out. A
    /// struct or an enum with `#[serde(rename = "…")]` has that name.
    pub item_type: Option<String>,
    /// For queues, the capacity; `None` if the number of items is not limited. For semaphores and
    /// barriers, the number with which they were created. For tables, the number of values.
    pub capacity: Option<usize>,
    /// The number of items in a queue (without tasks that were taken), the value of a semaphore,
    /// the number of available permits, the number of processes that wait at a barrier, the number
    /// of values of a table, or an atomic number. For an event, 1 if it is set. For a lock or a
    /// mutex, 1 if it is held.
    pub length: usize,
    /// The number of living processes that have it open, without the manager.
    pub members: usize,
    /// The process ID of the holder of a lock or a mutex, or of the lock of a condition, as seen in
    /// the holder's own pid namespace. 0 if it is unknown.
    pub holder: Option<u32>,
    /// Whether a process waits for an item, for the lock, or for the event. A waiter that has
    /// given up or was killed may still be counted.
    pub waiting: bool,
    /// Whether a process waits for room in a queue.
    pub waiting_to_put: bool,
    /// The number of items that were put into a queue so far.
    pub put: u64,
    /// The number of items that were taken from a queue so far.
    pub got: u64,
    /// The limit of the bytes of all items of a queue.
    pub max_bytes: Option<usize>,
    /// How often a task of a joinable queue is delivered at most.
    pub max_attempts: Option<u32>,
}
