//! Pacing: how long one side waits before it reads the other side's state again.
//!
//! Each read of the other side's cursor takes a cache line away from the process that writes it. If
//! the faster side reads it after every item, it costs the slower side more than the item does. A
//! moment later it would find several items for one read. But where each item is waited for (a
//! request, an answer), that moment is lost.
//!
//! So a read is preceded by a pause. It grows by one step with each read that finds few items, and
//! is halved by each read that finds none: additive increase, multiplicative decrease (Chiu and
//! Jain, "Analysis of the Increase and Decrease Algorithms", 1989). In a stream, nearly all reads
//! find something, and the pause grows until they find enough. With requests and answers, about
//! every second read finds nothing. The pause is halved in two more cases. One is that it brings
//! less than half of what a stream would have brought: where items come more slowly, reads cost
//! nothing. The other is that a read finds as many as there can be: the other side already waits. A
//! read that finds one item shows little. Where all reads do, each item comes when it is wanted, so
//! the pause shrinks slowly, as it does where each read finds plenty.
//!
//! (Enough means more than a fair share of the line: a processor also prefetches, ahead of what is
//! read sequentially, lines that are being written.)
//!
//! Each handle has its own pause, in the memory of its process. It is a hint: threads that share a
//! handle may overwrite each other's updates.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use multiproc_shm::event_count::PAUSE;
use multiproc_shm::primitives::pause;

/// The number of items that is enough for one read.
const ENOUGH: u64 = 32;

/// The maximum pause, in steps, of a caller that reads repeatedly and may have a deadline.
const LONGEST: u32 = 4 * PAUSE;

/// Items that take longer than this many steps of [`pause`], about 200 ns, are not a stream.
const STEPS_EACH: u64 = 8;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The number of items (or places) that are known to be available. If it is 0, the next call
    /// most likely reads.
    known: AtomicU64,
    /// The pause, in quarters of a step.
    quarters: AtomicU32,
}

impl Pace {
    /// Pauses if the next operation has to read. To be called before it.
    #[inline]
    pub(crate) fn keep(&self) {
        if self.known.load(Ordering::Relaxed) == 0 {
            pause(self.quarters.load(Ordering::Relaxed) / 4);
        }
    }

    /// Records that a read has found `count` of `capacity`.
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

    /// Records the number that is left.
    #[inline]
    pub(crate) fn left(&self, count: u64) {
        self.known.store(count, Ordering::Relaxed);
    }

    /// Returns the pause between repeated reads that find nothing, in steps.
    pub(crate) fn steps(&self) -> u32 {
        (self.quarters.load(Ordering::Relaxed) / 4).clamp(1, LONGEST)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn after(reads: impl IntoIterator<Item = u64>) -> u32 {
        let pace = Pace::default();
        reads.into_iter().for_each(|count| pace.found(count, 1024));
        pace.quarters.into_inner() / 4
    }

    #[test]
    fn pause_grows_in_a_stream_and_not_with_requests() {
        assert_eq!(after([2; 1000]), 16, "as long as two take, and no stream is slower");
        assert_eq!(after([31; 100]), 100);
        assert_eq!(after([31; 1000]), 31 * 8, "at most");
        assert_eq!(after([32; 1000]), 0, "that is enough");
        assert_eq!(after([0, 1].repeat(1000)), 0);
        assert_eq!(after([1; 1000]), 0);
        // Close behind a producer.
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
    fn unbounded_capacity_does_not_grow_the_pause() {
        let pace = Pace::default();
        [1, 2, u64::MAX - 1, u64::MAX].iter().for_each(|&count| pace.found(count, u64::MAX));
        assert_eq!(pace.steps(), 1);
    }

    #[test]
    fn small_capacity_bounds_the_pause() {
        let pace = Pace::default();
        (0..100).for_each(|n| pace.found(n % 4, 3));
        assert_eq!(pace.steps(), 1);
    }
}
