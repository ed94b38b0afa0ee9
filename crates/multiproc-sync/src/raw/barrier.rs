//! The barrier: parties wait until all of them have arrived.
//!
//! # The state
//!
//! | bits | name | meaning |
//! |---|---|---|
//! | 0..16 | arrived | the number of parties that wait in this round |
//! | 16 | broken | no party continues until a reset |
//! | 17..33 | history | bit `n`: the round that ended `n` rounds ago ended by a reset |
//! | 33..64 | round | counts rounds |
//!
//! # Invariants
//!
//! 1. Arriving is one compare-exchange. That of the last party to arrive also ends the round, and
//!    makes it the leader.
//! 2. A waiter remembers its round. When the round has ended, the history contains how it ended.
//! 3. A party that dies breaks the barrier: waiters check for dead members at each recheck.
//!
//! The counter of rounds has the purpose of the sense in a sense-reversing barrier (Hensgen, Finkel
//! and Manber 1988): it keeps waiters of one round apart from those of the next.
//!
//! # Orderings
//!
//! What was written before arriving must be visible to all parties that continue. Every change of
//! the state is `AcqRel`, so it synchronises with all changes before it, and waiters use `Acquire`.

use std::time::Duration;

use multiproc_shm::event_count::{EventCount, Poll};
use multiproc_shm::fences::full_fence_after_rmw;
use multiproc_shm::primitives::{AtomicU64, Ordering};
use multiproc_shm::{Deadline, failpoint};

const ARRIVED: u64 = (1 << 16) - 1;
const BROKEN: u64 = 1 << 16;
const HISTORY_SHIFT: u32 = 17;
const HISTORY_BITS: u32 = 16;
const HISTORY: u64 = ((1 << HISTORY_BITS) - 1) << HISTORY_SHIFT;
const ROUND_SHIFT: u32 = HISTORY_SHIFT + HISTORY_BITS;

fn arrived(state: u64) -> u64 {
    state & ARRIVED
}

/// Returns how many parties had arrived before the one that found this state.
fn index_of(state: u64) -> u32 {
    u32::try_from(arrived(state)).unwrap_or(u32::MAX)
}

fn is_broken(state: u64) -> bool {
    state & BROKEN != 0
}

fn round(state: u64) -> u64 {
    state >> ROUND_SHIFT
}

/// Returns the state of the next round: no party has arrived, and it is not broken.
fn next_round(state: u64, by_reset: bool) -> u64 {
    let round = (state >> ROUND_SHIFT).wrapping_add(1) << ROUND_SHIFT;
    let history = (state << 1 & HISTORY) | u64::from(by_reset) << HISTORY_SHIFT;
    round | history
}

/// Returns true if a round ended by a reset, or too long ago to be in the history.
fn ended_by_reset(state: u64, of_round: u64) -> bool {
    let ago = (round(state).wrapping_sub(of_round) & (u64::MAX >> ROUND_SHIFT)).wrapping_sub(1);
    ago >= u64::from(HISTORY_BITS) || state >> HISTORY_SHIFT >> ago & 1 != 0
}

/// A barrier. See the documentation of the module.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Barrier {
    state: AtomicU64,
    waiters: EventCount,
}

/// An error: a party died or timed out, or the barrier was aborted or reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// The result of a completed round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitOutcome {
    /// This party was the last of the round to arrive.
    Leader,
    /// Another party was the last to arrive.
    Follower,
}

#[cfg(not(loom))]
multiproc_shm::placed!(Barrier { state, waiters });

impl Barrier {
    /// The maximum number of parties.
    pub const MAX: u32 = u16::MAX as u32;

    /// Arrives, and waits until all `parties` have arrived, as [`arrive`](Self::arrive) does.
    /// Returns whether this party was the last one.
    ///
    /// # Errors
    ///
    /// Returns [`Broken`] as [`arrive`](Self::arrive) does.
    pub fn wait(
        &self,
        parties: u32,
        anybody_died: impl Fn() -> bool,
        deadline: Deadline,
        recheck: Duration,
    ) -> Result<WaitOutcome, Broken> {
        let index = self.arrive(parties, anybody_died, deadline, recheck)?;
        Ok(if index + 1 >= parties { WaitOutcome::Leader } else { WaitOutcome::Follower })
    }

    /// Arrives, and waits until all `parties` have arrived. Returns how many had arrived in this
    /// round before. `anybody_died` is called at each recheck, and breaks the barrier if it returns
    /// true.
    ///
    /// # Errors
    ///
    /// Returns [`Broken`] if the barrier is broken, or breaks while this waits. A timeout breaks
    /// it.
    pub fn arrive(
        &self,
        parties: u32,
        anybody_died: impl Fn() -> bool,
        deadline: Deadline,
        recheck: Duration,
    ) -> Result<u32, Broken> {
        let mut state = self.state.load(Ordering::Relaxed);
        let (mine, index) = loop {
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
                    return Ok(index_of(state));
                }
                Ok(_) => break (round(state), index_of(state)),
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
        let end = waited.outcome.unwrap_or_else(|| {
            self.break_round(mine);
            // The round may have become complete just before.
            self.end_of(mine).unwrap_or(Err(Broken))
        });
        end.map(|()| index)
    }

    /// Returns how a round ended, or `None` if it has not ended.
    fn end_of(&self, mine: u64) -> Option<Result<(), Broken>> {
        let state = self.state.load(Ordering::Acquire);
        if round(state) == mine {
            return is_broken(state).then_some(Err(Broken));
        }
        Some(if ended_by_reset(state, mine) { Err(Broken) } else { Ok(()) })
    }

    /// Breaks the barrier, if this is still its round.
    fn break_round(&self, mine: u64) {
        self.change(|state| (round(state) == mine).then_some(state | BROKEN));
    }

    /// Breaks the barrier: all waiters get `Broken`, and all later callers until a reset.
    pub fn abort(&self) {
        self.change(|state| Some(state | BROKEN));
    }

    /// Starts a new round. All waiters of the current one get `Broken`.
    pub fn reset(&self) {
        self.change(|state| {
            // A round in which no party has arrived, and that is not broken, is a new one.
            let is_fresh = arrived(state) == 0 && !is_broken(state);
            (!is_fresh).then(|| next_round(state, true))
        });
    }

    /// Changes the state and wakes all waiters, unless `new` returns `None`.
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

    /// Returns the number of waiting parties.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        let state = self.state.load(Ordering::Relaxed);
        let arrived = if is_broken(state) { 0 } else { arrived(state) };
        u32::try_from(arrived).unwrap_or(Self::MAX)
    }

    /// Returns true if the barrier is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        is_broken(self.state.load(Ordering::Relaxed))
    }

    /// Returns what waiters sleep on.
    #[must_use]
    pub fn waiters(&self) -> &EventCount {
        &self.waiters
    }
}
