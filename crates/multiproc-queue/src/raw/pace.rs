//! How long one side leaves the other side's cache lines alone.
//!
//! Each look at the other side's mark takes a cache line away from whoever moves it. Who looks after
//! every item, because it is the faster one, costs the slower one more than the item does; a moment
//! later it would find several, for one line. But where each item is waited for (a request, an
//! answer), that moment is lost.
//!
//! So before a look there is a pause, which grows by one step with each look that finds few, and is
//! halved by each that finds nothing: additive increase, multiplicative decrease (Chiu and Jain,
//! "Analysis of the Increase and Decrease Algorithms", 1989). In a stream nearly all looks find
//! something, and the pause grows until they find enough; of a request and an answer, at least
//! every second look finds nothing, and it stays near nothing. Where items come so slowly that
//! looks cost nobody anything, it stays as short as one of them takes to come.
//!
//! (Enough is more than it takes to share the line among: a processor also fetches, ahead of what
//! is read in a row, what is being written.)
//!
//! Each handle has its own, in the memory of its process. They are hints: threads that share a handle
//! may lose one another's.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use multiproc_sync::primitives::pause;

/// This is enough for one look.
const ENOUGH: u64 = 32;

/// What takes longer to come than so many steps of [`pause`], some 200 ns, is no stream.
const STEPS_EACH: u64 = 8;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// How many there are (items, or places) as far as is known. With none, the next call looks.
    known: AtomicU64,
    steps: AtomicU32,
}

impl Pace {
    /// To be called before a look may have to be taken.
    #[inline]
    pub(crate) fn keep(&self) {
        if self.known.load(Ordering::Relaxed) == 0 {
            pause(self.steps.load(Ordering::Relaxed));
        }
    }

    /// A look has found so many, of `capacity`.
    pub(crate) fn found(&self, count: u64, capacity: u64) {
        let steps = self.steps.load(Ordering::Relaxed);
        let expected = u64::from(steps) / STEPS_EACH;
        let next = if count < expected.div_ceil(2).max(1) {
            steps / 2
        } else if count < ENOUGH.min(capacity / 2) && count > expected {
            steps + 1
        } else {
            steps
        };
        self.steps.store(next, Ordering::Relaxed);
    }

    /// So many are left.
    #[inline]
    pub(crate) fn left(&self, count: u64) {
        self.known.store(count, Ordering::Relaxed);
    }

    /// For who has found nothing, and looks again and again: how long to pause between.
    pub(crate) fn steps(&self) -> u32 {
        self.steps.load(Ordering::Relaxed).max(1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn after(looks: impl IntoIterator<Item = u64>) -> u32 {
        let pace = Pace::default();
        looks.into_iter().for_each(|count| pace.found(count, 1024));
        pace.steps.into_inner()
    }

    #[test]
    fn it_grows_where_items_stream_and_not_where_they_are_waited_for() {
        assert_eq!(after([1; 1000]), 8);
        assert_eq!(after([31; 100]), 100);
        assert_eq!(after([31; 1000]), 31 * 8, "at most");
        assert_eq!(after([32; 1000]), 0, "that is enough");
        assert!(after([0, 1].repeat(1000)) <= 2);
        let stops = after([31; 100].into_iter().chain([0; 3]));
        assert_eq!(stops, 12);
        let slows_down = after([31; 1000].into_iter().chain([1; 10]));
        assert!(slows_down <= 8 * 2 + 7, "{slows_down}");
    }

    #[test]
    fn a_small_queue_does_not_wait_for_what_it_cannot_hold() {
        let pace = Pace::default();
        (0..100).for_each(|_| pace.found(1, 3));
        assert_eq!(pace.steps(), 1);
    }
}
