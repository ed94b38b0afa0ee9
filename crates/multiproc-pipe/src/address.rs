//! Addresses of listeners.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::net::SocketAddrUnix;
use serde::{Deserialize, Serialize};

/// The maximum length: a socket address has 108 bytes, one of which ends a path or starts an
/// abstract name.
const MOST: usize = 107;

/// The address of a [`Listener`](crate::Listener): a path, or an abstract name.
///
/// A path is a visible file, protected by its permissions. An abstract name is not a file: it ends
/// with its listener, also if that is killed, and any process in the same network namespace may
/// bind a free one or connect to it.
///
/// A string is an abstract name if it begins with `@` or a NUL byte, which is left out, and
/// otherwise a path. A `Path` is always a path, and so is `"./@odd"`. Both may have at most 107
/// bytes: otherwise binding and connecting return an error.
///
/// ```
/// use multiproc_pipe::Address;
/// use std::path::Path;
///
/// assert_eq!(Address::from("@jobs"), Address::abstract_name("jobs"));
/// assert_eq!(Address::from("run/jobs.sock"), Address::from(Path::new("run/jobs.sock")));
/// assert_eq!(Address::from("@jobs").to_string(), "@jobs");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Address(Place);

#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Place {
    Path(Vec<u8>),
    Abstract(Vec<u8>),
}

impl Address {
    /// Returns the address of the file at `path`. A relative path is relative to the working
    /// directory.
    ///
    /// ```
    /// use multiproc_pipe::Address;
    ///
    /// // Also if it begins with `@`.
    /// assert_eq!(Address::path("@jobs").as_path().unwrap().to_str(), Some("@jobs"));
    /// ```
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self(Place::Path(path.into().into_os_string().into_vec()))
    }

    /// Returns the address of the abstract name `name`, given without an `@`.
    ///
    /// ```
    /// use multiproc_pipe::Address;
    ///
    /// assert_eq!(Address::abstract_name("jobs").to_string(), "@jobs");
    /// ```
    pub fn abstract_name(name: impl Into<Vec<u8>>) -> Self {
        Self(Place::Abstract(name.into()))
    }

    /// Returns the path, if it is one.
    ///
    /// ```
    /// use multiproc_pipe::Address;
    /// use std::path::Path;
    ///
    /// assert_eq!(Address::from("run/jobs").as_path(), Some(Path::new("run/jobs")));
    /// assert_eq!(Address::from("@jobs").as_path(), None);
    /// ```
    #[must_use]
    pub fn as_path(&self) -> Option<&Path> {
        match &self.0 {
            Place::Path(path) => Some(Path::new(OsStr::from_bytes(path))),
            Place::Abstract(_) => None,
        }
    }

    pub(crate) fn to_socket_address(&self) -> io::Result<SocketAddrUnix> {
        let (what, bytes) = match &self.0 {
            Place::Path(path) => ("a path", path),
            Place::Abstract(name) => ("an abstract name", name),
        };
        let wrong = match bytes.len() {
            0 => Some(format!("expected {what} for a socket, got an empty one")),
            length @ 1..=MOST if bytes.contains(&0) && what == "a path" => Some(format!(
                "expected a path for a socket, got {length} bytes with a zero in them"
            )),
            1..=MOST => None,
            length => Some(format!(
                "expected {what} for a socket of {MOST} bytes at most, got one of {length} bytes: {self}"
            )),
        };
        if let Some(text) = wrong {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(match &self.0 {
            Place::Path(path) => SocketAddrUnix::new(path.as_slice())?,
            Place::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
        })
    }

    /// Returns the address of a socket, or `None` if it has none.
    pub(crate) fn of(address: &SocketAddrUnix) -> Option<Self> {
        let path = address.path_bytes().map(|path| Place::Path(path.to_vec()));
        path.or_else(|| Some(Place::Abstract(address.abstract_name()?.to_vec()))).map(Self)
    }
}

/// Prints an abstract name after `@`, with bytes that are not text escaped.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Path(path) => Path::new(OsStr::from_bytes(path)).display().fmt(f),
            Place::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        match text.strip_prefix(['@', '\0']) {
            Some(name) => Self::abstract_name(name),
            None => Self::path(text),
        }
    }
}

macro_rules! address_from {
    ($($type:ty: $from:expr),* $(,)?) => {
        $(impl From<$type> for Address {
            fn from(address: $type) -> Self {
                $from(address)
            }
        })*
    };
}

address_from! {
    String: |text: String| Self::from(text.as_str()),
    &String: |text: &String| Self::from(text.as_str()),
    &Path: Self::path,
    PathBuf: Self::path,
    &PathBuf: Self::path,
    &Address: Self::clone,
}
