//! Why no manager answers at an address.

use std::fmt;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

use multiproc_pipe::{Address, connect_without_hello};

/// How long to wait for room in the queue of a listener that does not accept.
const PATIENCE: Duration = Duration::from_secs(1);

/// What there is at an address: see [`Manager::diagnose`](crate::Manager::diagnose).
///
/// `Display` states the reason why no manager can be reached, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Diagnosis {
    /// A process listens there. It may be another kind of server.
    Listening,
    /// The path does not exist.
    NoSuchPath,
    /// The path exists and is not a socket.
    NotASocket,
    /// The path is a socket on which no process listens: its manager was killed.
    Stale,
    /// No process listens at the abstract name.
    NoSuchName,
    /// The socket, or the process that listens there, belongs to another user.
    OtherUser {
        /// The user of the manager.
        manager: u32,
        /// The user of this process.
        user: u32,
    },
    /// The address cannot be reached, for this reason.
    Unreachable(String),
}

impl Diagnosis {
    pub(crate) fn of(address: &Address) -> Self {
        let user = rustix::process::geteuid().as_raw();
        let mut owner = user;
        if let Some(path) = address.as_path() {
            match path.metadata() {
                Ok(file) if !file.file_type().is_socket() => return Self::NotASocket,
                Ok(file) => owner = file.uid(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::NoSuchPath,
                Err(error) => return Self::Unreachable(error.to_string()),
            }
        }
        let manager = match connect_without_hello::<(), ()>(address, PATIENCE) {
            Ok(connection) => connection.peer().map_or(user, |peer| peer.uid),
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                    let is_path = address.as_path().is_some();
                    return if is_path { Self::Stale } else { Self::NoSuchName };
                }
                io::ErrorKind::PermissionDenied => owner,
                _ => return Self::Unreachable(error.to_string()),
            },
        };
        if manager == user || manager == 0 && owner == user {
            Self::Listening
        } else {
            Self::OtherUser { manager, user }
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening => f.write_str("a process listens there; it may not be a manager"),
            Self::NoSuchPath => f.write_str(
                "the path does not exist; start a manager there (`multiproc manager serve ADDRESS`), or \
                 check the path",
            ),
            Self::NotASocket => f.write_str(
                "the path exists and is not a socket; check the path: a manager cannot listen there",
            ),
            Self::Stale => f.write_str(
                "the path is a socket on which no process listens, as a killed manager leaves it; start \
                 another manager there (`multiproc manager serve ADDRESS`), which replaces it",
            ),
            Self::NoSuchName => f.write_str(
                "no process listens at this abstract name; start a manager there (`multiproc manager \
                 serve ADDRESS`), or check the name and the network namespace (a container has its own)",
            ),
            Self::OtherUser { manager, user } => write!(
                f,
                "it belongs to user {manager}, and this process runs as user {user}; start the manager \
                 with `--allow-user {user}` at an address that both users can reach"
            ),
            Self::Unreachable(reason) => write!(f, "the address cannot be reached: {reason}"),
        }
    }
}
