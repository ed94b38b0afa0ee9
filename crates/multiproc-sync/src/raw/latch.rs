//! The latch: a lock for some instructions at a time, that millions of operations pass through.
//!
//! As [`Lock`](super::lock), it is one word with its owner, and survives that. It does not say that the
//! last owner died inside (for states that need no repair), and freeing it is a plain store: an
//! atomic instruction there would wait until all that was written under the latch has left the
//! processor, which is most of what such an operation takes.
//!
//! # The words
//!
//! The owner: the [`MemberId`] of the holder, 0 is nobody. And the [`Waiters`], in a word of their own:
//! a plain store to the owner would wipe a bit beside it out.
//!
//! # Invariants
//!
//! 1. The owner changes from nobody to a member, or from a dead member to a living one, by one
//!    compare-exchange; to nobody by a store of the owner, or of who cleans up after a dead one.
//! 2. Whoever falls asleep has set the sleepers' bit, then had a heavy fence, then found the latch
//!    taken. Whoever frees it then has a light fence, and looks at the bit
//!    (see [`fence_light`](crate::primitives::fence_light)).
//! 3. A wake that is lost with a process is made up for by the recheck interval.
//!
//! # Orderings
//!
//! Taking acquires, freeing releases.

use std::time::Duration;

use multiproc_pipe::Deadline;

use super::Busy;
use super::members::{MemberId, Members};
use super::waiters::{Look, Waiters};
use crate::fault;
use crate::primitives::{AtomicU32, Backoff, Ordering, fence_heavy};

/// See the module's text. It is the words alone; what it guards is the user's affair.
#[derive(Debug)]
#[repr(C)]
pub struct Latch {
    owner: AtomicU32,
    waiters: Waiters,
}

impl Default for Latch {
    fn default() -> Self {
        Self { owner: AtomicU32::new(0), waiters: Waiters::default() }
    }
}

impl Latch {
    /// Takes the latch if it is free: the one instruction that is nearly always enough.
    #[inline]
    pub fn take_free(&self, me: MemberId) -> bool {
        self.change(0, me.bits())
    }

    #[inline]
    fn change(&self, from: u32, to: u32) -> bool {
        self.owner.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the latch, waiting for it. Looks up every `recheck` whether its owner is still alive.
    ///
    /// # Errors
    ///
    /// If a living member has it until the deadline.
    #[cold]
    pub fn lock(
        &self,
        members: &dyn Members,
        deadline: Deadline,
        recheck: Duration,
    ) -> Result<(), Busy> {
        let me = members.me();
        let backoff = Backoff::new();
        while !backoff.is_completed() {
            if self.owner.load(Ordering::Relaxed) == 0 && self.take_free(me) {
                return Ok(());
            }
            backoff.snooze();
        }
        let mut attempt = |look| {
            let owner = self.owner.load(Ordering::Relaxed);
            let is_takeable = owner == 0 || look == Look::Recheck && is_dead(owner, members);
            (is_takeable && self.change(owner, me.bits())).then_some(())
        };
        let waited = self.waiters.sleep_until(fence_heavy, deadline, recheck, &mut attempt);
        waited.outcome.ok_or(Busy)
    }

    /// Lets go of it. To be called by the holder, who then has a light fence, and calls
    /// [`wake`](Self::wake).
    #[inline]
    pub fn free(&self) {
        self.owner.store(0, Ordering::Release);
    }

    /// Wakes one who waits for it.
    #[inline]
    pub fn wake(&self) {
        self.waiters.notify_one();
    }

    /// Frees the latch if whoever had `slot` before has it: called before the slot gets a new user.
    pub fn release_slot(&self, slot: usize) {
        let owner = self.owner.load(Ordering::Relaxed);
        let is_of_slot = MemberId::from_bits(owner).is_some_and(|owner| owner.slot() == slot);
        if is_of_slot
            && self.owner.compare_exchange(owner, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            fault::reached("latch.about_to_wake");
            fence_heavy();
            self.waiters.notify_one();
        }
    }

    /// Who has it at this moment; `None` is nobody.
    #[must_use]
    pub fn owner(&self) -> Option<MemberId> {
        MemberId::from_bits(self.owner.load(Ordering::Relaxed))
    }

    /// The word that is slept on, for models of time.
    #[cfg(loom)]
    #[must_use]
    pub fn futex(&self) -> &crate::primitives::Futex {
        self.waiters.futex()
    }
}

/// An owner that is no member at all (the word was scribbled over) counts as dead.
fn is_dead(owner: u32, members: &dyn Members) -> bool {
    !MemberId::from_bits(owner).is_some_and(|owner| members.is_alive(owner))
}
