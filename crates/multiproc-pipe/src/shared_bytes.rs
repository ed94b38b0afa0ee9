//! Large byte buffers in shared memory as a field of a message.

use std::fmt;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};

use multiproc_shm::{Sealed, Writer, receive};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::shared_pool::Filled;
use multiproc_message::Descriptor;

/// Bytes that are sent to another process in shared memory.
///
/// The message contains only a descriptor, so it needs a connection that carries descriptors
/// ([`duplex`](crate::duplex)) or must be an argument of a process. It dereferences to a slice, and
/// no process can change or shorten the bytes. A clone is another handle to the same bytes.
///
/// # Which one
///
/// | created by | sending | receiving | best for |
/// |---|---|---|---|
/// | [`builder`](Self::builder), [`copy_from`](Self::copy_from) | no copy | no copy | one buffer for many receivers, or one that is kept |
/// | [`SharedPool`](crate::SharedPool) | no copy | one copy | a stream of buffers, since memory is reused |
/// | `SharedBytes::from(vec)` | one copy the first time | no copy | data that is in a vector already |
///
/// Sealed memory cannot be reused, and new memory from the kernel takes many times as long as a
/// copy. A pool is therefore much faster for a stream. Small buffers are best sent as
/// [`Bytes`](crate::Bytes), which need no descriptor. Bytes that were received from a pool lie in
/// private memory and are sent on like those from a vector.
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
/// A process that has a handle keeps the bytes, whichever other process dies. They are freed with
/// the last handle and the last message that contains one.
///
/// # A sender that is not trusted
///
/// On arrival the memory is checked: it must have the stated size, no holes, and be sealed.
/// Otherwise receiving returns a decode error that names the reason. Bytes from a pool are copied
/// on arrival, so a sender that continues to write does not change what was received.
#[doc(alias = "memfd_create")]
#[doc(alias = "SharedMemory")]
#[derive(Clone)]
pub struct SharedBytes(Arc<Content>);

enum Content {
    /// Sealed shared memory.
    Sealed(Sealed),
    /// Memory of a pool of this process.
    Filled(Filled),
    /// Private memory. Once it has been sent, a shared copy is kept for sending it again.
    Private { bytes: Vec<u8>, sealed: OnceLock<Sealed> },
}

/// The content of the message.
#[derive(Serialize, Deserialize)]
enum Wire {
    Sealed { len: u64, memory: Descriptor },
    Lent { len: u64, memory: Descriptor },
}

impl SharedBytes {
    /// Returns a writer for bytes in shared memory.
    ///
    /// # Errors
    ///
    /// If the process or the system has no descriptors or memory left.
    ///
    /// ```
    /// use multiproc_pipe::SharedBytes;
    /// use std::io::{BufWriter, Write};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut writer = BufWriter::new(SharedBytes::builder()?);
    /// for n in 0..1000_u32 {
    ///     writer.write_all(&n.to_le_bytes())?;
    /// }
    /// let bytes = writer.into_inner()?.finish()?;
    /// assert_eq!(bytes.len(), 4000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> io::Result<SharedBytesWriter> {
        Writer::new().map(SharedBytesWriter)
    }

    /// Creates a copy of `bytes` in shared memory.
    ///
    /// # Errors
    ///
    /// If the process or the system has no descriptors or memory left, or the bytes are longer than
    /// a file may be (RLIMIT_FSIZE).
    ///
    /// ```
    /// use multiproc_pipe::{SharedBytes, duplex};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bytes = SharedBytes::copy_from(&[1; 100_000])?;
    /// let (left, right) = duplex::<SharedBytes, ()>()?;
    /// left.send(bytes.clone())?; // the handle stays usable, and the bytes are not copied
    /// assert_eq!(right.recv()?, bytes);
    /// # Ok(())
    /// # }
    /// ```
    pub fn copy_from(bytes: &[u8]) -> io::Result<Self> {
        Sealed::copy_from(bytes).map(Self::sealed)
    }

    fn sealed(sealed: Sealed) -> Self {
        Self(Arc::new(Content::Sealed(sealed)))
    }

    pub(crate) fn filled(filled: Filled) -> Self {
        Self(Arc::new(Content::Filled(filled)))
    }

    /// Returns the bytes as a vector. Copies them unless they lie in a vector that no other handle
    /// shares.
    ///
    /// ```
    /// use multiproc_pipe::SharedBytes;
    ///
    /// let bytes = SharedBytes::from(vec![1, 2, 3]);
    /// assert_eq!(bytes.into_vec(), [1, 2, 3]); // the same vector
    /// ```
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

/// Prints the length only, since there may be megabytes.
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
    /// Keeps the bytes in the vector until they are sent.
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes.into()))
    }
}

impl From<SharedBytes> for Vec<u8> {
    fn from(bytes: SharedBytes) -> Self {
        bytes.into_vec()
    }
}

/// Writes a [`SharedBytes`]. Created by [`SharedBytes::builder`].
///
/// Each `write` is one system call: use a [`BufWriter`](io::BufWriter) for small ones. Writing
/// returns an error if memory runs out or the file would exceed RLIMIT_FSIZE.
#[derive(Debug)]
pub struct SharedBytesWriter(Writer);

impl SharedBytesWriter {
    /// Seals the written bytes.
    ///
    /// # Errors
    ///
    /// If there is no address space left for it.
    ///
    /// ```
    /// use multiproc_pipe::SharedBytes;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut writer = SharedBytes::builder()?;
    /// std::io::copy(&mut &b"from a file"[..], &mut writer)?;
    /// assert_eq!(&*writer.finish()?, b"from a file");
    /// # Ok(())
    /// # }
    /// ```
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
