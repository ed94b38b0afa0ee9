//! Words that change together, by one store: two copies of them, and an epoch that names the current one.
//!
//! # Orderings
//!
//! The other side must see a position only together with the bytes it stands for: the store of the
//! epoch releases, its load acquires. It reads without the lock: epoch, copy, epoch again. A copy is
//! overwritten only after the epoch has moved on; so if a value of the next commit but one is read,
//! the second load must see that the epoch has moved. That needs the values themselves to be stored
//! with release and loaded with acquire.

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

#[cfg(not(loom))]
placed!(Committed<const N: usize> { epoch, copies });

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Committed<3>, epoch) == 0 && offset_of!(Committed<3>, copies) == 8);
};

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
