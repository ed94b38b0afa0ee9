//! Bytes that can never change again. Opens `unsafe` to refer to them.
#![allow(unsafe_code)]

use std::fmt;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::mm::{MapFlags, ProtFlags};

use crate::mapping::Mapping;
use crate::memfd;

/// Nobody can write it, cut it, or lengthen it, for ever.
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// Bytes in a memfd that is sealed: whoever has its descriptor reads the same bytes, for ever.
pub struct Sealed {
    descriptor: OwnedFd,
    mapping: Mapping,
}

impl Sealed {
    /// A copy of `bytes`.
    ///
    /// # Errors
    ///
    /// As for [`Writer`].
    pub fn copy_from(bytes: &[u8]) -> io::Result<Self> {
        let mut writer = Writer::new()?;
        writer.write_all(bytes)?;
        writer.finish()
    }

    /// Takes a descriptor that came from elsewhere, and should have `len` bytes.
    ///
    /// # Errors
    ///
    /// If it is no memfd, or lacks a seal, or has another size, or holes; or if there is no address space
    /// for it.
    pub fn open(descriptor: OwnedFd, len: u64) -> io::Result<Self> {
        let size = memfd::check(&descriptor, SEALS)?;
        if size as u64 != len {
            return Err(memfd::invalid(format!(
                "expected {len} bytes of shared memory, got {size}"
            )));
        }
        Self::map(descriptor, size)
    }

    /// The descriptor has `SEALS` and this size.
    fn map(descriptor: OwnedFd, size: usize) -> io::Result<Self> {
        // Private, which is the same where nobody can write: before Linux 6.7 a file that is sealed
        // against writing cannot be mapped shared, not even to read.
        let mapping = Mapping::new(&descriptor, size, ProtFlags::READ, MapFlags::PRIVATE)?;
        Ok(Self { descriptor, mapping })
    }
}

impl Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: readable, see `map`. The file is a memfd with F_SEAL_WRITE, which the kernel gives
        // only while no writable mapping exists in any process, and never takes back: from then on
        // it refuses every write, writable mapping and hole. With F_SEAL_SHRINK it stays as long.
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

/// Makes a [`Sealed`], piece by piece. Each `write` is one system call.
///
/// When memory runs out, or the file gets longer than RLIMIT_FSIZE allows, `write` is an error.
#[derive(Debug)]
pub struct Writer {
    descriptor: OwnedFd,
    len: u64,
}

impl Writer {
    /// Of no bytes so far.
    ///
    /// # Errors
    ///
    /// If the process or the system has no descriptors or memory left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { descriptor: memfd::create(memfd::BYTES)?, len: 0 })
    }

    /// Seals what was written.
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
