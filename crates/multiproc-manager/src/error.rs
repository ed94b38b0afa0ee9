//! What can go wrong with a manager.

use std::{fmt, io};

use multiproc_pipe::Address;
use multiproc_process::{ExitStatus, SpawnError};
use thiserror::Error;

use crate::object::ObjectKind;
use crate::protocol::VERSION;

/// A manager did not do what it was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// No manager listens at the address: it ended, was killed, or never was there. Objects that were
    /// opened before go on working.
    #[error(
        "no manager listens at the address; check the address, or start another one there \
         (`multiproc-manager serve ADDRESS`, or `Manager::builder().address(..).start()`)"
    )]
    ManagerGone,
    /// The manager did not answer in time (10 s): it is stopped, perhaps.
    #[error(
        "the manager did not answer for 10 s; it may be stopped (SIGSTOP, a debugger): let it go on, \
         or start another one"
    )]
    NoAnswer,
    /// The manager is of a user whose processes do not connect to this one's: the manager turned this
    /// process away, or this process the manager.
    #[error(
        "the manager runs as user {manager} and this process as user {user}: a manager serves its \
         own user, and is trusted by it, unless both sides allow the other one \
         (`Manager::builder().allow_user(..)`)"
    )]
    NotAllowed {
        /// The user of the manager.
        manager: u32,
        /// The user of this process.
        user: u32,
    },
    /// The manager speaks another version of the protocol.
    #[error(
        "the manager speaks version {theirs} of the protocol, and this program version {ours}; build \
         both with the same version of multiproc"
    )]
    Version {
        /// The version of this process.
        ours: u32,
        /// The version of the manager.
        theirs: u32,
    },
    /// Somebody listens at the address, and is no manager.
    #[error(
        "expected a manager at the address (protocol version {VERSION}), got somebody who answers \
         with something else; see that the address is that of a manager"
    )]
    NotAManager,
    /// The manager has as many clients as it may have: so many.
    #[error(
        "the manager has {0} clients, which is its limit (`Manager::builder().max_clients(..)`); drop \
         handles that are not used, or raise it"
    )]
    TooManyClients(u32),
    /// The manager has as many objects as it may have: so many.
    #[error(
        "the manager has {0} objects, which is its limit (`Manager::builder().max_objects(..)`); \
         remove some, or raise it"
    )]
    TooManyObjects(usize),
    /// A name cannot be one.
    #[error(
        "expected a name of 1 to 255 printable bytes for an object, got {}: {reason}",
        beginning(name)
    )]
    InvalidName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no object of this name.
    #[error("the manager has nothing that is named {0:?}; `list` says what it has")]
    NoSuchName(String),
    /// The name is of another kind of object.
    #[error(
        "expected {name:?} to be a {asked}, and it is a {is}; use another name, or remove that one \
         first"
    )]
    KindMismatch {
        /// The name.
        name: String,
        /// The kind that was asked for.
        asked: ObjectKind,
        /// What there is.
        is: ObjectKind,
    },
    /// The name is of a queue with items of another type; or of one that has the same name and another
    /// shape.
    #[error(
        "expected the items of {name:?} to be `{asked}`, and they are {}",
        other_type(asked, is)
    )]
    TypeMismatch {
        /// The name of the queue.
        name: String,
        /// The type that was asked for.
        asked: String,
        /// The type of the items.
        is: String,
    },
    /// The name is of an object that was made with another number: capacity, permits, parties.
    #[error(
        "expected the {kind} {name:?} to have {}, and it has {}; ask for that, or use another name",
        Number(*kind, *asked),
        Number(*kind, *is)
    )]
    CapacityMismatch {
        /// The name.
        name: String,
        /// What it is.
        kind: ObjectKind,
        /// The number that was asked for.
        asked: Option<usize>,
        /// The number that it was made with.
        is: Option<usize>,
    },
    /// The object could not be made, or not be opened here.
    #[error("{}: {reason}", what_failed(name.as_deref()))]
    Failed {
        /// The name, if it was to have one.
        name: Option<String>,
        /// Why.
        reason: String,
    },
    /// Somebody listens already where the manager was to listen.
    #[error("somebody listens at {0} already: connect to it, or choose another address")]
    AddressInUse(Address),
    /// The manager's process was not started.
    #[error("the manager was not started: {0}")]
    Spawn(#[source] SpawnError),
    /// The manager's process ended before it could serve.
    #[error("the manager's process ended before it could serve: {0}")]
    Died(ExitStatus),
    /// The operating system refused.
    #[error("the manager cannot be reached: {0}")]
    Io(#[source] io::Error),
}

impl ManagerError {
    /// Whether there is no manager (any more).
    #[must_use]
    pub fn is_manager_gone(&self) -> bool {
        matches!(self, Self::ManagerGone)
    }

    /// Whether the name is that of something else: of another kind, item type or number.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        matches!(
            self,
            Self::KindMismatch { .. } | Self::TypeMismatch { .. } | Self::CapacityMismatch { .. }
        )
    }

    /// Of connecting to an address, or listening there.
    pub(crate) fn at(address: &Address, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::ManagerGone,
            io::ErrorKind::AddrInUse => Self::AddressInUse(address.clone()),
            io::ErrorKind::TimedOut => Self::NoAnswer,
            _ => Self::Io(error),
        }
    }
}

struct Number(ObjectKind, Option<usize>);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kind, Some(number)) = self else { return f.write_str("no capacity") };
        match kind {
            ObjectKind::Semaphore => write!(f, "the initial value {number}"),
            ObjectKind::BoundedSemaphore => write!(f, "{number} permits"),
            ObjectKind::Barrier => write!(f, "{number} parties"),
            _ => write!(f, "the capacity {number}"),
        }
    }
}

/// The first characters of a name, which may be a long one.
fn beginning(name: &str) -> String {
    let start: String = name.chars().take(40).collect();
    format!("{start:?}{}", if start.len() < name.len() { "…" } else { "" })
}

fn other_type(asked: &str, is: &str) -> String {
    if asked == is {
        "of a type of that name with other fields or variants; build both programs from the same \
         source"
            .to_owned()
    } else {
        format!("`{is}`; use another name, or remove that one first")
    }
}

fn what_failed(name: Option<&str>) -> String {
    name.map_or_else(
        || "the object could not be made".to_owned(),
        |name| format!("{name:?} could not be opened"),
    )
}
