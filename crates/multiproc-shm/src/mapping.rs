//! The one wrapper around mmap(2): a mapping of a whole file.
//!
//! Contains `unsafe` to make and end mappings, and to read and copy what is in them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MlockFlags, MprotectFlags, ProtFlags, madvise, mlock_with, mmap, mprotect,
    munmap,
};
use rustix::process::{Resource, getrlimit};

/// A mapping of the first `len` bytes of a file. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// Regions are not part of the models.
#[cfg_attr(loom, allow(dead_code))]
impl Mapping {
    /// Maps the first `len` bytes. The kernel has no empty mappings, so 0 bytes are not mapped.
    pub(crate) fn new(
        descriptor: impl AsFd,
        len: usize,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self { start: NonNull::dangling(), len });
        }
        // SAFETY: the kernel chooses the place, so nothing that is mapped already is touched.
        let start = unsafe { mmap(ptr::null_mut(), len, protection, flags, descriptor, 0) };
        let start = start.map_err(|error| cannot_map(error, len))?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the address of the byte at `offset`.
    ///
    /// # Panics
    ///
    /// If `len` bytes from there on are not all in the mapping.
    #[inline]
    pub(crate) fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset <= self.len && len <= self.len - offset, "checked by the caller");
        // SAFETY: in range by the assertion, so in one allocation.
        unsafe { self.start.add(offset) }
    }

    /// Opens a mapping without access for reading and writing, and locks each page into memory when
    /// it is first touched.
    pub(crate) fn open_locked_on_fault(&self) -> io::Result<()> {
        let start = self.start.as_ptr().cast();
        // SAFETY: exactly this mapping. It has no access, so nothing has a view of it.
        unsafe { mlock_with(start, self.len, MlockFlags::ONFAULT) }
            .map_err(|error| cannot_map(error, self.len))?;
        // SAFETY: as above.
        Ok(unsafe { mprotect(start, self.len, MprotectFlags::READ | MprotectFlags::WRITE) }?)
    }

    /// Maps the same file through another open file description, at the same address, readable and
    /// writable. The mapping then keeps that description alive instead of the previous one.
    pub(crate) fn replace(&self, descriptor: impl AsFd, flags: MapFlags) -> io::Result<()> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let (address, flags) = (self.start.as_ptr().cast(), flags | MapFlags::FIXED);
        // SAFETY: exactly this mapping is replaced, in one step, by one of the same memory, so
        // every view of it stays valid.
        unsafe { mmap(address, self.len, access, flags, descriptor, 0) }?;
        Ok(())
    }

    pub(crate) fn leave_out_of_core_dumps(&self) {
        // SAFETY: exactly this mapping; the advice changes nothing but core dumps. If it fails, a
        // core dump is larger, no more.
        let _ = unsafe { madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxDontDump) };
    }

    /// Returns the memory of whole pages to the system. They are zero from then on. The mapping
    /// must be one that other processes may write at any time, so that nothing has a reference
    /// to its bytes.
    pub(crate) fn remove(&self, offset: usize, len: usize) -> io::Result<()> {
        let start = self.at(offset, len);
        // SAFETY: in this mapping, which is shared memory: others may write it at any time, too,
        // and every access here allows for that.
        Ok(unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxRemove) }?)
    }

    /// Returns the bytes.
    ///
    /// # Safety
    ///
    /// The mapping is readable, and while the slice lives, no process writes the bytes and the file
    /// does not shrink.
    pub(crate) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for the lifetime of `self`, in full length; the rest is the contract
        // above.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Returns the bytes for writing.
    ///
    /// # Safety
    ///
    /// The mapping is writable, and while the slice lives, no process writes the bytes, this
    /// process does not read them through another mapping, and the file does not shrink.
    pub(crate) unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Copies the first `count` bytes, which other processes may write meanwhile. There is never a
    /// reference to them, and a copy that races with a hostile writer is a mix of bytes.
    ///
    /// # Errors
    ///
    /// If there is no memory for the copy.
    ///
    /// # Panics
    ///
    /// If the mapping is shorter.
    pub(crate) fn copy_out(&self, count: usize) -> io::Result<Vec<u8>> {
        assert!(count <= self.len, "checked by the caller");
        let mut copy = Vec::<u8>::new();
        copy.try_reserve_exact(count)
            .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        // SAFETY: the source is mapped, every mapping here is readable, and in range by the
        // assertion; the target was reserved, and a vector of this process is not in the mapping.
        unsafe { self.start.as_ptr().copy_to_nonoverlapping(copy.as_mut_ptr(), count) };
        // SAFETY: reserved and initialised above.
        unsafe { copy.set_len(count) };
        Ok(copy)
    }
}

/// Returns the error of a failed mapping, with the limit that must be raised.
fn cannot_map(error: Errno, len: usize) -> io::Error {
    let limit = match error {
        Errno::NOMEM => (Resource::As, "address space", "RLIMIT_AS", "ulimit -v"),
        Errno::AGAIN | Errno::PERM => {
            (Resource::Memlock, "locked memory (after mlockall(2))", "RLIMIT_MEMLOCK", "ulimit -l")
        }
        error => return error.into(),
    };
    let (resource, what, name, command) = limit;
    match getrlimit(resource).current {
        Some(limit) => io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!(
                "{len} bytes of shared memory need as much {what}, and this process may have \
                 {limit} bytes in all ({name}, `{command}`): raise that limit"
            ),
        ),
        None => error.into(),
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: mapped by `new`, and every view of it has ended: they borrow from `self`.
            let result = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
            debug_assert!(result.is_ok(), "munmap of a whole mapping cannot fail");
        }
    }
}

// SAFETY: an address and a length, which belong to no thread. The bytes are read through `&self`
// and written through `&mut self`, as in a vector.
unsafe impl Send for Mapping {}
// SAFETY: by `&self` it is only read.
unsafe impl Sync for Mapping {}
