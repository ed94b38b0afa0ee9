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
//! something, and the pause grows until they find enough; of a request and an answer, every second
//! look or so finds nothing. It is also halved if it brings less than half of what a stream would
//! have brought: where items come more slowly, looks cost nobody anything. Or if it finds all there
//! can be: the other side is waiting already. A look that finds just one says little: where all do,
//! each item comes when it is wanted; so the pause dwindles, as it does where each finds plenty.
//!
//! (Enough is more than it takes to share the line among: a processor also fetches, ahead of what
//! is read in a row, what is being written.)
//!
//! Each handle has its own, in the memory of its process. They are hints: threads that share a handle
//! may lose one another's.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use multiproc_shm::event_count::PAUSE;
use multiproc_shm::primitives::pause;

/// This is enough for one look.
const ENOUGH: u64 = 32;

/// The longest pause of one who looks again and again, and may have a deadline.
const LONGEST: u32 = 4 * PAUSE;

/// What takes longer to come than so many steps of [`pause`], some 200 ns, is no stream.
const STEPS_EACH: u64 = 8;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// How many there are (items, or places) as far as is known. With none, the next call most likely
    /// looks.
    known: AtomicU64,
    /// The pause, in quarters of a step.
    quarters: AtomicU32,
}

impl Pace {
    /// To be called before a look may have to be taken.
    #[inline]
    pub(crate) fn keep(&self) {
        if self.known.load(Ordering::Relaxed) == 0 {
            pause(self.quarters.load(Ordering::Relaxed) / 4);
        }
    }

    /// A look has found so many, of `capacity`.
    pub(crate) fn found(&self, count: u64, capacity: u64) {
        let quarters = self.quarters.load(Ordering::Relaxed);
        let expected = u64::from(quarters / 4) / STEPS_EACH;
        let enough = ENOUGH.min(capacity / 2);
        let next = if count == 0 || count >= capacity || count <= expected / 2 {
            quarters / 2
        } else if count == 1 || count > 2 * enough {
            quarters.saturating_sub(1)
        } else if count < enough && count > expected {
            quarters + 4
        } else {
            quarters
        };
        self.quarters.store(next, Ordering::Relaxed);
    }

    /// So many are left.
    #[inline]
    pub(crate) fn left(&self, count: u64) {
        self.known.store(count, Ordering::Relaxed);
    }

    /// For who has found nothing, and looks again and again: how long to pause between, in steps.
    pub(crate) fn steps(&self) -> u32 {
        (self.quarters.load(Ordering::Relaxed) / 4).clamp(1, LONGEST)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn after(looks: impl IntoIterator<Item = u64>) -> u32 {
        let pace = Pace::default();
        looks.into_iter().for_each(|count| pace.found(count, 1024));
        pace.quarters.into_inner() / 4
    }

    #[test]
    fn it_grows_where_items_stream_and_not_where_they_are_waited_for() {
        assert_eq!(after([2; 1000]), 16, "as long as two take, and no stream is slower");
        assert_eq!(after([31; 100]), 100);
        assert_eq!(after([31; 1000]), 31 * 8, "at most");
        assert_eq!(after([32; 1000]), 0, "that is enough");
        assert_eq!(after([0, 1].repeat(1000)), 0);
        assert_eq!(after([1; 1000]), 0);
        // At the heels of a producer.
        assert!(after([1, 2, 1, 0, 1, 2, 1, 3].repeat(100)) > 0);
        let stream = [31; 1000];
        let stops = after(stream.into_iter().chain([0; 3]));
        assert_eq!(stops, 31);
        let slows_down = after(stream.into_iter().chain([1; 10]));
        assert!(slows_down <= 16 + 7, "{slows_down}");
        assert_eq!(after(stream.into_iter().chain([1; 100])), 0);
        let is_outrun = after(stream.into_iter().chain([1024; 3]));
        assert_eq!(is_outrun, 31);
        assert_eq!(after(stream.into_iter().chain([500; 1000])), 0);
    }

    #[test]
    fn without_a_bound_there_is_always_enough() {
        let pace = Pace::default();
        [1, 2, u64::MAX - 1, u64::MAX].iter().for_each(|&count| pace.found(count, u64::MAX));
        assert_eq!(pace.steps(), 1);
    }

    #[test]
    fn a_small_queue_does_not_wait_for_what_it_cannot_hold() {
        let pace = Pace::default();
        (0..100).for_each(|n| pace.found(n % 4, 3));
        assert_eq!(pace.steps(), 1);
    }
}
