//! Megabytes as a field of a message, which does not hold them.

use std::fmt;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};

use multiproc_shm::{Sealed, Writer, receive};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::shared_pool::Filled;
use multiproc_message::Descriptor;

/// Bytes that cross to another process in shared memory: the message holds a descriptor only, and
/// so it needs a connection that carries descriptors ([`duplex`](crate::duplex)), or to be an
/// argument of a process.
///
/// It reads as a slice, and nobody can change it, or cut it. A clone is another handle to the same bytes.
///
/// # Which one
///
/// | made by | sending it | receiving it | best for |
/// |---|---|---|---|
/// | [`builder`](Self::builder), [`copy_from`](Self::copy_from) | nothing is copied | nothing is copied | one buffer for many receivers, or that is kept |
/// | [`SharedPool`](crate::SharedPool) | nothing is copied | is copied once | a stream of buffers: memory is used again |
/// | `SharedBytes::from(vec)` | the first time, is copied once | nothing is copied | what is in a vector anyhow |
///
/// Memory that was sealed for good cannot be used again, and the kernel gives out fresh memory slowly:
/// it takes many times as long as a copy. So for a stream a pool is much faster; and small ones are best
/// sent as [`Bytes`](crate::Bytes), which take no descriptor. What was received from a pool lies in memory
/// of this process, and is sent on as what was made from a vector.
///
/// ```
/// use multiproc_pipe::{SharedBytes, duplex};
/// use std::io::Write;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut writer = SharedBytes::builder()?;
/// for n in 0..100_000_u32 {
///     writer.write_all(&n.to_le_bytes())?; // a BufWriter would make that faster
/// }
/// let numbers = writer.finish()?;
///
/// let (left, right) = duplex::<SharedBytes, ()>()?;
/// left.send(numbers.clone())?;
/// let received = right.recv()?;
/// assert_eq!(received[4..8], 1_u32.to_le_bytes());
/// assert_eq!(received, numbers);
/// # Ok(())
/// # }
/// ```
///
/// # When the other side dies
///
/// Whoever has a handle has the bytes, whoever else dies. They are gone with the last handle and the
/// last message that holds one.
///
/// # A sender that is not trusted
///
/// On arrival the memory is checked to have the size it should have, to be all there and to be sealed;
/// if not, receiving it is a decode error that says what is missing. What a pool has sent is
/// copied on arrival, so a sender that goes on writing does not change what was received.
#[derive(Clone)]
pub struct SharedBytes(Arc<Content>);

enum Content {
    /// Shared, for good.
    Sealed(Sealed),
    /// Of a pool of this process.
    Filled(Filled),
    /// In this process alone. Once it has been sent, there is a copy to be sent again.
    Private { bytes: Vec<u8>, sealed: OnceLock<Sealed> },
}

/// What is in the message.
#[derive(Serialize, Deserialize)]
enum Wire {
    Sealed { len: u64, memory: Descriptor },
    Lent { len: u64, memory: Descriptor },
}

impl SharedBytes {
    /// Makes one from what will be written.
    ///
    /// # Errors
    ///
    /// If the process or the system has no descriptors or memory left.
    pub fn builder() -> io::Result<SharedBytesWriter> {
        Writer::new().map(SharedBytesWriter)
    }

    /// Makes one that holds a copy of `bytes`, in shared memory.
    ///
    /// # Errors
    ///
    /// If the process or the system has no descriptors or memory left, or the bytes are longer than a
    /// file may be (RLIMIT_FSIZE).
    pub fn copy_from(bytes: &[u8]) -> io::Result<Self> {
        Sealed::copy_from(bytes).map(Self::sealed)
    }

    fn sealed(sealed: Sealed) -> Self {
        Self(Arc::new(Content::Sealed(sealed)))
    }

    pub(crate) fn filled(filled: Filled) -> Self {
        Self(Arc::new(Content::Filled(filled)))
    }

    /// The bytes as a vector: a copy, unless they lie in one that no other handle has.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        match Arc::try_unwrap(self.0) {
            Ok(Content::Private { bytes, .. }) => bytes,
            Ok(content) => content.bytes().to_vec(),
            Err(shared) => shared.bytes().to_vec(),
        }
    }
}

impl Content {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Sealed(sealed) => sealed,
            Self::Filled(filled) => filled.bytes(),
            Self::Private { bytes, .. } => bytes,
        }
    }

    fn to_wire(&self) -> io::Result<Wire> {
        let sealed = match self {
            Self::Sealed(sealed) => sealed,
            Self::Filled(filled) => {
                return Ok(Wire::Lent {
                    len: filled.bytes().len() as u64,
                    memory: filled.lend()?.into(),
                });
            }
            Self::Private { bytes, sealed } => match sealed.get() {
                Some(sealed) => sealed,
                None => {
                    let new = Sealed::copy_from(bytes)?;
                    sealed.get_or_init(|| new)
                }
            },
        };
        let copy = sealed.as_fd().try_clone_to_owned()?;
        Ok(Wire::Sealed { len: sealed.len() as u64, memory: copy.into() })
    }

    fn from_wire(wire: Wire) -> io::Result<Self> {
        match wire {
            Wire::Sealed { len, memory } => Sealed::open(memory.into(), len).map(Self::Sealed),
            Wire::Lent { len, memory } => receive(memory.into(), len).map(Self::from),
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Private { bytes, sealed: OnceLock::new() }
    }
}

impl Serialize for SharedBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wire = self.0.to_wire().map_err(|error| {
            let reason = format!("its shared bytes cannot be sent: {error}");
            serde::ser::Error::custom(reason)
        })?;
        wire.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let content = Content::from_wire(Wire::deserialize(deserializer)?)
            .map_err(serde::de::Error::custom)?;
        Ok(Self(Arc::new(content)))
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// The length, and no more: there may be megabytes.
impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.len())
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || **self == **other
    }
}

impl Eq for SharedBytes {}

impl From<Vec<u8>> for SharedBytes {
    /// The bytes stay where they are until it is sent.
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes.into()))
    }
}

impl From<SharedBytes> for Vec<u8> {
    fn from(bytes: SharedBytes) -> Self {
        bytes.into_vec()
    }
}

/// Makes a [`SharedBytes`] out of what is written. Made by [`SharedBytes::builder`].
///
/// Each `write` is one system call: put a [`BufWriter`](io::BufWriter) in front of small ones. If memory
/// runs out, or it gets longer than a file may be (RLIMIT_FSIZE), writing is an error.
#[derive(Debug)]
pub struct SharedBytesWriter(Writer);

impl SharedBytesWriter {
    /// Seals what was written.
    ///
    /// # Errors
    ///
    /// If there is no address space left for it.
    pub fn finish(self) -> io::Result<SharedBytes> {
        self.0.finish().map(SharedBytes::sealed)
    }
}

impl Write for SharedBytesWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
