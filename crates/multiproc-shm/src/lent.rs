//! The other side of a segment that is lent: copies out of it.
//!
//! The sender can go on writing, so there is never a reference to what it lends. Mapping a segment
//! anew for each message would cost more than the copy (a page fault for each few pages), so the
//! mappings of the last few are kept. A mapping keeps its file alive, and with it the number of its
//! inode: a descriptor with that number is of the very same file. Seals are never taken back, so what
//! was checked before it was mapped still holds.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{OFlags, SealFlags, fstat};
use rustix::mm::{MapFlags, ProtFlags};

use crate::mapping::Mapping;
use crate::memfd;

/// So many mappings are kept at most, of so many bytes together.
const MAX_KEPT: usize = 16;
const MAX_KEPT_BYTES: usize = 256 * 1024 * 1024;

/// It cannot become shorter, and nobody can tear a hole into it, now or later.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::FUTURE_WRITE);

/// Device and inode.
type Key = (u64, u64);

/// The last one used is the last.
static KEPT: Mutex<Vec<(Key, Arc<Mapping>)>> = Mutex::new(Vec::new());

/// Copies the first `len` bytes out of what another process has lent, and gives it back by closing
/// the descriptor.
///
/// # Errors
///
/// If the descriptor is no memfd, or lacks a seal, or is shorter, or has holes; or if there is no
/// memory for the copy.
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
    // A mapping keeps the open file description that it was made from, and this one's lock says that
    // the segment is lent. So one that is kept needs another; without /proc, none is kept.
    let own =
        (size <= MAX_KEPT_BYTES).then(|| memfd::reopen(descriptor, OFlags::RDONLY).ok()).flatten();
    let file = own.as_ref().unwrap_or(descriptor);
    let mapping = Arc::new(Mapping::new(file, size, ProtFlags::READ, flags)?);
    if own.is_some() {
        // What goes is unmapped when the mutex is free again.
        let _gone = keep(key, &mapping);
    }
    Ok(mapping)
}

/// Keeps a mapping, and gives those that have to go for it.
fn keep(key: Key, mapping: &Arc<Mapping>) -> Vec<(Key, Arc<Mapping>)> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    // Another thread may have been quicker.
    if kept.iter().any(|(known, _)| *known == key) {
        return Vec::new();
    }
    kept.push((key, Arc::clone(mapping)));
    let bytes = |kept: &[(Key, Arc<Mapping>)]| kept.iter().map(|(_, it)| it.len()).sum::<usize>();
    let is_too_much = |kept: &[_]| kept.len() > MAX_KEPT || bytes(kept) > MAX_KEPT_BYTES;
    let too_many = (0..kept.len()).take_while(|&n| is_too_much(&kept[n..])).count();
    kept.drain(..too_many).collect()
}
