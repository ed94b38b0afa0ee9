//! Mappings of whole files. Opens `unsafe` to make and end them, and to read and copy what is there.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping of the first `len` bytes of a file. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// The kernel has no mappings of no bytes; then this is none.
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
        let start = start.map_err(|error| {
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("{len} bytes of memory cannot be mapped: {error}"))
        })?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What is there.
    ///
    /// # Safety
    ///
    /// It is mapped readable, and while the slice lives, nobody in any process writes it, and the
    /// file does not shrink.
    pub(crate) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for the lifetime of `self`, in full length; the rest is the contract above.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// What is there, to be written.
    ///
    /// # Safety
    ///
    /// It is mapped writable, and while the slice lives, nobody in any process writes it, nobody in
    /// this one reads it by another mapping, and the file does not shrink.
    pub(crate) unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// A copy of the first `count` bytes, which other processes may write meanwhile: there is never a
    /// reference to them, and a copy that races with a hostile writer is some mix of bytes.
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    ///
    /// # Panics
    ///
    /// If there are not so many.
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

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: mapped by `new`, and every view of it has ended: they borrow from `self`.
            let result = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
            debug_assert!(result.is_ok(), "munmap of a whole mapping cannot fail");
        }
    }
}

// SAFETY: an address and a length, which belong to no thread; what is there is read and written by
// `&self` and `&mut self` as a vector would be.
unsafe impl Send for Mapping {}
// SAFETY: by `&self` it is only read.
unsafe impl Sync for Mapping {}
