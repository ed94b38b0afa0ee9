//! Memory that is lent to other processes, and used again. Opens `unsafe` to refer to it.
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

/// Its size stays, and nobody gets a new way to write it.
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

/// Memory that this process alone can write. [`freeze`](Self::freeze) it to lend it to others.
pub struct Segment {
    descriptor: OwnedFd,
    mapping: Mapping,
}

impl Segment {
    /// Of `len` bytes, all 0. Its memory is there when this returns, so touching it cannot fail.
    ///
    /// # Errors
    ///
    /// If there is not so much memory, or RLIMIT_FSIZE does not allow a file as long, or there are no
    /// descriptors left.
    pub fn create(len: usize) -> io::Result<Self> {
        memfd::check_limit(len as u64)?;
        check_memory(len)?;
        let descriptor = memfd::create(memfd::BYTES)?;
        if len > 0 {
            let reserve = || fallocate(&descriptor, FallocateFlags::empty(), 0, len as u64);
            retry_on_intr(reserve)?;
        }
        // Populated at once: that is quicker than page by page, and whoever it is lent to sees that
        // there is no hole in it.
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        let mapping = Mapping::new(&descriptor, len, ProtFlags::READ | ProtFlags::WRITE, flags)?;
        fcntl_add_seals(&descriptor, SEALS)?;
        Ok(Self { descriptor, mapping })
    }

    /// What is in it.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: readable, see `create`. Nobody else has had the descriptor before F_SEAL_FUTURE_WRITE,
        // so this mapping is the only way to write, and it does so by `bytes_mut`, which borrows
        // `self`. F_SEAL_SHRINK keeps the length.
        unsafe { self.mapping.bytes() }
    }

    /// What is in it, to be written.
    #[inline]
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: writable, see `create`; nobody else writes, by the reason in `bytes`. Only those it is
        // lent to map it as well, and it is lent to nobody: only a `Frozen` is, and `thaw` asks.
        unsafe { self.mapping.bytes_mut() }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same, to be lent, and written no more.
    #[must_use]
    pub fn freeze(self) -> Frozen {
        Frozen(self)
    }
}

/// Refuses what can never be there. Asked for it, the kernel would give all it has, and only then see
/// that this is not enough; and by then it has killed somebody.
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

/// A [`Segment`] that can be lent, and is written by nobody.
#[derive(Debug)]
pub struct Frozen(Segment);

impl Frozen {
    /// What is in it.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A descriptor for another process, to read. It is lent until the last copy of that descriptor is
    /// closed: by [`receive`](crate::receive), by a death, or with a message that nobody took.
    ///
    /// # Errors
    ///
    /// If there is no `/proc`, or no descriptor left.
    pub fn lend(&self) -> io::Result<OwnedFd> {
        let lent = memfd::reopen(&self.0.descriptor, OFlags::RDONLY)?;
        lock::try_lock(&lent, lock::Kind::Shared, 0)?;
        Ok(lent)
    }

    /// Whether anybody has it still. One system call, about half a microsecond.
    #[must_use]
    pub fn is_lent(&self) -> bool {
        lock::is_locked(&self.0.descriptor, 0)
    }

    /// The segment, to be written again.
    ///
    /// # Errors
    ///
    /// If it is lent: then it comes back.
    pub fn thaw(self) -> Result<Segment, Self> {
        if self.is_lent() { Err(self) } else { Ok(self.0) }
    }
}
