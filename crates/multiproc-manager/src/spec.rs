//! What a client asks for, and with what an object was created.

use serde::{Deserialize, Serialize};

use crate::item_type::ItemType;
use crate::object::ObjectKind;

/// The maximum size of the first value of a mutex, in bytes: it is part of the request.
pub(crate) const LONGEST_VALUE: usize = 16 << 10;

/// The number of a request: the capacity of a queue, the number of values of a table, or the number
/// with which another object is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Number {
    /// Not compared. An object that is created has no limit.
    Any,
    Unlimited,
    Exactly(usize),
}

impl Number {
    /// The number that an object has, or `None` if it has no limit.
    pub(crate) fn get(self) -> Option<usize> {
        match self {
            Self::Any | Self::Unlimited => None,
            Self::Exactly(number) => Some(number),
        }
    }
}

impl From<Option<usize>> for Number {
    fn from(number: Option<usize>) -> Self {
        number.map_or(Self::Unlimited, Self::Exactly)
    }
}

/// A description of an object. In a request, what is not set is not compared with an object that
/// exists, and has its default in one that is created.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    pub(crate) kind: ObjectKind,
    /// The type of the items or of the value.
    pub(crate) item: Option<ItemType>,
    pub(crate) number: Number,
    /// The limit of bytes of a queue, or the size of a table in bytes.
    pub(crate) bytes: Option<usize>,
    /// How often a task is delivered at most.
    pub(crate) attempts: Option<u32>,
    /// The first value of a mutex or of an atomic number. Never compared.
    pub(crate) value: Option<Vec<u8>>,
}

impl Spec {
    /// A request for any object of this kind.
    pub(crate) fn any(kind: ObjectKind, item: Option<ItemType>) -> Self {
        Self { kind, item, number: Number::Any, bytes: None, attempts: None, value: None }
    }
}
