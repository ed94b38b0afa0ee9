//! The objects that can be opened by name, and how a client receives or creates them.

use std::io;

use bytemuck::Pod;
use multiproc_queue::{Consumer, JoinableQueue, Producer, Queue};
use multiproc_sync::{
    Atomic, Barrier, BoundedSemaphore, Condition, Event, Lock, Mutex, RLock, Semaphore, Shared,
};
use serde::de::DeserializeOwned;

use crate::item_type::ItemType;
use crate::object::ObjectKind;
use crate::spec::Spec;

/// An object that [`Manager::open`](crate::Manager::open) can open by its name: a queue or an end
/// of one, a lock, a value.
///
/// | type | kind of the object |
/// |---|---|
/// | [`Queue<T>`], [`Producer<T>`], [`Consumer<T>`] | queue of items of type `T` |
/// | [`JoinableQueue<T>`] | joinable queue of tasks of type `T` |
/// | [`Lock`], [`RLock`], [`Mutex<T>`] | lock; re-entrant lock; lock with a value of type `T` |
/// | [`Semaphore`], [`BoundedSemaphore`], [`Event`], [`Condition`], [`Barrier`] | the same |
/// | [`Shared<T>`] | table of values of type `T` |
/// | [`Atomic`] | atomic number |
///
/// This trait is sealed.
#[diagnostic::on_unimplemented(
    message = "a manager has no objects of type `{Self}`",
    label = "not an object of a manager",
    note = "it has `Queue<T>`, `Producer<T>`, `Consumer<T>` and `JoinableQueue<T>` of a `T` that \
            implements `Deserialize`; `Mutex<T>` and `Shared<T>` of plain data; `Lock`, `RLock`, \
            `Semaphore`, `BoundedSemaphore`, `Event`, `Condition`, `Barrier` and `Atomic`"
)]
pub trait ManagedObject: private::Object {}

impl<O: private::Object> ManagedObject for O {}

pub(crate) mod private {
    use super::{DeserializeOwned, ItemType, ObjectKind, Spec, io};

    /// How a client receives or creates an object.
    pub trait Object: Sized {
        /// The handle that the manager sends.
        type Sent: DeserializeOwned;

        #[doc(hidden)]
        fn kind() -> ObjectKind;

        /// The type of the items or of the value.
        #[doc(hidden)]
        fn item() -> Option<ItemType>;

        #[doc(hidden)]
        fn of_sent(sent: Self::Sent) -> Self;

        /// Creates an object in this process.
        #[doc(hidden)]
        fn create(name: Option<&str>, spec: &Spec) -> io::Result<Self::Sent>;
    }
}

use private::Object;

impl<T: DeserializeOwned> Object for Queue<T> {
    type Sent = Self;

    fn kind() -> ObjectKind {
        ObjectKind::Queue
    }

    fn item() -> Option<ItemType> {
        Some(ItemType::of::<T>())
    }

    fn of_sent(sent: Self) -> Self {
        sent
    }

    fn create(name: Option<&str>, spec: &Spec) -> io::Result<Self> {
        let mut builder = Self::builder();
        if let Some(name) = name {
            builder = builder.name(name);
        }
        if let Some(capacity) = spec.number.get() {
            builder = builder.capacity(capacity);
        }
        if let Some(bytes) = spec.bytes {
            builder = builder.max_bytes(bytes);
        }
        builder.build()
    }
}

impl<T: DeserializeOwned> Object for JoinableQueue<T> {
    type Sent = Self;

    fn kind() -> ObjectKind {
        ObjectKind::JoinableQueue
    }

    fn item() -> Option<ItemType> {
        Some(ItemType::of::<T>())
    }

    fn of_sent(sent: Self) -> Self {
        sent
    }

    fn create(name: Option<&str>, spec: &Spec) -> io::Result<Self> {
        let mut builder = Self::builder();
        if let Some(name) = name {
            builder = builder.name(name);
        }
        if let Some(capacity) = spec.number.get() {
            builder = builder.capacity(capacity);
        }
        if let Some(bytes) = spec.bytes {
            builder = builder.max_bytes(bytes);
        }
        if let Some(attempts) = spec.attempts {
            builder = builder.max_attempts(attempts);
        }
        builder.build()
    }
}

/// An end of a queue: the manager sends the whole, of which the client keeps one end.
macro_rules! ends {
    ($($end:ident of $whole:ident by $into:ident;)*) => {$(
        impl<T: DeserializeOwned> Object for $end<T> {
            type Sent = $whole<T>;

            fn kind() -> ObjectKind {
                <$whole<T>>::kind()
            }

            fn item() -> Option<ItemType> {
                <$whole<T>>::item()
            }

            fn of_sent(sent: $whole<T>) -> Self {
                sent.$into()
            }

            fn create(name: Option<&str>, spec: &Spec) -> io::Result<$whole<T>> {
                <$whole<T>>::create(name, spec)
            }
        }
    )*};
}

ends! {
    Producer of Queue by producer;
    Consumer of Queue by consumer;
}

macro_rules! without_items {
    ($($kind:ident $(by $number:ident)?;)*) => {$(
        impl Object for $kind {
            type Sent = Self;

            fn kind() -> ObjectKind {
                ObjectKind::$kind
            }

            fn item() -> Option<ItemType> {
                None
            }

            fn of_sent(sent: Self) -> Self {
                sent
            }

            fn create(_: Option<&str>, _spec: &Spec) -> io::Result<Self> {
                $kind::new($($number(_spec))?)
            }
        }
    )*};
}

/// A number that does not fit is refused by the constructor as too large.
fn number(spec: &Spec) -> u32 {
    u32::try_from(spec.number.get().unwrap_or(0)).unwrap_or(u32::MAX)
}

/// The first value of an atomic number.
fn value(spec: &Spec) -> u64 {
    let bytes = spec.value.as_deref().and_then(|value| value.try_into().ok());
    u64::from_le_bytes(bytes.unwrap_or_default())
}

without_items! {
    Lock;
    RLock;
    Condition;
    Event;
    Semaphore by number;
    BoundedSemaphore by number;
    Barrier by number;
    Atomic by value;
}

impl<T: Pod> Object for Mutex<T> {
    type Sent = Self;

    fn kind() -> ObjectKind {
        ObjectKind::Mutex
    }

    fn item() -> Option<ItemType> {
        Some(ItemType::of_plain::<T>())
    }

    fn of_sent(sent: Self) -> Self {
        sent
    }

    fn create(_: Option<&str>, spec: &Spec) -> io::Result<Self> {
        Self::of_bytes(spec.value.as_deref().unwrap_or_default())
    }
}

impl<T: Pod> Object for Shared<T> {
    type Sent = Self;

    fn kind() -> ObjectKind {
        ObjectKind::Shared
    }

    fn item() -> Option<ItemType> {
        Some(ItemType::of_plain::<T>())
    }

    fn of_sent(sent: Self) -> Self {
        sent
    }

    fn create(_: Option<&str>, spec: &Spec) -> io::Result<Self> {
        Self::zeroed(spec.bytes.unwrap_or(0) / size_of::<T>().max(1))
    }
}
