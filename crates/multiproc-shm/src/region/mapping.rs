//! The mapping of a region, and views of what is in it.
//!
//! Contains `unsafe` for these views, and to find out whether memory is locked.
#![allow(unsafe_code)]

use std::io;
use std::mem::{align_of, size_of};
use std::os::fd::AsFd;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::layout::{Layout, PAGE};
use super::placed::{Atomic, Placed};
use crate::mapping::Mapping;
use crate::primitives::Bytes;

const FLAGS: MapFlags = MapFlags::SHARED.union(MapFlags::NORESERVE);

/// Returns `true` if new mappings of this process are locked into memory (mlockall(2), MCL_FUTURE).
/// The kernel does not report this, but makes a new page resident only then.
fn locks_new_mappings() -> bool {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place, so nothing that is mapped already is touched.
    let page = unsafe { mmap_anonymous(std::ptr::null_mut(), PAGE, access, MapFlags::PRIVATE) };
    let Ok(page) = page else {
        // The limit of locked memory is reached. The mapping that follows reports it.
        return true;
    };
    let mut is_resident = 0u8;
    // SAFETY: mincore(2) writes one byte for each page, and the mapping is one page.
    let result = unsafe { libc::mincore(page, PAGE, &raw mut is_resident) };
    // SAFETY: mapped above, and used by nobody else.
    let _ = unsafe { munmap(page, PAGE) };
    result == 0 && is_resident & 1 != 0
}

/// The memory of a region. Other processes may write it at any time, so there are only views of
/// atomics, and [`Bytes`], which copies.
pub(super) struct RegionMapping(Mapping);

impl RegionMapping {
    pub(super) fn new(descriptor: impl AsFd, len: usize) -> io::Result<Self> {
        // Under mlockall(MCL_FUTURE) the kernel would make all of a readable mapping resident at
        // once, however little of it is used. So it is mapped without access and opened afterwards,
        // with each page locked when it is first touched.
        let mapping = if locks_new_mappings() {
            let mapping = Mapping::new(descriptor, len, ProtFlags::empty(), FLAGS)?;
            mapping.open_locked_on_fault()?;
            mapping
        } else {
            Mapping::new(descriptor, len, ProtFlags::READ | ProtFlags::WRITE, FLAGS)?
        };
        mapping.leave_out_of_core_dumps();
        Ok(Self(mapping))
    }

    /// See [`Mapping::replace`].
    pub(super) fn replace(&self, descriptor: impl AsFd) -> io::Result<()> {
        self.0.replace(descriptor, FLAGS)?;
        self.0.leave_out_of_core_dumps();
        Ok(())
    }

    /// Returns the memory of whole pages to the system. They are zero from then on.
    pub(super) fn remove(&self, offset: usize, len: usize) -> io::Result<()> {
        self.0.remove(offset, len)
    }

    /// Returns a view of the atomics at `offset`.
    #[inline]
    pub(super) fn view<T: Placed>(&self, offset: usize) -> &T {
        assert!(offset.is_multiple_of(align_of::<T>()), "regions are mapped at pages");
        let start = self.0.at(offset, size_of::<T>());
        // SAFETY: mapped for the lifetime of `self`, aligned, in range; a `Placed` is made of
        // atomics, which may be changed by others at any time and are valid with any bits.
        // The file cannot shrink below it: it is sealed.
        unsafe { start.cast::<T>().as_ref() }
    }

    /// Returns the data as atomics.
    #[inline]
    pub(super) fn data_as<T: Atomic>(&self, Layout { data, data_len, .. }: Layout) -> &[T] {
        let start = self.0.at(data, data_len);
        // SAFETY: mapped for the lifetime of `self`; at a multiple of 64, so aligned; atomics may
        // be changed by others at any time and are valid with any bits.
        unsafe { std::slice::from_raw_parts(start.cast().as_ptr(), data_len / size_of::<T>()) }
    }

    /// Returns the data as bytes that are copied in and out.
    #[inline]
    pub(super) fn bytes(&self, Layout { data, data_len, .. }: Layout) -> Bytes<'_> {
        let start = self.0.at(data, data_len);
        // SAFETY: mapped for the lifetime of `self`; no view reaches into the data but that of
        // `data_as`, which is of atomics: those may be written by others, and so by copies from
        // here.
        unsafe { Bytes::new(start, data_len) }
    }
}
