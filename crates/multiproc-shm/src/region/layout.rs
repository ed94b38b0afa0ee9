//! The layout of a region: offsets and sizes of its parts.

use std::mem::{align_of, size_of};
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::members::table::MemberTable;

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"multipr\0");
pub(super) const VERSION: u32 = 3;
pub(super) const CONTROL: usize = 128;

/// The start of every region. Written by the creator before any other process has it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU32,
    pub(super) kind: AtomicU32,
    pub(super) size: AtomicU64,
    pub(super) data_len: AtomicU64,
    /// Random, to identify this region.
    pub(super) id: [AtomicU64; 2],
}

const _: () = assert!(size_of::<Header>() <= CONTROL);

crate::placed!(Header { magic, version, kind, size, data_len, id });

/// The offsets and sizes of the parts of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) members: usize,
    pub(super) data: usize,
    pub(super) data_len: usize,
    pub(super) size: usize,
}

impl Layout {
    /// Returns the layout with control block `C` and `data_len` bytes of data, or `None` if that is
    /// more than can be mapped.
    pub(super) fn of<C>(data_len: usize) -> Option<Self> {
        const { assert!(align_of::<C>() <= CONTROL) };
        const TABLE: usize = size_of::<MemberTable>();
        let behind = (CONTROL + size_of::<C>()).next_multiple_of(64);
        let (members, data, end) = if data_len <= LITTLE {
            let members = (behind + data_len).next_multiple_of(64);
            (members, behind, members + TABLE)
        } else {
            let data = (behind + TABLE).next_multiple_of(PAGE);
            (behind, data, data.checked_add(data_len)?)
        };
        let size = end.checked_next_multiple_of(PAGE)?;
        isize::try_from(size).ok()?;
        Some(Self { members, data, data_len, size })
    }
}

/// Part of the format, independent of the machine's page size.
pub(super) const PAGE: usize = 4096;

/// Data of up to this size lies beside the control block, on a page that is touched in any case.
pub(super) const LITTLE: usize = 2048;
