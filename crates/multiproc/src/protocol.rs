//! What parent and child say to each other, over the socket that the child starts with as its
//! standard input.
//!
//! The parent sends one [`Start`]; the child sends one [`Outcome`], and the parent then waits for its
//! end. The socket is the child's lifeline, too: when the parent's end is closed, the parent is dead.

use std::any::type_name;

use multiproc_pipe::{Bytes, DecodeError, Descriptor, EncodeError, message};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Set in a child's environment, to the inode number of the socket that is its standard input: so a
/// variable that was set by hand, or is a left-over, is known as such.
pub(crate) const MARKER: &str = "MULTIPROC_CHILD";

/// A value that is encoded already, so that who carries it need not know its type.
#[derive(Serialize, Deserialize)]
pub(crate) struct Encoded {
    bytes: Bytes,
    descriptors: Vec<Descriptor>,
}

impl Encoded {
    pub(crate) fn new<T: Serialize>(value: &T) -> Result<Self, EncodeError> {
        let mut bytes = Vec::new();
        let descriptors = message::encode(value, &mut bytes)?;
        Ok(Self {
            bytes: Bytes(bytes),
            descriptors: descriptors.into_iter().map(Descriptor).collect(),
        })
    }

    pub(crate) fn decode<T: DeserializeOwned>(self) -> Result<T, DecodeError> {
        message::decode(&self.bytes.0, self.descriptors.into_iter().map(Into::into).collect())
    }
}

/// What a child is to do.
#[derive(Serialize, Deserialize)]
pub(crate) struct Start {
    /// The function, as a distance within the executable: see [`crate::bootstrap`].
    pub(crate) entry: usize,
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) args: Encoded,
}

/// What became of the function.
#[derive(Serialize, Deserialize)]
pub(crate) enum Outcome {
    Returned(Encoded),
    Panicked {
        message: String,
        location: String,
    },
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

    pub(crate) fn arguments_lost<A>(error: &DecodeError) -> Self {
        Self::ArgumentsLost(format!("`{}`: {}", type_name::<A>(), error.reason()))
    }
}
