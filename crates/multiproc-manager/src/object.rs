//! The objects of a manager, their kinds and their descriptions.

use std::fmt;
use std::io;

use multiproc_queue::{JoinableQueue, Queue};
use multiproc_sync::{
    Barrier, BoundedSemaphore, Condition, Event, Inspect, Inspection, Lock, RLock, Semaphore,
};
use serde::{Deserialize, Serialize};

use crate::item_type::ItemType;

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
    /// A [`Queue`].
    Queue,
    /// A [`JoinableQueue`].
    JoinableQueue,
    /// A [`Lock`].
    Lock,
    /// An [`RLock`].
    RLock,
    /// A [`Semaphore`].
    Semaphore,
    /// A [`BoundedSemaphore`].
    BoundedSemaphore,
    /// A [`Condition`].
    Condition,
    /// An [`Event`].
    Event,
    /// A [`Barrier`].
    Barrier,
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
        })
    }
}

/// What a client requests, and with what an object was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) kind: ObjectKind,
    /// The item type of a queue.
    pub(crate) item: Option<ItemType>,
    /// The capacity of a queue, or the number with which another object is created.
    pub(crate) capacity: Option<usize>,
}

/// An object. The manager does not know the type of the items; it is not part of what is sent.
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
#[allow(clippy::large_enum_variant)] // there is one for each object, and it is moved a few times
pub(crate) enum Object<T> {
    Queue(Queue<T>),
    JoinableQueue(JoinableQueue<T>),
    Lock(Lock),
    RLock(RLock),
    Semaphore(Semaphore),
    BoundedSemaphore(BoundedSemaphore),
    Condition(Condition),
    Event(Event),
    Barrier(Barrier),
}

impl<T> Object<T> {
    pub(crate) fn make(name: Option<&str>, spec: &Spec) -> io::Result<Self> {
        let Spec { kind, capacity, .. } = *spec;
        // A number that does not fit is refused by the constructor as too large.
        let number = || u32::try_from(capacity.unwrap_or(0)).unwrap_or(u32::MAX);
        Ok(match kind {
            ObjectKind::Queue => {
                let mut builder = Queue::builder();
                if let Some(name) = name {
                    builder = builder.name(name);
                }
                if let Some(capacity) = capacity {
                    builder = builder.capacity(capacity);
                }
                Self::Queue(builder.build()?)
            }
            ObjectKind::JoinableQueue => {
                let mut builder = JoinableQueue::builder();
                if let Some(name) = name {
                    builder = builder.name(name);
                }
                if let Some(capacity) = capacity {
                    builder = builder.capacity(capacity);
                }
                Self::JoinableQueue(builder.build()?)
            }
            ObjectKind::Lock => Self::Lock(Lock::new()?),
            ObjectKind::RLock => Self::RLock(RLock::new()?),
            ObjectKind::Semaphore => Self::Semaphore(Semaphore::new(number())?),
            ObjectKind::BoundedSemaphore => {
                Self::BoundedSemaphore(BoundedSemaphore::new(number())?)
            }
            ObjectKind::Condition => Self::Condition(Condition::new()?),
            ObjectKind::Event => Self::Event(Event::new()?),
            ObjectKind::Barrier => Self::Barrier(Barrier::new(number())?),
        })
    }

    /// Makes this process an observer of the object.
    pub(crate) fn observe(&self) {
        match self {
            Self::Queue(it) => it.stand_aside(),
            Self::JoinableQueue(it) => it.stand_aside(),
            Self::Lock(it) => it.observe(),
            Self::RLock(it) => it.observe(),
            Self::Semaphore(it) => it.observe(),
            Self::BoundedSemaphore(it) => it.observe(),
            Self::Condition(it) => it.observe(),
            Self::Event(it) => it.observe(),
            Self::Barrier(it) => it.observe(),
        }
    }

    /// Describes the object, as the manager sees it.
    pub(crate) fn describe(&self, name: &str, spec: &Spec) -> ObjectInfo {
        let mut info = ObjectInfo {
            name: name.to_owned(),
            kind: spec.kind,
            item_type: spec.item.as_ref().map(|item| item.name.clone()),
            capacity: spec.capacity,
            length: 0,
            members: 0,
            holder: None,
            waiting: false,
            waiting_to_put: false,
            put: 0,
            got: 0,
        };
        let mut queue = |length, (members, (get, put), counts): (usize, (bool, bool), _)| {
            info.length = length;
            info.members = members;
            (info.waiting, info.waiting_to_put) = (get, put);
            // `None` if another process has corrupted it. The users of the queue will get an error.
            (info.put, info.got) = Option::unwrap_or_default(counts);
        };
        let (length, Inspection { members, holder, waited_for }) = match self {
            Self::Queue(it) => {
                queue(it.len(), it.inspect());
                return info;
            }
            Self::JoinableQueue(it) => {
                queue(it.len(), it.inspect());
                return info;
            }
            Self::Lock(it) => (0, it.inspect()),
            Self::RLock(it) => (0, it.inspect()),
            Self::Semaphore(it) => (it.value() as usize, it.inspect()),
            Self::BoundedSemaphore(it) => (it.available(), it.inspect()),
            Self::Condition(it) => (0, it.inspect()),
            Self::Event(it) => (it.is_set().into(), it.inspect()),
            Self::Barrier(it) => (it.waiting() as usize, it.inspect()),
        };
        let is_held = usize::from(holder.is_some());
        let length = length.max(is_held);
        ObjectInfo { length, members, holder, waiting: waited_for, ..info }
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
    /// The name of the item type of a queue, as the compiler prints it.
    pub item_type: Option<String>,
    /// For queues, the capacity; `None` if the number of items is not limited. For semaphores and
    /// barriers, the number with which they were created.
    pub capacity: Option<usize>,
    /// The number of items in a queue (without tasks that were taken), the value of a semaphore,
    /// the number of available permits, or the number of processes that wait at a barrier. For an
    /// event, 1 if it is set. For a lock, 1 if it is held.
    pub length: usize,
    /// The number of living processes that have it open, without the manager.
    pub members: usize,
    /// The process ID of the holder of a lock, or of the lock of a condition, as seen in the
    /// holder's own pid namespace. 0 if it is unknown.
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
}
