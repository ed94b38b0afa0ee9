//! The owner lock: a lock that records its owner, for critical sections of a few instructions.
//!
//! Like the lock of `multiproc-sync`, it survives the death of its owner. Unlike that one it does
//! not report that the last owner died (its state needs no repair), and it is freed by a plain
//! store. An atomic instruction would wait until all writes under the lock have left the processor,
//! which is most of the cost of such an operation.
//!
//! # The words
//!
//! One word holds the [`MemberId`] of the owner, or 0. The [`EventCount`] has a word of its own,
//! because a plain store to the owner would overwrite a bit beside it.
//!
//! # Invariants
//!
//! 1. The owner changes from none to a member, or from a dead member to a living one, by one
//!    compare-exchange. It changes to none by a store of the owner, or by a compare-exchange of the
//!    process that cleans up after a dead one.
//! 2. A waiter sets the sleepers' bit, then passes a heavy fence, then finds the lock taken, and
//!    only then sleeps. The owner frees the lock, then passes a light fence, then checks the bit
//!    (see [`fences`](crate::fences)).
//! 3. A wake that is lost with a killed process is recovered by the recheck interval.
//!
//! # Orderings
//!
//! Taking acquires, freeing releases.

use std::time::Duration;

use crate::Deadline;

use crate::Busy;
use crate::event_count::{EventCount, Poll};
use crate::failpoint;
use crate::fences::{Fences, LightFence};
use crate::members::{MemberId, Members};
use crate::primitives::{AtomicU32, Backoff, Ordering};

/// A lock that records its owner: see [the module](self). It consists of the words alone; the user
/// decides what it guards.
#[derive(Debug)]
#[repr(C)]
pub struct OwnerLock {
    owner: AtomicU32,
    waiters: EventCount<LightFence>,
}

impl Default for OwnerLock {
    fn default() -> Self {
        Self { owner: AtomicU32::new(0), waiters: EventCount::default() }
    }
}

impl OwnerLock {
    /// Takes the lock if it is free, by one compare-exchange. This nearly always succeeds.
    #[inline]
    pub fn take_free(&self, me: MemberId) -> bool {
        self.change(0, me.bits())
    }

    #[inline]
    fn change(&self, from: u32, to: u32) -> bool {
        self.owner.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock, waiting for it. Checks every `recheck` whether its owner is alive, and takes
    /// the lock of a dead owner.
    ///
    /// # Errors
    ///
    /// If a living member has it until the deadline, or if liveness can no longer be determined
    /// (see [`Members::is_cut_off`]).
    #[cold]
    pub fn lock(
        &self,
        members: &dyn Members,
        fences: &Fences,
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
        let mut attempt = |poll| {
            let owner = self.owner.load(Ordering::Relaxed);
            let is_takeable =
                owner == 0 || poll == Poll::CheckLiveness && !members.is_owner_alive(owner);
            if is_takeable && self.change(owner, me.bits()) {
                return Some(Ok(()));
            }
            (poll == Poll::CheckLiveness && members.is_cut_off()).then_some(Err(Busy))
        };
        let waited = self.waiters.sleep_asymmetric(fences, deadline, recheck, &mut attempt);
        waited.outcome.unwrap_or(Err(Busy))
    }

    /// Frees the lock if `me` holds it. The caller then passes a light fence and calls
    /// [`wake`](Self::wake).
    ///
    /// A load and a store suffice: no process takes the lock from a living owner, so it cannot
    /// change in between.
    #[inline]
    pub fn free(&self, me: MemberId) {
        if self.owner.load(Ordering::Relaxed) == me.bits() {
            self.owner.store(0, Ordering::Release);
        }
    }

    /// Wakes one waiter.
    #[inline]
    pub fn wake(&self, passed: LightFence) {
        self.waiters.notify_one(passed);
    }

    /// Frees the lock if the last user of `slot` holds it. Called before the slot is reused.
    pub fn release_slot(&self, fences: &Fences, slot: usize) {
        let owner = self.owner.load(Ordering::Relaxed);
        let is_of_slot = MemberId::from_bits(owner).is_some_and(|owner| owner.slot() == slot);
        if is_of_slot
            && self.owner.compare_exchange(owner, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            failpoint::reached("owner_lock.about_to_wake");
            self.waiters.notify_one(fences.heavy());
        }
    }

    /// Returns the present owner, or `None` if the lock is free.
    #[must_use]
    pub fn owner(&self) -> Option<MemberId> {
        MemberId::from_bits(self.owner.load(Ordering::Relaxed))
    }

    /// Returns the word that waiters sleep on, for models of time.
    #[cfg(loom)]
    #[must_use]
    pub fn futex(&self) -> &crate::primitives::Futex {
        self.waiters.futex()
    }
}
