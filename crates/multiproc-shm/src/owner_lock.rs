//! The owner lock: a lock for some instructions at a time, that millions of operations pass through.
//!
//! As `multiproc-sync`'s lock, it is one word with its owner, and survives that. It does not report that
//! the last owner died inside (for states that need no repair), and freeing it is a plain store: an
//! atomic instruction there would wait until all that was written under the lock has left the
//! processor, which is most of what such an operation takes.
//!
//! # The words
//!
//! The owner: the [`MemberId`] of the holder, 0 is nobody. And the [`EventCount`], in a word of their own:
//! a plain store to the owner would wipe a bit beside it out.
//!
//! # Invariants
//!
//! 1. The owner changes from nobody to a member, or from a dead member to a living one, by one
//!    compare-exchange; to nobody by a store of the owner, or of who cleans up after a dead one.
//! 2. Whoever falls asleep has set the sleepers' bit, then had a heavy fence, then found the lock
//!    taken. Whoever frees it then has a light fence, and looks at the bit (see
//!    [`fences`](crate::fences)).
//! 3. A wake that is lost with a process is made up for by the recheck interval.
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

/// See the module's text. It is the words alone; what it guards is the user's affair.
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
    /// Takes the lock if it is free: the one instruction that is nearly always enough.
    #[inline]
    pub fn take_free(&self, me: MemberId) -> bool {
        self.change(0, me.bits())
    }

    #[inline]
    fn change(&self, from: u32, to: u32) -> bool {
        self.owner.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock, waiting for it. Checks every `recheck` whether its owner is still alive.
    ///
    /// # Errors
    ///
    /// If a living member has it until the deadline; or earlier, if the members can no longer be
    /// asked whether they are alive (see [`Members::is_cut_off`]).
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
            let is_takeable = owner == 0 || poll == Poll::CheckLiveness && is_dead(owner, members);
            if is_takeable && self.change(owner, me.bits()) {
                return Some(Ok(()));
            }
            (poll == Poll::CheckLiveness && members.is_cut_off()).then_some(Err(Busy))
        };
        let waited = self.waiters.sleep_asymmetric(fences, deadline, recheck, &mut attempt);
        waited.outcome.unwrap_or(Err(Busy))
    }

    /// Frees it, if `me` holds it. The caller then passes a light fence, and calls
    /// [`wake`](Self::wake).
    ///
    /// Compared, then stored: nobody takes it from a living owner, so nothing happens in between.
    #[inline]
    pub fn free(&self, me: MemberId) {
        if self.owner.load(Ordering::Relaxed) == me.bits() {
            self.owner.store(0, Ordering::Release);
        }
    }

    /// Wakes one who waits for it.
    #[inline]
    pub fn wake(&self, passed: LightFence) {
        self.waiters.notify_one(passed);
    }

    /// Frees the lock if whoever had `slot` before has it: called before the slot gets a new user.
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
