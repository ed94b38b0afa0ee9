//! The messages between parent and child, over the socket that the child is started with.
//!
//! The parent sends one [`Start`]. A child that inherits descriptors reports when it has closed
//! them. It sends one [`Outcome`], and the parent then waits for its end. The socket is also the
//! child's lifeline: when the parent's end is closed, the parent is dead.

use std::any::type_name;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::os::fd::RawFd;
use std::{fmt, io, mem};

use multiproc_pipe::{Bytes, Descriptor, EncodeError, message};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bulk::{Received, Sending};
use crate::current::Identity;
use crate::limits::Limit;
use crate::remote_error::RemoteError;

/// The environment variable that marks a process as a child. Its value is a [`Mark`].
pub(crate) const MARKER: &str = "MULTIPROC_CHILD";

/// Identifies exactly the process that a marker is for. A variable that was set by hand, is left
/// over from another process, or is meant for another copy of this library is detected.
#[derive(Debug, PartialEq)]
pub(crate) struct Mark {
    /// The copy of this library in the executable: see [`crate::executable::this_copy`].
    pub(crate) copy: usize,
    /// The inode number of the socket that connects the child to its parent.
    pub(crate) socket: u64,
    /// The number of its descriptor: 0, unless the child has a standard input of its own.
    pub(crate) descriptor: RawFd,
    /// Whether the child ignores SIGINT.
    pub(crate) ignores_sigint: bool,
    /// The descriptors that the child inherits beside its standard input, output and error.
    pub(crate) inherits: Inherits,
    /// The descriptors of the parent that the child does not close.
    pub(crate) keep: Vec<RawFd>,
}

/// The descriptors without close-on-exec that a parent has found among its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Inherits {
    /// Whether there are any. If so, the child reports when it has closed them.
    pub(crate) any: bool,
    /// Their numbers, and those of descriptors that other threads open meanwhile, are below this
    /// one. `RawFd::MAX` if unknown.
    pub(crate) below: RawFd,
}

impl Mark {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(':');
        Some(Self {
            copy: numbers.next()?.parse().ok()?,
            socket: numbers.next()?.parse().ok()?,
            descriptor: numbers.next()?.parse().ok().filter(|&number| number >= 0)?,
            ignores_sigint: numbers.next()?.parse::<u8>().ok()? != 0,
            inherits: Inherits {
                any: numbers.next()?.parse::<u8>().ok()? != 0,
                below: numbers.next()?.parse().ok()?,
            },
            keep: numbers.map(str::parse).collect::<Result<_, _>>().ok()?,
        })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inherits { any, below } = self.inherits;
        let (ignores_sigint, any) = (u8::from(self.ignores_sigint), u8::from(any));
        write!(f, "{}:{}:{}", self.copy, self.socket, self.descriptor)?;
        write!(f, ":{ignores_sigint}:{any}:{below}")?;
        self.keep.iter().try_for_each(|descriptor| write!(f, ":{descriptor}"))
    }
}

/// The number of bytes that any socket accepts at once. With more, the parent could have to wait
/// for the child.
const AT_ONCE: usize = 64 * 1024;

/// An encoded value, so that code that carries it need not know its type.
#[derive(Serialize, Deserialize)]
pub(crate) struct Encoded {
    bytes: Body,
    descriptors: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
enum Body {
    Here(Bytes),
    /// This number of bytes follows on a socket of its own: see [`crate::bulk`].
    Bulk {
        end: Descriptor,
        length: usize,
    },
}

impl Encoded {
    pub(crate) fn new<T: Serialize>(value: &T) -> Result<Self, EncodeError> {
        let mut bytes = Vec::new();
        let descriptors = message::encode(value, &mut bytes)?;
        Ok(Self {
            bytes: Body::Here(Bytes(bytes)),
            descriptors: descriptors.into_iter().map(Descriptor).collect(),
        })
    }

    /// Moves the bytes out of the message if they are many, so that the message can be sent at
    /// once, and the bytes after it.
    pub(crate) fn move_bulk(&mut self) -> io::Result<Option<Sending>> {
        let Body::Here(Bytes(bytes)) = &mut self.bytes else { return Ok(None) };
        let length = bytes.len();
        if length <= AT_ONCE {
            return Ok(None);
        }
        let (sending, end) = Sending::new(mem::take(bytes))?;
        self.bytes = Body::Bulk { end: end.into(), length };
        Ok(Some(sending))
    }

    pub(crate) fn decode<T: DeserializeOwned>(self) -> Result<T, String> {
        let descriptors = self.descriptors.into_iter().map(Into::into).collect();
        let value = match self.bytes {
            Body::Here(Bytes(bytes)) => message::decode(&bytes, descriptors),
            Body::Bulk { end, length } => {
                let bytes =
                    Received::read(end.into(), length).map_err(|error| error.to_string())?;
                message::decode(&bytes, descriptors)
            }
        };
        value.map_err(|error| error.reason().to_owned())
    }
}

/// What a child has to run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Start {
    /// The function, as a distance within the executable: see [`crate::bootstrap`].
    pub(crate) entry: usize,
    /// The initialisers, likewise.
    pub(crate) on_start: Vec<usize>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) identity: Identity,
    pub(crate) args: Encoded,
}

/// The outcome of the function.
#[derive(Serialize, Deserialize)]
pub(crate) enum Outcome {
    Returned(Encoded),
    Panicked(Panic),
    /// An initialiser returned an error.
    NotStarted(RemoteError),
    /// The arguments could not be decoded in the child, or its limits not be set.
    ArgumentsLost(String),
    /// The result could not be encoded in the child.
    ResultLost(String),
}

impl Outcome {
    pub(crate) fn returned<R: Serialize>(result: &R) -> Self {
        match Encoded::new(result) {
            Ok(encoded) => Self::Returned(encoded),
            Err(error) => Self::ResultLost(error.to_string()),
        }
    }

    pub(crate) fn arguments_lost<A>(reason: &str) -> Self {
        Self::ArgumentsLost(format!(
            "cannot decode the arguments as `{}`: {reason}",
            type_name::<A>()
        ))
    }
}

/// What is known about a panic.
#[derive(Serialize, Deserialize)]
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) location: String,
    pub(crate) backtrace: Option<String>,
}

impl Panic {
    pub(crate) fn new(message: String, location: String, backtrace: &Backtrace) -> Self {
        let is_captured = backtrace.status() == BacktraceStatus::Captured;
        Self { message, location, backtrace: is_captured.then(|| backtrace.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_is_parsed_as_it_was_written() {
        for keep in [vec![], vec![3], vec![5, 4]] {
            for inherits in
                [Inherits { any: false, below: 0 }, Inherits { any: true, below: RawFd::MAX }]
            {
                for (descriptor, ignores_sigint) in [(0, false), (7, true)] {
                    let (copy, socket, keep) = (4096, u64::MAX, keep.clone());
                    let mark = Mark { copy, socket, descriptor, ignores_sigint, inherits, keep };
                    assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
                }
            }
        }
        let texts = [
            "",
            "1",
            "1:2",
            "1:2:0:0:0",
            "1:-2:0:0:0:3",
            "1:2:-1:0:0:3",
            "1:2:0:0:0:3:",
            "1:2:0:0:0:x",
            " 1:2:0:0:0:3",
            "1 2 0 0 0 3",
        ];
        for text in texts {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }
}
