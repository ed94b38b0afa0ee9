//! The mapping of a region. Opens `unsafe` to make it and to view what is in it.
#![allow(unsafe_code)]

use std::io;
use std::mem::{align_of, size_of};
use std::os::fd::AsFd;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MlockFlags, MprotectFlags, ProtFlags, madvise, mlock_with, mmap,
    mmap_anonymous, mprotect, munmap,
};
use rustix::process::{Resource, getrlimit};

use super::layout::{Layout, PAGE};
use super::placed::Atomic;

const MAP_FLAGS: MapFlags = MapFlags::SHARED.union(MapFlags::NORESERVE);

/// Whether new mappings of this process are locked into memory as a whole (mlockall(2), MCL_FUTURE).
/// The kernel does not say so, but makes a fresh page resident only then.
fn locks_new_mappings() -> bool {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place, so nothing that is mapped already is touched.
    let page = unsafe { mmap_anonymous(std::ptr::null_mut(), PAGE, access, MapFlags::PRIVATE) };
    let Ok(page) = page else {
        // Locked memory is limited; the mapping that follows reports what is missing.
        return true;
    };
    let mut is_resident = 0u8;
    // SAFETY: mincore(2) writes one byte for each page, and the mapping is one page.
    let result = unsafe { libc::mincore(page, PAGE, &raw mut is_resident) };
    // SAFETY: mapped above, and used by nobody else.
    let _ = unsafe { munmap(page, PAGE) };
    result == 0 && is_resident & 1 != 0
}

/// Why there is no mapping, with the limit that is to be raised.
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

/// A mapping of a whole file. Unmapped when dropped.
pub(super) struct Mapping {
    pub(super) start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    pub(super) fn new(descriptor: impl AsFd, len: usize) -> io::Result<Self> {
        // Under mlockall(MCL_FUTURE) the kernel would make all of a readable mapping resident at
        // once, however little of it is used. So it is made inaccessible, and opened afterwards.
        let is_locked = locks_new_mappings();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let protection = if is_locked { ProtFlags::empty() } else { access };
        // SAFETY: the kernel chooses the place, so nothing that is mapped already is touched.
        let start =
            unsafe { mmap(std::ptr::null_mut(), len, protection, MAP_FLAGS, descriptor, 0) };
        let start = start.map_err(|error| cannot_map(error, len))?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Self { start, len };
        if is_locked {
            // What the program has asked for stays true of each page that is touched.
            // SAFETY: exactly the mapping made above, which nobody has seen yet.
            unsafe { mlock_with(start.as_ptr().cast(), len, MlockFlags::ONFAULT) }
                .map_err(|error| cannot_map(error, len))?;
            // SAFETY: as above.
            unsafe {
                mprotect(start.as_ptr().cast(), len, MprotectFlags::READ | MprotectFlags::WRITE)
            }?;
        }
        mapping.leave_out_of_core_dumps();
        Ok(mapping)
    }

    fn leave_out_of_core_dumps(&self) {
        // SAFETY: exactly this mapping; the advice changes nothing but core dumps. If it fails, a core
        // dump is larger, no more.
        let _ = unsafe { madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxDontDump) };
    }

    /// Maps the same file through another open file description, at the same address: the mapping then
    /// keeps that description alive, and no longer the one before.
    pub(super) fn replace(&self, descriptor: impl AsFd) -> io::Result<()> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MAP_FLAGS | MapFlags::FIXED;
        let address = self.start.as_ptr().cast();
        // SAFETY: exactly this mapping is replaced, in one step, by one of the same memory, so every
        // view of it stays valid.
        unsafe { mmap(address, self.len, access, flags, descriptor, 0) }?;
        self.leave_out_of_core_dumps();
        Ok(())
    }

    /// Gives the memory of whole pages back: they are zero from then on.
    pub(super) fn remove(&self, offset: usize, len: usize) -> io::Result<()> {
        assert!(offset <= self.len && len <= self.len - offset, "checked by the caller");
        // SAFETY: in range by the assertion, so in one allocation.
        let start = unsafe { self.start.add(offset) };
        // SAFETY: in this mapping, which is shared memory: others may write it at any time, too, and
        // every access here allows for that.
        Ok(unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxRemove) }?)
    }

    /// A view of the atomics at `offset`.
    #[inline]
    pub(super) fn view<T>(&self, offset: usize) -> &T {
        assert!(offset.is_multiple_of(align_of::<T>()), "regions are mapped at pages");
        assert!(offset + size_of::<T>() <= self.len, "the size was checked when it was mapped");
        // SAFETY: in range by the assertion, so in one allocation.
        let start = unsafe { self.start.add(offset) };
        // SAFETY: mapped for the lifetime of `self`, aligned, in range; every `T` used here (header,
        // member table, `Control`, which is `Placed`) is made of atomics, which may be changed by others at any time
        // and are valid with any bits. The file cannot shrink below it: it is sealed.
        unsafe { start.cast::<T>().as_ref() }
    }

    /// The data as atomics.
    pub(super) fn data_as<T: Atomic>(&self, Layout { data, data_len, size, .. }: Layout) -> &[T] {
        assert!(size <= self.len, "the size was checked when it was mapped");
        // SAFETY: `Layout` puts the data into the size of the region, which is mapped.
        let start = unsafe { self.start.add(data) };
        // SAFETY: mapped for the lifetime of `self`; at a multiple of 64, so aligned; atomics may be
        // changed by others at any time and are valid with any bits.
        unsafe { std::slice::from_raw_parts(start.cast().as_ptr(), data_len / size_of::<T>()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and every view of it has ended: they borrow from `self`.
        let result = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "munmap of a whole mapping cannot fail");
    }
}

// SAFETY: the memory is shared with other processes anyhow; all access is through atomics, or
// through `Bytes`, which copies.
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}
