//! Sealed bytes: shared memory that can never change again.
//!
//! Contains `unsafe` for references to them.
#![allow(unsafe_code)]

use std::fmt;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::mm::{MapFlags, ProtFlags};

use crate::mapping::Mapping;
use crate::memfd;

/// The file can never again be written, shortened or lengthened (memfd seals, see fcntl(2)).
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// Bytes in a sealed memfd. Every process that has its descriptor reads the same bytes, without a
/// copy.
///
/// The bytes outlive the process that wrote them, as long as any process has the descriptor.
///
/// ```
/// use multiproc_shm::Sealed;
/// use std::os::fd::AsFd;
///
/// # fn main() -> std::io::Result<()> {
/// let sealed = Sealed::copy_from(b"read only")?;
/// // What another process does with a copy of the descriptor:
/// let same = Sealed::open(sealed.as_fd().try_clone_to_owned()?, 9)?;
/// assert_eq!(same.as_ref(), b"read only");
/// # Ok(())
/// # }
/// ```
pub struct Sealed {
    descriptor: OwnedFd,
    mapping: Mapping,
}

impl Sealed {
    /// Creates a sealed copy of `bytes`.
    ///
    /// # Errors
    ///
    /// As for [`Writer`].
    pub fn copy_from(bytes: &[u8]) -> io::Result<Self> {
        let mut writer = Writer::new()?;
        writer.write_all(bytes)?;
        writer.finish()
    }

    /// Opens a received descriptor, which must have `len` bytes.
    ///
    /// # Errors
    ///
    /// If it is not a memfd, lacks a seal, has another size or has holes, or if there is no address
    /// space for it.
    pub fn open(descriptor: OwnedFd, len: u64) -> io::Result<Self> {
        let size = memfd::check(&descriptor, SEALS)?;
        if size as u64 != len {
            return Err(memfd::invalid(format!(
                "expected {len} bytes of shared memory, got {size}"
            )));
        }
        Self::map(descriptor, size)
    }

    /// Maps a descriptor that has `SEALS` and this size.
    fn map(descriptor: OwnedFd, size: usize) -> io::Result<Self> {
        // A private mapping is equivalent where no one can write. Before Linux 6.7 a file that is
        // sealed against writing cannot be mapped shared, not even for reading.
        let mapping = Mapping::new(&descriptor, size, ProtFlags::READ, MapFlags::PRIVATE)?;
        Ok(Self { descriptor, mapping })
    }
}

impl Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: readable, see `map`. The file is a memfd with F_SEAL_WRITE, which the kernel
        // grants only while no writable mapping exists in any process, and never removes:
        // from then on it refuses every write, writable mapping and hole. F_SEAL_SHRINK
        // keeps its length.
        unsafe { self.mapping.bytes() }
    }
}

impl AsRef<[u8]> for Sealed {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.len())
    }
}

/// Writes a [`Sealed`] piece by piece. Each `write` is one system call.
///
/// `write` returns an error if memory runs out or the file would become longer than RLIMIT_FSIZE.
#[derive(Debug)]
pub struct Writer {
    descriptor: OwnedFd,
    len: u64,
}

impl Writer {
    /// Creates a writer of no bytes so far.
    ///
    /// # Errors
    ///
    /// If the process or the system has no descriptors or memory left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { descriptor: memfd::create(memfd::BYTES)?, len: 0 })
    }

    /// Seals the written bytes.
    ///
    /// # Errors
    ///
    /// If there is no address space for it.
    pub fn finish(self) -> io::Result<Sealed> {
        fcntl_add_seals(&self.descriptor, SEALS)?;
        let size = usize::try_from(self.len).map_err(io::Error::other)?;
        Sealed::map(self.descriptor, size)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        memfd::check_limit(self.len + bytes.len() as u64)?;
        let count = rustix::io::write(&self.descriptor, bytes)?;
        self.len += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
