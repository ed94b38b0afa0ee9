//! What can go wrong with a manager.

use std::error::Error;
use std::{fmt, io};

use multiproc_pipe::Address;
use multiproc_process::{ExitStatus, SpawnError};

use crate::object::ObjectKind;
use crate::protocol::VERSION;

/// A manager did not do what it was asked for.
#[derive(Debug)]
#[non_exhaustive]
pub enum ManagerError {
    /// No manager listens at the address: it ended, was killed, or never was there. Objects that were
    /// opened before go on working.
    ManagerGone,
    /// The manager did not answer in time (10 s): it is stopped, perhaps.
    NoAnswer,
    /// The manager is of a user whose processes do not connect to this one's: the manager turned this
    /// process away, or this process the manager.
    NotAllowed {
        /// The user of the manager.
        manager: u32,
        /// The user of this process.
        user: u32,
    },
    /// The manager speaks another version of the protocol.
    Version {
        /// The version of this process.
        ours: u32,
        /// The version of the manager.
        theirs: u32,
    },
    /// Somebody listens at the address, and is no manager.
    NotAManager,
    /// The manager has as many clients as it may have: so many.
    TooManyClients(u32),
    /// The manager has as many objects as it may have: so many.
    TooManyObjects(usize),
    /// A name cannot be one.
    InvalidName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no object of this name.
    NoSuchName(String),
    /// The name is of another kind of object.
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
    TypeMismatch {
        /// The name of the queue.
        name: String,
        /// The type that was asked for.
        asked: String,
        /// The type of the items.
        is: String,
    },
    /// The name is of an object that was made with another number: capacity, permits, parties.
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
    Failed {
        /// The name, if it was to have one.
        name: Option<String>,
        /// Why.
        reason: String,
    },
    /// Somebody listens already where the manager was to listen.
    AddressInUse(Address),
    /// The manager's process was not started.
    Spawn(SpawnError),
    /// The manager's process ended before it could serve.
    Died(ExitStatus),
    /// The operating system refused.
    Io(io::Error),
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

impl fmt::Display for ManagerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ManagerGone => f.write_str(
                "no manager listens at the address; check the address, or start another one there \
                 (`multiproc-manager serve ADDRESS`, or `Manager::builder().address(..).start()`)",
            ),
            Self::NoAnswer => f.write_str(
                "the manager did not answer for 10 s; it may be stopped (SIGSTOP, a debugger): let it \
                 go on, or start another one",
            ),
            Self::NotAllowed { manager, user } => write!(
                f,
                "the manager runs as user {manager} and this process as user {user}: a manager serves \
                 its own user, and is trusted by it, unless both sides allow the other one \
                 (`Manager::builder().allow_user(..)`)"
            ),
            Self::Version { ours, theirs } => write!(
                f,
                "the manager speaks version {theirs} of the protocol, and this program version {ours}; \
                 build both with the same version of multiproc"
            ),
            Self::NotAManager => write!(
                f,
                "expected a manager at the address (protocol version {VERSION}), got somebody who \
                 answers with something else; see that the address is that of a manager"
            ),
            Self::TooManyClients(limit) => write!(
                f,
                "the manager has {limit} clients, which is its limit \
                 (`Manager::builder().max_clients(..)`); drop handles that are not used, or raise it"
            ),
            Self::TooManyObjects(limit) => write!(
                f,
                "the manager has {limit} objects, which is its limit \
                 (`Manager::builder().max_objects(..)`); remove some, or raise it"
            ),
            Self::InvalidName { name, reason } => {
                let start: String = name.chars().take(40).collect();
                write!(
                    f,
                    "expected a name of 1 to 255 printable bytes for an object, got {start:?}{}: {reason}",
                    if start.len() < name.len() { "…" } else { "" }
                )
            }
            Self::NoSuchName(name) => {
                write!(f, "the manager has nothing that is named {name:?}; `list` says what it has")
            }
            Self::KindMismatch { name, asked, is } => write!(
                f,
                "expected {name:?} to be a {asked}, and it is a {is}; use another name, or remove that \
                 one first"
            ),
            Self::TypeMismatch { name, asked, is } if asked == is => write!(
                f,
                "expected the items of {name:?} to be `{asked}`, and they are of a type of that name \
                 with other fields or variants; build both programs from the same source"
            ),
            Self::TypeMismatch { name, asked, is } => write!(
                f,
                "expected the items of {name:?} to be `{asked}`, and they are `{is}`; use another name, \
                 or remove that one first"
            ),
            Self::CapacityMismatch { name, kind, asked, is } => write!(
                f,
                "expected the {kind} {name:?} to have {}, and it has {}; ask for that, or use another \
                 name",
                Number(*kind, *asked),
                Number(*kind, *is)
            ),
            Self::Failed { name: Some(name), reason } => {
                write!(f, "{name:?} could not be opened: {reason}")
            }
            Self::Failed { name: None, reason } => {
                write!(f, "the object could not be made: {reason}")
            }
            Self::AddressInUse(address) => write!(
                f,
                "somebody listens at {address} already: connect to it, or choose another address"
            ),
            Self::Spawn(error) => write!(f, "the manager was not started: {error}"),
            Self::Died(status) => {
                write!(f, "the manager's process ended before it could serve: {status}")
            }
            Self::Io(error) => write!(f, "the manager cannot be reached: {error}"),
        }
    }
}

impl Error for ManagerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Spawn(error) => Some(error),
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}
