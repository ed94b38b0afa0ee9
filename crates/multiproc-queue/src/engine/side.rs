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
//!
//! # Orderings
//!
//! The other side must see a position only together with the bytes it stands for: the store of the
//! epoch releases, its load acquires. It reads without the lock: epoch, copy, epoch again. A copy is
//! overwritten only after the epoch has moved on; so if a value of the next commit but one is read,
//! the second load must see that the epoch has moved. That needs the values themselves to be stored
//! with release and loaded with acquire.

use multiproc_shm::owner_lock::OwnerLock;
#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU64, Ordering, load_locked};

/// How often a reader without the lock tries before it calls the other side corrupted. A try fails only
/// if a commit falls into its few nanoseconds, which is a small part of what a commit takes: so many in
/// a row never do, and yet end in less than a millisecond if somebody scribbles without a pause.
const TRIES: u32 = 1 << 10;

/// Some words that change together: two copies of them, and an epoch that says which one is true.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Committed<const N: usize> {
    epoch: AtomicU64,
    copies: [[AtomicU64; N]; 2],
}

impl<const N: usize> Default for Committed<N> {
    fn default() -> Self {
        let copy = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { epoch: AtomicU64::new(0), copies: [copy(), copy()] }
    }
}

/// A commit in the making. To be made under the lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(u64);

impl Epoch {
    /// The one that a commit in this one makes current.
    #[inline]
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl<const N: usize> Committed<N> {
    /// The current words. Under the lock.
    #[inline]
    pub(crate) fn current(&self) -> (Epoch, [u64; N]) {
        let epoch = load_locked(&self.epoch);
        (Epoch(epoch), self.copy(epoch).each_ref().map(load_locked))
    }

    /// Fills in the next words; nobody takes them for true yet. Under the lock.
    #[inline]
    pub(crate) fn prepare(&self, epoch: Epoch, next: [u64; N]) {
        let copy = self.copy(epoch.next().0);
        copy.iter().zip(next).for_each(|(word, next)| word.store(next, Ordering::Release));
    }

    /// Makes what was prepared current. Under the lock.
    #[inline]
    pub(crate) fn commit(&self, epoch: Epoch) {
        self.epoch.store(epoch.next().0, Ordering::Release);
    }

    /// The current words, for those who do not have the lock. `None`: they never kept still.
    #[inline]
    pub(crate) fn observe(&self) -> Option<[u64; N]> {
        for _ in 0..TRIES {
            let epoch = self.epoch.load(Ordering::Acquire);
            let words = self.copy(epoch).each_ref().map(|word| word.load(Ordering::Acquire));
            if self.epoch.load(Ordering::Relaxed) == epoch {
                return Some(words);
            }
            #[cfg(loom)]
            loom::thread::yield_now();
        }
        None
    }

    #[inline]
    fn copy(&self, epoch: u64) -> &[AtomicU64; N] {
        &self.copies[usize::from(epoch % 2 == 1)]
    }
}

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
    seen: [AtomicU64; 3],
    committed: Line,
}

/// On a line of its own. (With it, the words read by the other side lie on 64 bytes: one line.)
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Line {
    mark: Committed<3>,
}

#[cfg(not(loom))]
placed!(Committed<const N: usize> { epoch, copies });
#[cfg(not(loom))]
placed!(Line { mark });
#[cfg(not(loom))]
placed!(Side { lock, seen, committed });

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Side>() == 256 && size_of::<Committed<3>>() <= 64);
    assert!(offset_of!(Side, lock) == 0 && offset_of!(Side, seen) == 8);
    assert!(offset_of!(Side, committed) == 128);
    assert!(offset_of!(Committed<3>, epoch) == 0 && offset_of!(Committed<3>, copies) == 8);
};

impl Side {
    /// The current mark. Under the lock.
    #[inline]
    pub(crate) fn current(&self) -> (Epoch, Cursor) {
        let (epoch, words) = self.committed.mark.current();
        (epoch, words.into())
    }

    /// Fills in the next mark; nobody takes it for true yet. Under the lock.
    #[inline]
    pub(crate) fn prepare(&self, epoch: Epoch, next: Cursor) {
        self.committed.mark.prepare(epoch, next.words());
    }

    /// Makes the mark that was prepared the current one. Under the lock.
    #[inline]
    pub(crate) fn commit(&self, epoch: Epoch) {
        self.committed.mark.commit(epoch);
    }

    /// The current mark, for those who do not have the lock. `None`: it never kept still.
    #[inline]
    pub(crate) fn observe(&self) -> Option<Cursor> {
        self.committed.mark.observe().map(Cursor::from)
    }

    /// What this side last saw of the other one. Under the lock.
    #[inline]
    pub(crate) fn seen(&self) -> Cursor {
        self.seen.each_ref().map(load_locked).into()
    }

    /// Keeps what it sees of the other one. Under the lock.
    #[inline]
    pub(crate) fn see(&self, mark: Cursor) {
        self.seen.iter().zip(mark.words()).for_each(|(word, n)| word.store(n, Ordering::Relaxed));
    }
}
