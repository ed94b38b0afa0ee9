//! The errors of a manager.

use std::{fmt, io};

use multiproc_message::debug_is_display;
use multiproc_pipe::Address;
use multiproc_process::{ExitStatus, SpawnError};
use thiserror::Error;

use crate::object::ObjectKind;
use crate::protocol::VERSION;

/// The error of an operation of a [`Manager`](crate::Manager).
///
/// ```
/// use multiproc::{Manager, ManagerError};
///
/// let error = Manager::connect("@no manager listens here").unwrap_err();
/// assert!(matches!(error, ManagerError::ManagerGone));
/// ```
#[derive(Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// No manager listens at the address: it has ended, was killed, or never started. Objects that
    /// were opened before stay usable. [`Manager::diagnose`](crate::Manager::diagnose) returns the
    /// reason.
    #[error(
        "no manager listens at the address; check the address, or start a manager there \
         (`multiproc manager serve ADDRESS`, or `Manager::builder().address(..).start()`)"
    )]
    ManagerGone,
    /// The manager did not answer within 10 seconds. It may be stopped.
    #[error(
        "the manager did not answer within 10 s; it may be stopped (SIGSTOP, a debugger): resume it, or \
         start another one"
    )]
    NoAnswer,
    /// The manager belongs to another user. Either the manager refused this process, or this
    /// process refused the manager.
    #[error(
        "the manager runs as user {manager} and this process as user {user}; each side accepts only its \
         own user, and a client also a manager of root, unless it allows the other one \
         (`Manager::builder().allow_user(..)`)"
    )]
    NotAllowed {
        /// The user of the manager.
        manager: u32,
        /// The user of this process.
        user: u32,
    },
    /// The manager uses another version of the protocol.
    #[error(
        "the manager uses version {theirs} of the protocol, and this program version {ours}; build both \
         with the same version of multiproc"
    )]
    Version {
        /// The version of this process.
        ours: u32,
        /// The version of the manager.
        theirs: u32,
    },
    /// The process that listens at the address is not a manager.
    #[error(
        "the process that listens at the address is not a manager (expected protocol version \
         {VERSION}); check the address"
    )]
    NotAManager,
    /// The manager has reached its limit of clients, which is this number.
    #[error(
        "the manager has reached its limit of {0} clients; drop unused handles, or raise the limit \
         (`Manager::builder().max_clients(..)`)"
    )]
    TooManyClients(u32),
    /// The manager has reached its limit of objects, which is this number.
    #[error(
        "the manager has reached its limit of {0} objects; remove some, or raise the limit \
         (`Manager::builder().max_objects(..)`)"
    )]
    TooManyObjects(usize),
    /// The name is not valid.
    #[error(
        "the name {} is not valid: {reason}; a name has 1 to 255 printable bytes",
        beginning(name)
    )]
    InvalidName {
        /// The name.
        name: String,
        /// Why it is not valid.
        reason: String,
    },
    /// There is no object of this name.
    #[error("the manager has no object named {0:?}; `list` returns all names")]
    NoSuchName(String),
    /// There is no object of this name to open.
    #[error(
        "the manager has no {kind} named {}: {}; check the name, or create the object first",
        beginning(name),
        Existing(existing, *others)
    )]
    NoSuchObject {
        /// The name.
        name: String,
        /// The requested kind.
        kind: ObjectKind,
        /// The names of the first objects of this kind.
        existing: Vec<String>,
        /// The number of other objects of this kind.
        others: usize,
    },
    /// The object of this name has another kind.
    #[error(
        "expected {name:?} to be a {asked}, but it is a {is}; use another name, or remove this one \
         first"
    )]
    KindMismatch {
        /// The name.
        name: String,
        /// The requested kind.
        asked: ObjectKind,
        /// The kind of the object.
        is: ObjectKind,
    },
    /// The queue of this name has items of another type, or of a type of the same name with another
    /// schema. Or the mutex or table of this name has values of another type.
    #[error("expected the items of {name:?} to be `{asked}`, but {}", other_type(asked, is))]
    TypeMismatch {
        /// The name of the object.
        name: String,
        /// The requested type.
        asked: String,
        /// The type of its items.
        is: String,
    },
    /// The object of this name was created with another number: capacity, permits, parties, values.
    #[error(
        "expected the {kind} {name:?} to have {}, but it has {}; request the same, or use another name",
        Number(*kind, *asked),
        Number(*kind, *is)
    )]
    CapacityMismatch {
        /// The name.
        name: String,
        /// The kind of the object.
        kind: ObjectKind,
        /// The requested number.
        asked: Option<usize>,
        /// The number with which it was created.
        is: Option<usize>,
    },
    /// The queue of this name was created with another limit of bytes.
    #[error(
        "expected the {kind} {name:?} to have max_bytes {asked}, but it has max_bytes {is}; request the \
         same, or use another name"
    )]
    MaxBytesMismatch {
        /// The name.
        name: String,
        /// The kind of the object.
        kind: ObjectKind,
        /// The requested limit.
        asked: usize,
        /// The limit with which it was created.
        is: usize,
    },
    /// The joinable queue of this name was created with another number of attempts.
    #[error(
        "expected the joinable queue {name:?} to have max_attempts {asked}, but it has max_attempts \
         {is}; request the same, or use another name"
    )]
    MaxAttemptsMismatch {
        /// The name.
        name: String,
        /// The requested number.
        asked: u32,
        /// The number with which it was created.
        is: u32,
    },
    /// The object could not be created, or not be opened here.
    #[error("{}: {reason}", what_failed(name.as_deref()))]
    Failed {
        /// The name, if it has one.
        name: Option<String>,
        /// The reason.
        reason: String,
    },
    /// Another process already listens at the address.
    #[error("another process already listens at {0}; connect to it, or choose another address")]
    AddressInUse(Address),
    /// The process of the manager was not started.
    #[error("the manager was not started: {0}")]
    Spawn(#[source] SpawnError),
    /// The process of the manager ended before it could serve.
    #[error("the process of the manager ended before it could serve: {0}")]
    Died(ExitStatus),
    /// A system call failed.
    #[error("cannot connect to an address, or listen there: {0}")]
    Io(#[source] io::Error),
}

debug_is_display!(ManagerError);

impl ManagerError {
    /// Returns `true` if no manager listens at the address.
    ///
    /// ```
    /// let error = multiproc::Manager::connect("@no manager listens here").unwrap_err();
    /// assert!(error.is_manager_gone());
    /// ```
    #[must_use]
    pub fn is_manager_gone(&self) -> bool {
        matches!(self, Self::ManagerGone)
    }

    /// Returns `true` if the object of this name has another kind, item type, number or limit.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// let _lock = manager.lock("printer")?;
    /// assert!(manager.event("printer").unwrap_err().is_mismatch());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        matches!(
            self,
            Self::KindMismatch { .. }
                | Self::TypeMismatch { .. }
                | Self::CapacityMismatch { .. }
                | Self::MaxBytesMismatch { .. }
                | Self::MaxAttemptsMismatch { .. }
        )
    }

    /// Returns `true` if the manager has no object of this name.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{Lock, Manager};
    ///
    /// let manager = Manager::start()?;
    /// assert!(manager.open::<Lock>("printer").unwrap_err().is_no_such_name());
    /// assert!(manager.remove("printer").unwrap_err().is_no_such_name());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_no_such_name(&self) -> bool {
        matches!(self, Self::NoSuchName(_) | Self::NoSuchObject { .. })
    }

    /// Converts an error of connecting to the address, or of listening there.
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
            ObjectKind::Shared => write!(f, "{number} values"),
            _ => write!(f, "the capacity {number}"),
        }
    }
}

/// The names of the objects of a kind, and the number of others.
struct Existing<'a>(&'a [String], usize);

impl fmt::Display for Existing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(names, others) = *self;
        if names.is_empty() {
            return f.write_str("it has no object of this kind");
        }
        f.write_str("those of this kind are ")?;
        for (at, name) in names.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, beginning(name))?;
        }
        if others > 0 { write!(f, " and {others} more") } else { Ok(()) }
    }
}

/// Returns the first characters of a name, which may be long.
fn beginning(name: &str) -> String {
    let start: String = name.chars().take(40).collect();
    format!("{start:?}{}", if start.len() < name.len() { "…" } else { "" })
}

fn other_type(asked: &str, is: &str) -> String {
    if asked == is {
        "their type of the same name has other fields or variants; build both programs from the same \
         source"
            .to_owned()
    } else {
        format!("they are `{is}`; use another name, or remove this one first")
    }
}

fn what_failed(name: Option<&str>) -> String {
    name.map_or_else(
        || "cannot create the object".to_owned(),
        |name| format!("cannot open {name:?}"),
    )
}
