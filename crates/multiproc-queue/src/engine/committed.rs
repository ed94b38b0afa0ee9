//! Words that change together, by one store: two copies, and an epoch that selects the current one.
//!
//! This is a sequence lock with two copies (Linux calls it `seqcount_latch`): readers never wait
//! for a writer, and a writer that dies leaves the previous state. The store of the epoch is the
//! *linearization point* of a commit.
//!
//! # Orderings
//!
//! A reader must see a position only together with the bytes that it covers. So the store of the
//! epoch releases, and its load acquires. A reader without the lock reads the epoch, a copy, and
//! the epoch again. A copy is overwritten only after the epoch has advanced. If a reader sees a
//! value of the next commit but one, its second load must see that the epoch has advanced. For
//! this, the values themselves are stored with release and loaded with acquire, as in Boehm, "Can
//! Seqlocks Get Along with Programming Language Memory Models?" (2012).

#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU64, Ordering, load_locked};

/// The number of attempts of a reader without the lock, before it reports the other side as
/// corrupted. An attempt fails only if a commit falls into its few nanoseconds, which are a small
/// part of a commit. So this many failures in a row do not happen by chance, and take less than a
/// millisecond if a hostile process writes all the time.
const TRIES: u32 = 1 << 10;

/// Words that change together: two copies, and an epoch that selects the current one.
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

/// The epoch of a commit that is being prepared. For the owner of the lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(u64);

impl Epoch {
    /// Returns the epoch that a commit makes current.
    #[inline]
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl<const N: usize> Committed<N> {
    /// Returns the current words. The caller holds the lock.
    #[inline]
    pub(crate) fn current(&self) -> (Epoch, [u64; N]) {
        let epoch = load_locked(&self.epoch);
        (Epoch(epoch), self.copy(epoch).each_ref().map(load_locked))
    }

    /// Writes the next words, which are not current yet. The caller holds the lock.
    #[inline]
    pub(crate) fn prepare(&self, epoch: Epoch, next: [u64; N]) {
        let copy = self.copy(epoch.next().0);
        copy.iter().zip(next).for_each(|(word, next)| word.store(next, Ordering::Release));
    }

    /// Makes the prepared words current: the linearization point. The caller holds the lock.
    #[inline]
    pub(crate) fn commit(&self, epoch: Epoch) {
        self.epoch.store(epoch.next().0, Ordering::Release);
    }

    /// Returns the current words to a caller without the lock, or `None` if they never stayed the
    /// same.
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
