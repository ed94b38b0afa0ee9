//! Where a listener is found.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::net::SocketAddrUnix;
use serde::{Deserialize, Serialize};

/// What a socket address has room for: 108 bytes, of which one is the end of a path, or the start of
/// an abstract name.
const MOST: usize = 107;

/// The address of a [`Listener`](crate::Listener): a path, or an abstract name.
///
/// A path is a file that others can see, protected by its permissions. An abstract name is no file: it
/// ends with its listener, however that ends, and anybody on the machine (in the same network
/// namespace) may take one that is free or ask for a connection to it.
///
/// A string is an abstract name if it begins with `@` or a zero byte, which is left out, and else a
/// path. A `Path` always is a path; `"./@odd"` is one, too. Both may have 107 bytes at most: whoever
/// binds or connects gets an error that says so.
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
    /// The file at `path`. A relative one is looked up from where the process is.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self(Place::Path(path.into().into_os_string().into_vec()))
    }

    /// The abstract name `name`, without an `@`.
    pub fn abstract_name(name: impl Into<Vec<u8>>) -> Self {
        Self(Place::Abstract(name.into()))
    }

    /// The path, if it is one.
    #[must_use]
    pub fn as_path(&self) -> Option<&Path> {
        match &self.0 {
            Place::Path(path) => Some(Path::new(OsStr::from_bytes(path))),
            Place::Abstract(_) => None,
        }
    }

    pub(crate) fn to_socket_address(&self) -> io::Result<SocketAddrUnix> {
        let (what, bytes) = match &self.0 {
            Place::Path(path) => ("path", path),
            Place::Abstract(name) => ("abstract name", name),
        };
        let wrong = match bytes.len() {
            0 => Some(format!("expected a {what} for a socket, got an empty one")),
            length @ 1..=MOST if bytes.contains(&0) && what == "path" => Some(format!(
                "expected a path for a socket, got {length} bytes with a zero in them"
            )),
            1..=MOST => None,
            length => Some(format!(
                "expected a {what} for a socket of {MOST} bytes at most, got one of {length} bytes: {self}"
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

    /// Where a socket is bound; `None` if it has no address.
    pub(crate) fn of(address: &SocketAddrUnix) -> Option<Self> {
        let path = address.path_bytes().map(|path| Place::Path(path.to_vec()));
        path.or_else(|| Some(Place::Abstract(address.abstract_name()?.to_vec()))).map(Self)
    }
}

/// An abstract name with `@` before it, and what is no text in it escaped.
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
