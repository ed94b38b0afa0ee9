//! The objects that a manager keeps. It does not know the types of what is in them.

use std::io;

use multiproc_queue::{JoinableQueue, Queue};
use multiproc_sync::{
    Atomic, Barrier, BoundedSemaphore, Condition, Event, Inspect, Inspection, Lock, Mutex, RLock,
    Semaphore, Shared,
};
use serde::{Serialize, Serializer};

use crate::managed::private::Object;
use crate::object::{ObjectInfo, ObjectKind};
use crate::spec::{Number, Spec};

macro_rules! stored {
    ($($kind:ident $(<$item:ty>)?)*) => {
        /// An object, of which the manager is an observer.
        #[derive(Clone)]
        #[allow(clippy::large_enum_variant)] // there is one for each object, and it is moved a few times
        pub(crate) enum Stored {
            $($kind($kind$(<$item>)?),)*
        }

        impl Stored {
            /// Creates an object, and makes this process an observer of it.
            pub(crate) fn create(name: &str, spec: &Spec) -> io::Result<Self> {
                let stored = match spec.kind {
                    $(ObjectKind::$kind => {
                        Self::$kind(<$kind$(<$item>)? as Object>::create(Some(name), spec)?)
                    })*
                };
                match &stored {
                    Self::Queue(it) => it.observe(),
                    Self::JoinableQueue(it) => it.observe(),
                    it => it.primitive().map_or((), |it| it.observe()),
                }
                Ok(stored)
            }
        }

        /// A client knows the kind that it has asked for, and receives only the handle.
        impl Serialize for Stored {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$kind(it) => it.serialize(serializer),)*
                }
            }
        }
    };
}

stored! {
    Queue<()>
    JoinableQueue<()>
    Lock
    RLock
    Mutex<()>
    Semaphore
    BoundedSemaphore
    Condition
    Event
    Barrier
    Shared<u8>
    Atomic
}

impl Stored {
    /// The object, if it is not a queue.
    fn primitive(&self) -> Option<&dyn Inspect> {
        Some(match self {
            Self::Queue(_) | Self::JoinableQueue(_) => return None,
            Self::Lock(it) => it,
            Self::RLock(it) => it,
            Self::Mutex(it) => it,
            Self::Semaphore(it) => it,
            Self::BoundedSemaphore(it) => it,
            Self::Condition(it) => it,
            Self::Event(it) => it,
            Self::Barrier(it) => it,
            Self::Shared(it) => it,
            Self::Atomic(it) => it,
        })
    }

    /// Returns what the object is, with the defaults of what `asked` had left open.
    pub(crate) fn describe_as(&self, asked: Spec) -> Spec {
        let (bytes, attempts) = match self {
            Self::Queue(it) => (Some(it.max_bytes()), None),
            Self::JoinableQueue(it) => (Some(it.max_bytes()), Some(it.max_attempts())),
            _ => (asked.bytes, None),
        };
        let number = Number::from(asked.number.get());
        Spec { number, bytes, attempts, value: None, ..asked }
    }

    /// Describes the object, as the manager sees it.
    pub(crate) fn info(&self, name: &str, spec: &Spec) -> ObjectInfo {
        let is_queue = matches!(self, Self::Queue(_) | Self::JoinableQueue(_));
        let mut info = ObjectInfo {
            name: name.to_owned(),
            kind: spec.kind,
            item_type: spec.item.as_ref().map(|item| item.name.clone()),
            capacity: spec.number.get(),
            length: 0,
            members: 0,
            holder: None,
            waiting: false,
            waiting_to_put: false,
            put: 0,
            got: 0,
            max_bytes: spec.bytes.filter(|_| is_queue),
            max_attempts: spec.attempts,
        };
        let mut queue = |length, (members, (get, put), counts): (usize, (bool, bool), _)| {
            info.length = length;
            info.members = members;
            (info.waiting, info.waiting_to_put) = (get, put);
            // `None` if another process has corrupted it. The users of the queue will get an error.
            (info.put, info.got) = Option::unwrap_or_default(counts);
        };
        let length = match self {
            Self::Queue(it) => {
                queue(it.len(), it.inspect());
                return info;
            }
            Self::JoinableQueue(it) => {
                queue(it.len(), it.inspect());
                return info;
            }
            Self::Semaphore(it) => it.value() as usize,
            Self::BoundedSemaphore(it) => it.available(),
            Self::Event(it) => it.is_set().into(),
            Self::Barrier(it) => it.waiting() as usize,
            Self::Shared(_) => info.capacity.unwrap_or(0),
            Self::Atomic(it) => usize::try_from(it.load()).unwrap_or(usize::MAX),
            Self::Lock(_) | Self::RLock(_) | Self::Mutex(_) | Self::Condition(_) => 0,
        };
        let Some(primitive) = self.primitive() else { return info };
        let Inspection { members, holder, waited_for } = primitive.inspect();
        let length = length.max(holder.is_some().into());
        ObjectInfo { length, members, holder, waiting: waited_for, ..info }
    }
}
