//! One side of the ring, the producers' or the consumers': a lock, and what it has committed.
//!
//! # Layout
//!
//! | offset | what | written |
//! |---|---|---|
//! | 0 | lock | by who takes it |
//! | 8 | seen: position and count of the other side, when last looked | under the lock |
//! | 128 | epoch | under the lock: the commit |
//! | 136 | two copies of position and count | under the lock |
//!
//! The first line is for this side alone; the second one is what the other side reads.
//!
//! # Invariants
//!
//! 1. The copy `epoch % 2` is current. A commit fills in the other one, and then makes it current by
//!    the one store of the epoch. So a holder of the lock that dies before that store has changed
//!    nothing, and one that dies after it has changed everything: who takes the lock over finds
//!    nothing to repair.
//! 2. Position and count only grow.
//!
//! # Orderings
//!
//! The other side must see a position only together with the bytes it stands for: the store of the
//! epoch releases, its load acquires. It reads without the lock: epoch, copy, epoch again. A copy is
//! overwritten only after the epoch has moved on; so if a value of the next commit but one is read,
//! the second load must see that the epoch has moved. That needs the values themselves to be stored
//! with release and loaded with acquire.

#[cfg(not(loom))]
use multiproc_sync::placed;
use multiproc_sync::primitives::{AtomicU64, Ordering, load_locked};
use multiproc_sync::raw::lock::Lock;

/// How often a reader without the lock tries before it calls the other side corrupted. Each try
/// fails only if a commit falls into some nanoseconds.
const TRIES: u32 = 1 << 20;

/// Where a side is: a byte position in the endless stream of frames, and how many frames lie before
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) position: u64,
    pub(crate) count: u64,
}

#[derive(Debug, Default)]
#[repr(C)]
struct SharedMark {
    position: AtomicU64,
    count: AtomicU64,
}

impl SharedMark {
    #[inline]
    fn load(&self, ordering: Ordering) -> Mark {
        Mark { position: self.position.load(ordering), count: self.count.load(ordering) }
    }

    #[inline]
    fn load_locked(&self) -> Mark {
        Mark { position: load_locked(&self.position), count: load_locked(&self.count) }
    }

    #[inline]
    fn store(&self, mark: Mark, ordering: Ordering) {
        self.position.store(mark.position, ordering);
        self.count.store(mark.count, ordering);
    }
}

/// See the module's text.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Side {
    pub(crate) lock: Lock,
    /// What this side knows of the other one. Only a hint that saves looking: both numbers were
    /// true once, and since only grew.
    seen: SharedMark,
    committed: Committed,
}

#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Committed {
    epoch: AtomicU64,
    copies: [SharedMark; 2],
}

#[cfg(not(loom))]
placed!(SharedMark { position, count });
#[cfg(not(loom))]
placed!(Committed { epoch, copies });
#[cfg(not(loom))]
placed!(Side { lock, seen, committed });

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Side>() == 256);
    assert!(offset_of!(Side, lock) == 0 && offset_of!(Side, seen) == 8);
    assert!(offset_of!(Side, committed) == 128);
    assert!(offset_of!(Committed, epoch) == 0 && offset_of!(Committed, copies) == 8);
};

/// A commit in the making. To be made under the lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(u64);

impl Side {
    /// The current mark. Under the lock.
    #[inline]
    pub(crate) fn current(&self) -> (Epoch, Mark) {
        let epoch = load_locked(&self.committed.epoch);
        (Epoch(epoch), self.copy(epoch).load_locked())
    }

    /// Fills in the next mark; nobody takes it for true yet. Under the lock.
    #[inline]
    pub(crate) fn prepare(&self, epoch: Epoch, next: Mark) {
        self.copy(epoch.0.wrapping_add(1)).store(next, Ordering::Release);
    }

    /// Makes the mark that was prepared the current one. Under the lock.
    #[inline]
    pub(crate) fn commit(&self, epoch: Epoch) {
        self.committed.epoch.store(epoch.0.wrapping_add(1), Ordering::Release);
    }

    /// The current mark, for those who do not have the lock. `None`: it never kept still.
    #[inline]
    pub(crate) fn observe(&self) -> Option<Mark> {
        for _ in 0..TRIES {
            let epoch = self.committed.epoch.load(Ordering::Acquire);
            let mark = self.copy(epoch).load(Ordering::Acquire);
            if self.committed.epoch.load(Ordering::Relaxed) == epoch {
                return Some(mark);
            }
            #[cfg(loom)]
            loom::thread::yield_now();
        }
        None
    }

    /// What this side last saw of the other one. Under the lock.
    #[inline]
    pub(crate) fn seen(&self) -> Mark {
        self.seen.load_locked()
    }

    /// Keeps what it sees of the other one. Under the lock.
    #[inline]
    pub(crate) fn see(&self, mark: Mark) {
        self.seen.store(mark, Ordering::Relaxed);
    }

    #[inline]
    fn copy(&self, epoch: u64) -> &SharedMark {
        &self.committed.copies[usize::from(epoch % 2 == 1)]
    }
}
