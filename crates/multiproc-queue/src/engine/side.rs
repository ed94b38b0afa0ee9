//! One side of the queue, the producers' or the consumers': a lock, and what it has committed.
//!
//! # Layout
//!
//! | offset | what | written |
//! |---|---|---|
//! | 0 | lock | by who takes it |
//! | 8 | seen: the other side's mark, when last looked | under the lock |
//! | 128 | epoch | under the lock: the commit |
//! | 136 | two copies of the mark | under the lock |
//!
//! The first line is for this side alone; the second one is what the other side reads.
//!
//! # Invariants
//!
//! 1. The copy `epoch % 2` is current. A commit fills in the other one, and then makes it current by
//!    the one store of the epoch. So a holder of the lock that dies before that store has changed
//!    nothing, and one that dies after it has changed everything: who takes the lock over finds
//!    nothing to repair.
//! 2. Positions and counts only grow.

use multiproc_shm::owner_lock::OwnerLock;
#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU64, Ordering, load_locked};

use super::committed::{Committed, Epoch};

/// Where a side is: a byte position in the endless stream of each ring, and how many items lie
/// before it.
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

/// See the module's text.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Side {
    pub(crate) lock: OwnerLock,
    /// What this side knows of the other one. Only a hint that saves looking: all three were true
    /// once, and since only grew.
    cached_peer: [AtomicU64; 3],
    committed: Line,
}

/// On a line of its own. (With it, the words read by the other side lie on 64 bytes: one line.)
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
    /// The current mark. Under the lock.
    #[inline]
    pub(crate) fn current(&self) -> (Epoch, Cursor) {
        let (epoch, words) = self.committed.cursor.current();
        (epoch, words.into())
    }

    /// Fills in the next mark; nobody takes it for true yet. Under the lock.
    #[inline]
    pub(crate) fn prepare(&self, epoch: Epoch, next: Cursor) {
        self.committed.cursor.prepare(epoch, next.words());
    }

    /// Makes the mark that was prepared the current one. Under the lock.
    #[inline]
    pub(crate) fn commit(&self, epoch: Epoch) {
        self.committed.cursor.commit(epoch);
    }

    /// The current mark, for those who do not have the lock. `None`: it never kept still.
    #[inline]
    pub(crate) fn observe(&self) -> Option<Cursor> {
        self.committed.cursor.observe().map(Cursor::from)
    }

    /// What this side last saw of the other one. Under the lock.
    #[inline]
    pub(crate) fn cached_peer(&self) -> Cursor {
        self.cached_peer.each_ref().map(load_locked).into()
    }

    /// Keeps what it sees of the other one. Under the lock.
    #[inline]
    pub(crate) fn cache_peer(&self, cursor: Cursor) {
        self.cached_peer
            .iter()
            .zip(cursor.words())
            .for_each(|(word, n)| word.store(n, Ordering::Relaxed));
    }
}
