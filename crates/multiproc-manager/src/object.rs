//! What a manager has: objects of some kinds, and what there is to say about one.

use std::fmt;
use std::io;

use multiproc_queue::{JoinableQueue, Queue};
use multiproc_sync::{
    Barrier, BoundedSemaphore, Condition, Event, Inspect, Inspection, Lock, RLock, Semaphore,
};
use serde::{Deserialize, Serialize};

use crate::item_type::ItemType;

/// What an object of a manager is.
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

/// What somebody asks for, and what there is then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) kind: ObjectKind,
    /// Queues have one.
    pub(crate) item: Option<ItemType>,
    /// Of a queue: how many items it holds. Of others: the number they are made with.
    pub(crate) capacity: Option<usize>,
}

/// An object. What type its items have is nothing to a manager, and no part of what travels.
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
        // A number that does not fit is refused as too large by whoever has to do with it.
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

    /// Makes this process one that keeps it for others.
    pub(crate) fn stand_aside(&self) {
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

    /// What there is to say about it, as the manager sees it.
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
            // None: corrupted by somebody. Whoever uses it will hear of it.
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

/// What [`Manager::list`](crate::Manager::list) says about an object.
///
/// It was true a moment ago: others work with the objects meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ObjectKind,
    /// Of queues: the name of the type of their items, as the compiler has it.
    pub item_type: Option<String>,
    /// Of queues: how many items they hold, `None` is any number. Of semaphores and barriers: the number
    /// that they were made with.
    pub capacity: Option<usize>,
    /// How many items there are in a queue (tasks in work do not count), what a semaphore's value is, how
    /// many permits are available, how many wait at a barrier; 1 if an event is set, or a lock is held.
    pub length: usize,
    /// How many living processes have it open, beside the manager.
    pub members: usize,
    /// The process that holds a lock, or the lock of a condition. 0: it cannot be seen from the
    /// manager.
    pub holder: Option<u32>,
    /// Somebody waits: for an item, for the lock, for the event. (Who has given up since, or was
    /// killed, may still be seen.)
    pub waiting: bool,
    /// The same for room in a queue.
    pub waiting_to_put: bool,
    /// How many items were put into a queue so far.
    pub put: u64,
    /// How many items were got from it.
    pub got: u64,
}
