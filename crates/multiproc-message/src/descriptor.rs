//! An open file as a field of a message.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::handles;

/// An open file, socket or any other descriptor, as a field of a message.
///
/// The receiver gets a descriptor of its own for the same open file (`SCM_RIGHTS`, see
/// [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html)). File offset and status flags are
/// shared, as after [dup(2)](https://man7.org/linux/man-pages/man2/dup.2.html). It is
/// close-on-exec.
///
/// Sending duplicates the descriptor, so the sender's own stays open until it is dropped. A
/// descriptor in a message that is never received is closed with the connection, also if the sender
/// was killed.
///
/// ```
/// use multiproc_pipe::{Descriptor, duplex};
/// use std::{fs::File, io::Read};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (left, right) = duplex::<Descriptor, ()>()?;
/// left.send(Descriptor::from(File::open("/dev/zero")?))?;
/// let mut bytes = [1; 4];
/// File::from(right.recv()?).read_exact(&mut bytes)?;
/// assert_eq!(bytes, [0; 4]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[doc(alias = "SCM_RIGHTS")]
#[doc(alias = "sendmsg")]
#[doc(alias = "DupFd")]
pub struct Descriptor(pub OwnedFd);

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let copy = self.0.try_clone().map_err(|error| {
            let reason = format!("a descriptor cannot be duplicated: {error}");
            serde::ser::Error::custom(reason)
        })?;
        handles::attach(copy, serializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        handles::claim(deserializer).map(Self)
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<File> for Descriptor {
    fn from(file: File) -> Self {
        Self(file.into())
    }
}

impl From<Descriptor> for OwnedFd {
    fn from(descriptor: Descriptor) -> Self {
        descriptor.0
    }
}

impl From<Descriptor> for File {
    fn from(descriptor: Descriptor) -> Self {
        descriptor.0.into()
    }
}
