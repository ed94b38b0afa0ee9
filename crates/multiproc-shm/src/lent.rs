//! The receiver's side of a lent segment: copies out of it.
//!
//! The sender can continue to write, so there is never a reference to lent memory. Mapping a
//! segment for each message would cost more than the copy (page faults), so the mappings of the
//! last few are kept. A mapping keeps its file alive and therefore its inode number: a descriptor
//! with that number refers to the same file. Seals are never removed, so what was checked before
//! the mapping was made still holds.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{OFlags, SealFlags, fstat};
use rustix::mm::{MapFlags, ProtFlags};

use crate::mapping::Mapping;
use crate::memfd;

/// The maximum number of mappings that are kept.
const MAX_KEPT: usize = 16;
/// The maximum number of bytes in all of them.
const MAX_KEPT_BYTES: usize = 256 * 1024 * 1024;

/// The file cannot become shorter, and no hole can be punched into it, now or later.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::FUTURE_WRITE);

/// Device and inode.
type Key = (u64, u64);

/// Ordered by last use, the most recent last.
static KEPT: Mutex<Vec<(Key, Arc<Mapping>)>> = Mutex::new(Vec::new());

/// Copies the first `len` bytes out of the segment that another process has lent, and returns the
/// segment by closing the descriptor.
///
/// # Errors
///
/// If the descriptor is not a memfd, lacks a seal, is shorter than `len` or has holes, or if there
/// is no memory for the copy.
pub fn receive(descriptor: OwnedFd, len: u64) -> io::Result<Vec<u8>> {
    let mapping = mapping_of(&descriptor)?;
    let count = usize::try_from(len).ok().filter(|&len| len <= mapping.len());
    let Some(count) = count else {
        let size = mapping.len();
        return Err(memfd::invalid(format!("expected {len} bytes of shared memory, got {size}")));
    };
    mapping.copy_out(count)
}

fn mapping_of(descriptor: &OwnedFd) -> io::Result<Arc<Mapping>> {
    let stat = fstat(descriptor)?;
    let key = (stat.st_dev, stat.st_ino);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(index) = kept.iter().rposition(|(known, _)| *known == key) {
        kept[index..].rotate_left(1);
        return Ok(Arc::clone(&kept[kept.len() - 1].1));
    }
    drop(kept);

    let size = memfd::check(descriptor, SEALS)?;
    let flags = MapFlags::SHARED | MapFlags::POPULATE;
    // A mapping keeps the open file description that it was made from, and the lock of this one
    // marks the segment as lent. So a mapping that is kept needs another description. Without
    // /proc, none is kept.
    let own =
        (size <= MAX_KEPT_BYTES).then(|| memfd::reopen(descriptor, OFlags::RDONLY).ok()).flatten();
    let file = own.as_ref().unwrap_or(descriptor);
    let mapping = Arc::new(Mapping::new(file, size, ProtFlags::READ, flags)?);
    if own.is_some() {
        // Evicted mappings are unmapped after the mutex was released.
        let _gone = keep(key, &mapping);
    }
    Ok(mapping)
}

/// Keeps a mapping and returns those that it evicts.
fn keep(key: Key, mapping: &Arc<Mapping>) -> Vec<(Key, Arc<Mapping>)> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    // Another thread may have added it.
    if kept.iter().any(|(known, _)| *known == key) {
        return Vec::new();
    }
    kept.push((key, Arc::clone(mapping)));
    let bytes = |kept: &[(Key, Arc<Mapping>)]| kept.iter().map(|(_, it)| it.len()).sum::<usize>();
    let is_too_much = |kept: &[_]| kept.len() > MAX_KEPT || bytes(kept) > MAX_KEPT_BYTES;
    let too_many = (0..kept.len()).take_while(|&n| is_too_much(&kept[n..])).count();
    kept.drain(..too_many).collect()
}
