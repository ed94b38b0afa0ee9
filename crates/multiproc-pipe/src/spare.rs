//! The memory of large messages, kept for the next ones of this process.
//!
//! New memory costs several times as much as copying into it, because the kernel clears it page by
//! page. Each connection keeps small buffers itself. Large ones are shared by the process.

use std::sync::{Mutex, TryLockError};

/// A connection keeps a buffer up to this size for itself.
pub(crate) const SMALL: usize = 4 * 1024 * 1024;

/// The maximum number of bytes that are kept here.
const MOST: usize = 64 * 1024 * 1024;

static SPARE: Mutex<Spare> = Mutex::new(Spare(Vec::new()));

/// The buffers, ordered by last use.
struct Spare(Vec<Vec<u8>>);

impl Spare {
    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let fit = |buffer: &Vec<u8>| {
            let capacity = buffer.capacity();
            (capacity < length, capacity.abs_diff(length))
        };
        let best = (0..self.0.len()).min_by_key(|&at| fit(&self.0[at]))?;
        Some(self.0.remove(best))
    }

    /// Removes and returns the buffers that exceed the limit.
    fn keep(&mut self, buffer: Vec<u8>) -> Vec<Vec<u8>> {
        self.0.push(buffer);
        let mut kept = 0;
        let fits = |buffer: &&Vec<u8>| {
            kept += buffer.capacity();
            kept <= MOST
        };
        let count = self.0.iter().rev().take_while(fits).count();
        self.0.drain(..self.0.len() - count).collect()
    }
}

/// Does not wait for the lock, which may stay taken in a forked child.
fn with<R>(use_it: impl FnOnce(&mut Spare) -> R) -> Option<R> {
    match SPARE.try_lock() {
        Ok(mut spare) => Some(use_it(&mut spare)),
        Err(TryLockError::Poisoned(spare)) => Some(use_it(&mut spare.into_inner())),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Returns an empty buffer for about `len` bytes: the one that fits best, or a new one.
pub(crate) fn take(length: usize) -> Vec<u8> {
    with(|spare| spare.take(length)).flatten().unwrap_or_default()
}

/// Keeps a large buffer in place of the least recently used ones.
pub(crate) fn keep(mut buffer: Vec<u8>) {
    if (SMALL + 1..=MOST).contains(&buffer.capacity()) {
        buffer.clear();
        // Dropped after the lock was released.
        let dropped = with(|spare| spare.keep(buffer));
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_memory_is_bounded_and_the_best_fit_is_taken() {
        const MIB: usize = 1024 * 1024;
        let buffer = |mib: usize| Vec::with_capacity(mib * MIB);
        let mut spare = Spare(Vec::new());
        for mib in [8, 30, 20, 6] {
            assert!(spare.keep(buffer(mib)).is_empty());
        }
        let mut take = |mib: usize| spare.take(mib * MIB).map(|buffer| buffer.capacity() / MIB);
        assert_eq!(take(7), Some(8));
        assert_eq!(take(7), Some(20));
        assert_eq!(take(40), Some(30), "it can grow");
        assert_eq!(take(40), Some(6));
        assert_eq!(take(40), None);

        assert!(spare.keep(buffer(20)).is_empty());
        assert!(spare.keep(buffer(30)).is_empty());
        let dropped = spare.keep(buffer(25));
        assert_eq!(dropped.len(), 1);
        assert_eq!(dropped[0].capacity(), 20 * MIB);
    }
}
