//! One side of the queue, the producers' or the consumers': its lock, and its committed state.
//!
//! # Layout
//!
//! | offset | content | written |
//! |---|---|---|
//! | 0 | lock | by processes that acquire it |
//! | 8 | the cached cursor of the other side | under the lock |
//! | 128 | epoch | under the lock: the commit |
//! | 136 | two copies of the cursor | under the lock |
//!
//! The first line is for this side alone. The other side reads the second one.
//!
//! # Invariants
//!
//! 1. The copy `epoch % 2` is current. A commit fills in the other one, and then makes it current
//!    by one store of the epoch. An owner of the lock that dies before that store has changed
//!    nothing, and one that dies after it has changed everything. So the next owner finds nothing
//!    to repair.
//! 2. Positions and counts only grow.

use multiproc_shm::owner_lock::OwnerLock;
#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU64, Ordering, load_locked};

use super::committed::{Committed, Epoch};

/// The position of a side: a byte position in the endless stream of each ring, and the number of
/// items before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) hot: u64,
    pub(crate) overflow: u64,
    pub(crate) count: u64,
}

impl Cursor {
    #[inline]
    fn words(self) -> [u64; 3] {
        [self.hot, self.overflow, self.count]
    }
}

impl From<[u64; 3]> for Cursor {
    #[inline]
    fn from([hot, overflow, count]: [u64; 3]) -> Self {
        Self { hot, overflow, count }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Side {
    pub(crate) lock: OwnerLock,
    /// The cached cursor of the other side. It only saves reads: all three numbers were true once,
    /// and only grow.
    cached_peer: [AtomicU64; 3],
    committed: Line,
}

/// On a cache line of its own. (So the words that the other side reads are within 64 bytes: one
/// line.)
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Line {
    cursor: Committed<3>,
}

#[cfg(not(loom))]
placed!(Line { cursor });
#[cfg(not(loom))]
placed!(Side { lock, cached_peer, committed });

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Side>() == 256 && size_of::<Committed<3>>() <= 64);
    assert!(offset_of!(Side, lock) == 0 && offset_of!(Side, cached_peer) == 8);
    assert!(offset_of!(Side, committed) == 128);
};

impl Side {
    /// Returns the current cursor. The caller holds the lock.
    #[inline]
    pub(crate) fn current(&self) -> (Epoch, Cursor) {
        let (epoch, words) = self.committed.cursor.current();
        (epoch, words.into())
    }

    /// Writes the next cursor, which is not current yet. The caller holds the lock.
    #[inline]
    pub(crate) fn prepare(&self, epoch: Epoch, next: Cursor) {
        self.committed.cursor.prepare(epoch, next.words());
    }

    /// Makes the prepared cursor current. The caller holds the lock.
    #[inline]
    pub(crate) fn commit(&self, epoch: Epoch) {
        self.committed.cursor.commit(epoch);
    }

    /// Returns the current cursor to a caller without the lock, or `None` if it never stayed the
    /// same.
    #[inline]
    pub(crate) fn observe(&self) -> Option<Cursor> {
        self.committed.cursor.observe().map(Cursor::from)
    }

    /// Returns the cached cursor of the other side. The caller holds the lock.
    #[inline]
    pub(crate) fn cached_peer(&self) -> Cursor {
        self.cached_peer.each_ref().map(load_locked).into()
    }

    /// Caches the cursor of the other side. The caller holds the lock.
    #[inline]
    pub(crate) fn cache_peer(&self, cursor: Cursor) {
        self.cached_peer
            .iter()
            .zip(cursor.words())
            .for_each(|(word, n)| word.store(n, Ordering::Relaxed));
    }
}
