//! Segments: shared memory that is lent to other processes and used again.
//!
//! Contains `unsafe` for references to it.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, OFlags, SealFlags, fallocate, fcntl_add_seals};
use rustix::io::retry_on_intr;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::system::sysinfo;

use crate::mapping::Mapping;
use crate::{memfd, ofd_lock as lock};

/// The size is fixed, and no new way to write the file can be obtained.
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

/// Shared memory that this process alone can write. [`freeze`](Self::freeze) it to lend it.
///
/// ```
/// use multiproc_shm::{Segment, receive};
///
/// # fn main() -> std::io::Result<()> {
/// let mut segment = Segment::create(4096)?;
/// segment.bytes_mut()[..4].copy_from_slice(b"lent");
/// let frozen = segment.freeze();
/// // What another process does with the descriptor, which it closes:
/// assert_eq!(receive(frozen.lend()?, 4)?, b"lent");
/// let _segment = frozen.thaw().expect("it was returned");
/// # Ok(())
/// # }
/// ```
pub struct Segment {
    descriptor: OwnedFd,
    mapping: Mapping,
}

impl Segment {
    /// Creates a segment of `len` bytes, all 0. Its memory is allocated here, so touching it cannot
    /// fail.
    ///
    /// # Errors
    ///
    /// If the memory is not available, RLIMIT_FSIZE is smaller, or no descriptors are left.
    pub fn create(len: usize) -> io::Result<Self> {
        memfd::check_limit(len as u64)?;
        check_memory(len)?;
        let descriptor = memfd::create(memfd::BYTES)?;
        if len > 0 {
            let reserve = || fallocate(&descriptor, FallocateFlags::empty(), 0, len as u64);
            retry_on_intr(reserve)?;
        }
        // Populated at once, which is faster than page by page, and shows borrowers that there is
        // no hole.
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        let mapping = Mapping::new(&descriptor, len, ProtFlags::READ | ProtFlags::WRITE, flags)?;
        fcntl_add_seals(&descriptor, SEALS)?;
        Ok(Self { descriptor, mapping })
    }

    /// Returns the bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: readable, see `create`. No other process had the descriptor before
        // F_SEAL_FUTURE_WRITE, so this mapping is the only way to write, through `bytes_mut`, which
        // borrows `self`. F_SEAL_SHRINK keeps the length.
        unsafe { self.mapping.bytes() }
    }

    /// Returns the bytes for writing.
    #[inline]
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: writable, see `create`. No one else writes, for the reason in `bytes`. Only
        // borrowers map it as well, and there are none: only a `Frozen` is lent, and `thaw`
        // checks.
        unsafe { self.mapping.bytes_mut() }
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Returns `true` if there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the segment read-only, so that it can be lent.
    #[must_use]
    pub fn freeze(self) -> Frozen {
        Frozen(self)
    }
}

/// Refuses more memory than the machine has. The kernel would allocate all it has before it
/// noticed, and by then the OOM killer has killed a process.
fn check_memory(len: usize) -> io::Result<()> {
    let system = sysinfo();
    let units = system.totalram.saturating_add(system.totalswap);
    let all = u128::from(units) * u128::from(system.mem_unit);
    if len as u128 > all {
        return Err(io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!("expected to reserve {len} bytes, and this machine has {all}"),
        ));
    }
    Ok(())
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({} bytes)", self.len())
    }
}

/// A [`Segment`] that can be lent and that no process writes.
#[derive(Debug)]
pub struct Frozen(Segment);

impl Frozen {
    /// Returns the bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a read-only descriptor for another process. The segment is lent until the last copy
    /// of that descriptor is closed: by [`receive`](crate::receive), by the death of the
    /// borrower, or with a message that was never received.
    ///
    /// # Errors
    ///
    /// If `/proc` is not mounted, or no descriptor is left.
    pub fn lend(&self) -> io::Result<OwnedFd> {
        let lent = memfd::reopen(&self.0.descriptor, OFlags::RDONLY)?;
        lock::try_lock(&lent, lock::Kind::Shared, 0)?;
        Ok(lent)
    }

    /// Returns `true` if a borrower still has it. One system call, about half a microsecond.
    #[must_use]
    pub fn is_lent(&self) -> bool {
        lock::is_locked(&self.0.descriptor, 0)
    }

    /// Makes the segment writable again.
    ///
    /// # Errors
    ///
    /// Returns `self` if it is still lent.
    pub fn thaw(self) -> Result<Segment, Self> {
        if self.is_lent() { Err(self) } else { Ok(self.0) }
    }
}
