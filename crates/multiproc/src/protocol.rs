//! What parent and child say to each other, over the socket that the child starts with as its
//! standard input.
//!
//! The parent sends one [`Start`]; the child sends one [`Outcome`], and the parent then waits for its
//! end. The socket is the child's lifeline, too: when the parent's end is closed, the parent is dead.

use std::any::type_name;
use std::fs::File;
use std::io::{self, Read, Seek, Write};

use multiproc_pipe::{Bytes, DecodeError, Descriptor, EncodeError, message};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Resource, getrlimit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::current::Identity;

/// Set in a child's environment, to the inode number of the socket that is its standard input: so a
/// variable that was set by hand, or is a left-over, is known as such.
pub(crate) const MARKER: &str = "MULTIPROC_CHILD";

/// What the socket takes at once, as a rule: more would keep the parent waiting for the child.
const AT_ONCE: usize = 64 * 1024;

/// A value that is encoded already, so that who carries it need not know its type.
#[derive(Serialize, Deserialize)]
pub(crate) struct Encoded {
    bytes: Body,
    descriptors: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
enum Body {
    Here(Bytes),
    /// In a memfd.
    Aside(Descriptor),
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

    /// Lays many bytes aside, so that the message with this in it can be sent without waiting for
    /// its receiver.
    pub(crate) fn lay_aside(&mut self) -> io::Result<()> {
        let Body::Here(Bytes(bytes)) = &self.bytes else { return Ok(()) };
        // A memfd that grows beyond the limit of file sizes would kill this process (SIGXFSZ).
        let is_too_large =
            getrlimit(Resource::Fsize).current.is_some_and(|n| n < bytes.len() as u64);
        if bytes.len() <= AT_ONCE || is_too_large {
            return Ok(());
        }
        let mut file = File::from(memfd_create("multiproc:arguments", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        file.rewind()?;
        self.bytes = Body::Aside(file.into());
        Ok(())
    }

    pub(crate) fn decode<T: DeserializeOwned>(self) -> Result<T, String> {
        let bytes = match self.bytes {
            Body::Here(Bytes(bytes)) => bytes,
            Body::Aside(file) => {
                let mut bytes = Vec::new();
                File::from(file).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
                bytes
            }
        };
        let descriptors = self.descriptors.into_iter().map(Into::into).collect();
        message::decode(&bytes, descriptors).map_err(|error: DecodeError| error.reason().to_owned())
    }
}

/// What a child is to do.
#[derive(Serialize, Deserialize)]
pub(crate) struct Start {
    /// The function, as a distance within the executable: see [`crate::bootstrap`].
    pub(crate) entry: usize,
    pub(crate) identity: Identity,
    pub(crate) args: Encoded,
}

/// What became of the function.
#[derive(Serialize, Deserialize)]
pub(crate) enum Outcome {
    Returned(Encoded),
    Panicked(Panic),
    /// The arguments could not be decoded in the child.
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
        Self::ArgumentsLost(format!("`{}`: {reason}", type_name::<A>()))
    }
}

/// What is known about a panic.
#[derive(Serialize, Deserialize)]
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) location: String,
    pub(crate) backtrace: Option<String>,
}
