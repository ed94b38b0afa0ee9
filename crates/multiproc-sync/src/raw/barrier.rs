//! The barrier: a number of parties wait until all of them are there.
//!
//! # The state
//!
//! | bits | name | meaning |
//! |---|---|---|
//! | 0..16 | arrived | how many wait in this round |
//! | 16 | broken | nobody gets through until a reset |
//! | 17..33 | history | bit `n`: the round that ended `n` rounds ago ended by a reset |
//! | 33..64 | round | counts rounds |
//!
//! # Invariants
//!
//! 1. Arriving is one compare-exchange; the last one to arrive ends the round with the same one, and
//!    is its leader.
//! 2. Whoever waits knows its round. When that has ended, the history says how.
//! 3. A party that dies breaks the barrier: whoever waits looks for the dead at each recheck.
//!
//! # Orderings
//!
//! What was written before arriving must be visible to all who get through: every change of the
//! state is `AcqRel`, so each synchronises with all before it, and who gets through acquires.

use std::time::Duration;

use multiproc_shm::Deadline;

use multiproc_shm::event_count::{EventCount, Poll};
use multiproc_shm::failpoint;
use multiproc_shm::fences::full_fence_after_rmw;
use multiproc_shm::primitives::{AtomicU64, Ordering};

const ARRIVED: u64 = (1 << 16) - 1;
const BROKEN: u64 = 1 << 16;
const HISTORY_SHIFT: u32 = 17;
const HISTORY_BITS: u32 = 16;
const HISTORY: u64 = ((1 << HISTORY_BITS) - 1) << HISTORY_SHIFT;
const ROUND_SHIFT: u32 = HISTORY_SHIFT + HISTORY_BITS;

fn arrived(state: u64) -> u64 {
    state & ARRIVED
}

fn is_broken(state: u64) -> bool {
    state & BROKEN != 0
}

fn round(state: u64) -> u64 {
    state >> ROUND_SHIFT
}

/// The next round, with nobody there, not broken.
fn next_round(state: u64, by_reset: bool) -> u64 {
    let round = (state >> ROUND_SHIFT).wrapping_add(1) << ROUND_SHIFT;
    let history = (state << 1 & HISTORY) | u64::from(by_reset) << HISTORY_SHIFT;
    round | history
}

/// Whether a round ended by a reset; so long ago that nobody knows counts as such.
fn ended_by_reset(state: u64, of_round: u64) -> bool {
    let ago = (round(state).wrapping_sub(of_round) & (u64::MAX >> ROUND_SHIFT)).wrapping_sub(1);
    ago >= u64::from(HISTORY_BITS) || state >> HISTORY_SHIFT >> ago & 1 != 0
}

/// See the module's text.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Barrier {
    state: AtomicU64,
    waiters: EventCount,
}

/// Nobody gets through: a party died or gave up, or somebody said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// How one got through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitOutcome {
    /// As the one of the round that arrived last.
    Leader,
    /// As another one.
    Follower,
}

#[cfg(not(loom))]
multiproc_shm::placed!(Barrier { state, waiters });

impl Barrier {
    /// The most parties.
    pub const MAX: u32 = u16::MAX as u32;

    /// Arrives, and waits until all `parties` are there. `anybody_died` is asked at each recheck.
    ///
    /// # Errors
    ///
    /// If the barrier is broken, or breaks while waiting; running out of time breaks it.
    pub fn wait(
        &self,
        parties: u32,
        anybody_died: impl Fn() -> bool,
        deadline: Deadline,
        recheck: Duration,
    ) -> Result<WaitOutcome, Broken> {
        let mut state = self.state.load(Ordering::Relaxed);
        let mine = loop {
            if is_broken(state) {
                return Err(Broken);
            }
            let is_last = arrived(state) + 1 >= u64::from(parties);
            let new = if is_last { next_round(state, false) } else { state + 1 };
            match self.state.compare_exchange_weak(state, new, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) if is_last => {
                    failpoint::reached("barrier.complete");
                    self.wake();
                    return Ok(WaitOutcome::Leader);
                }
                Ok(_) => break round(state),
                Err(now) => state = now,
            }
        };
        failpoint::reached("barrier.arrived");
        let ended = |poll| {
            if poll == Poll::CheckLiveness && anybody_died() {
                self.break_round(mine);
            }
            self.end_of(mine)
        };
        let waited = self.waiters.wait_until(deadline, recheck, ended);
        waited.outcome.unwrap_or_else(|| {
            self.break_round(mine);
            // If it ended just before, it ended well.
            self.end_of(mine).unwrap_or(Err(Broken))
        })
    }

    /// How a round ended, if it did.
    fn end_of(&self, mine: u64) -> Option<Result<WaitOutcome, Broken>> {
        let state = self.state.load(Ordering::Acquire);
        if round(state) == mine {
            return is_broken(state).then_some(Err(Broken));
        }
        Some(if ended_by_reset(state, mine) { Err(Broken) } else { Ok(WaitOutcome::Follower) })
    }

    /// Breaks the barrier, if it is still in this round.
    fn break_round(&self, mine: u64) {
        self.change(|state| (round(state) == mine).then_some(state | BROKEN));
    }

    /// Breaks the barrier: all who wait get `Broken`, and all who come.
    pub fn abort(&self) {
        self.change(|state| Some(state | BROKEN));
    }

    /// Makes a fresh start: all who wait get `Broken`, those who come start a round.
    pub fn reset(&self) {
        self.change(|state| {
            // With nobody there and nothing broken, there is nothing to start afresh.
            let is_fresh = arrived(state) == 0 && !is_broken(state);
            (!is_fresh).then(|| next_round(state, true))
        });
    }

    /// Changes the state and wakes all, unless `new` says that there is nothing to change.
    fn change(&self, new: impl Fn(u64) -> Option<u64>) {
        let mut state = self.state.load(Ordering::Relaxed);
        while let Some(new) = new(state) {
            match self.state.compare_exchange_weak(state, new, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return self.wake(),
                Err(now) => state = now,
            }
        }
    }

    fn wake(&self) {
        self.waiters.notify_all(full_fence_after_rmw());
    }

    /// How many wait at this moment.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        let state = self.state.load(Ordering::Relaxed);
        let arrived = if is_broken(state) { 0 } else { arrived(state) };
        u32::try_from(arrived).unwrap_or(Self::MAX)
    }

    /// Whether nobody gets through until a reset.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        is_broken(self.state.load(Ordering::Relaxed))
    }

    /// Where those sleep who wait.
    #[must_use]
    pub fn waiters(&self) -> &EventCount {
        &self.waiters
    }
}
