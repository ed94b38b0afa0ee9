//! The lock: one word that says who owns it.
//!
//! # The word
//!
//! | bits | name | meaning |
//! |---|---|---|
//! | 0..29 | owner | the [`MemberId`] of the holder; 0 is nobody |
//! | 29 | reserved | a waiter has waited for long: the lock is not for newcomers |
//! | 30 | abandoned | a holder died inside, and nobody has put right what it left |
//! | 31 | sleepers | somebody may be asleep on the word |
//!
//! # Invariants
//!
//! 1. The owner changes from nobody to a member, or from a dead member to a living one, by one
//!    compare-exchange. So a death at any instruction leaves the lock free, or owned by the dead.
//! 2. Whoever falls asleep has set the sleepers bit before, and only a release or a takeover, which
//!    wake or pass the bit on, clear it. Whoever was asleep takes the lock with the bit set, because
//!    it cannot know whether it was the only one: that costs one wake of nobody, at most.
//! 3. A wake that is lost with the woken process, or with the one that was about to wake, is made
//!    up for by the recheck interval of everybody else who sleeps.
//! 4. Only the owner recorded in the word frees it, by compare-exchange. A guard whose ownership has
//!    ended (a copy in a forked child) changes nothing.
//!
//! # Fairness
//!
//! Newcomers may overtake sleepers, which is fast, until a sleeper has waited for a millisecond and
//! was woken in vain: it then sets the reserved bit, and keeps sleeping. While the bit is set, a lock
//! that is free is taken only by waiters that have slept (and by `try_lock`); a newcomer goes to sleep
//! once. Nobody is named in the reservation, so a waiter that dies leaves nothing that blocks others:
//! after one recheck interval, every newcomer is a waiter that has slept. This is the eventual
//! fairness of parking_lot (and WTF::Lock), without its direct hand-over, which could hand the lock to
//! a process that is dead.
//!
//! # Orderings
//!
//! What was written under the lock must be visible to the next holder: taking it acquires, freeing
//! it releases. The release is `AcqRel` so that it can be followed by
//! [`fence_after_rmw`](multiproc_shm::primitives::fence_after_rmw) at no cost. Between the last writes of a
//! dead holder and a takeover lies its death, which the kernel reports under locks of its own.
//!
//! The shape is that of std's futex mutex (library/std/src/sys/sync/mutex/futex.rs), after Ulrich
//! Drepper, "Futexes Are Tricky" (2011), with the owner in place of its "locked".

use std::time::Duration;

use multiproc_shm::Deadline;

use super::{Busy, is_of_slot, is_owned};
use multiproc_shm::failpoint;
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{Backoff, Futex, Ordering};
use multiproc_shm::recheck::Recheck;

const OWNER: u32 = (1 << MemberId::BITS) - 1;
const RESERVED: u32 = 1 << 29;
const ABANDONED: u32 = 1 << 30;
const SLEEPERS: u32 = 1 << 31;

/// How long a waiter can be overtaken before it reserves the lock.
const FAIR_AFTER: Duration = if cfg!(loom) { Duration::ZERO } else { Duration::from_millis(1) };

fn is_free(state: u32) -> bool {
    state & OWNER == 0
}

fn is_reserved(state: u32) -> bool {
    state & RESERVED != 0
}

fn has_sleepers(state: u32) -> bool {
    state & SLEEPERS != 0
}

fn taken(state: u32) -> Acquired {
    if state & ABANDONED == 0 { Acquired::Clean } else { Acquired::OwnerDied }
}

/// How the lock was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquired {
    /// The last holder let go of it.
    Clean,
    /// A holder died inside, and nobody has [repaired](Lock::repaired) since.
    OwnerDied,
}

/// A lock that survives its holder. It is the word alone; what it guards is the user's affair.
#[derive(Debug)]
#[repr(transparent)]
pub struct Lock {
    word: Futex,
}

#[cfg(not(loom))]
multiproc_shm::placed!(Lock { word });

impl Default for Lock {
    fn default() -> Self {
        Self { word: Futex::new(0) }
    }
}

impl Lock {
    /// Takes the lock if it is free, or its owner is dead.
    ///
    /// # Errors
    ///
    /// If a living member has it.
    #[inline]
    pub fn try_lock(&self, members: &impl Members) -> Result<Acquired, Busy> {
        if self.take_free(members.me()) {
            return Ok(Acquired::Clean);
        }
        loop {
            let state = self.word.load(Ordering::Relaxed);
            if !is_free(state) && is_owned(state & OWNER, members) {
                return Err(Busy);
            }
            if let Some(taken) = self.take_over(state, members.me(), state & RESERVED) {
                return Ok(taken);
            }
        }
    }

    /// Takes the lock, waiting for it. Checks every `recheck` whether its owner is still alive.
    ///
    /// # Errors
    ///
    /// If a living member has it until the deadline; or earlier, if the members can no longer be
    /// asked whether they are alive (see [`Members::is_cut_off`]).
    #[inline]
    pub fn lock(
        &self,
        members: &impl Members,
        deadline: Deadline,
        recheck: Duration,
    ) -> Result<Acquired, Busy> {
        let taken = if self.take_free(members.me()) {
            Ok(Acquired::Clean)
        } else {
            self.lock_contended(members, deadline, recheck)
        };
        failpoint::reached("lock.taken");
        taken
    }

    /// Takes the lock if it is free and clean: the one instruction that is nearly always enough.
    #[inline]
    pub fn take_free(&self, me: MemberId) -> bool {
        self.word.compare_exchange(0, me.bits(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// From `state`, which is free or owned by a dead member, to `me`, with some more bits set. The
    /// reservation ends, unless it is among those. `None`: the word has changed.
    fn take_over(&self, state: u32, me: MemberId, bits: u32) -> Option<Acquired> {
        let died_inside = if is_free(state) { 0 } else { ABANDONED };
        let new = state & !(OWNER | RESERVED) | died_inside | bits | me.bits();
        self.word
            .compare_exchange(state, new, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then(|| taken(new))
    }

    #[cold]
    fn lock_contended(
        &self,
        members: &dyn Members,
        deadline: Deadline,
        recheck: Duration,
    ) -> Result<Acquired, Busy> {
        let backoff = Backoff::new();
        // By invariant 2, set once this thread has slept.
        let mut sleepers = 0;
        // Set once this thread has slept in vain for long enough.
        let mut reserved = 0;
        let mut fair = None;
        // Checks the owner before the first sleep, too: it may have died long ago.
        let mut look_up = true;
        let mut recheck = Recheck::every(recheck);
        loop {
            let state = self.word.load(Ordering::Relaxed);
            let has_slept = sleepers != 0;
            if is_free(state) && (has_slept || !is_reserved(state)) {
                if let Some(taken) = self.take_over(state, members.me(), sleepers) {
                    return Ok(taken);
                }
                continue;
            }
            if !backoff.is_completed() {
                backoff.snooze();
                continue;
            }
            if look_up && !is_free(state) && !is_owned(state & OWNER, members) {
                if let Some(taken) = self.take_over(state, members.me(), sleepers) {
                    return Ok(taken);
                }
                continue;
            }
            let fair = fair.get_or_insert_with(|| Deadline::after(FAIR_AFTER));
            if has_slept && fair.is_past() {
                reserved = RESERVED;
            }
            let asleep = state | SLEEPERS | reserved;
            if state != asleep
                && self
                    .word
                    .compare_exchange(state, asleep, Ordering::Relaxed, Ordering::Relaxed)
                    .is_err()
            {
                continue;
            }
            // Only now: if this one was woken and found somebody else quicker, the others who sleep
            // need the bit that it has just set again.
            if deadline.is_past() || look_up && members.is_cut_off() {
                if reserved != 0 {
                    // Others that have waited for long will set it again.
                    self.word.fetch_and(!RESERVED, Ordering::Relaxed);
                }
                return Err(Busy);
            }
            failpoint::reached("lock.about_to_sleep");
            look_up = recheck.sleep(&self.word, asleep, deadline);
            failpoint::reached("lock.woken");
            sleepers = SLEEPERS;
        }
    }

    /// Says that what a dead holder left has been put right: the next one takes it clean.
    ///
    /// To be called by the holder.
    pub fn repaired(&self) {
        self.word.fetch_and(!ABANDONED, Ordering::Relaxed);
    }

    /// Releases the lock, if `me` holds it; else does nothing. It stays abandoned until it is
    /// [repaired](Self::repaired).
    #[inline]
    pub fn unlock(&self, me: MemberId, taken: Acquired) {
        let free = match taken {
            Acquired::Clean => 0,
            Acquired::OwnerDied => ABANDONED,
        };
        let freed =
            self.word.compare_exchange(me.bits(), free, Ordering::AcqRel, Ordering::Relaxed);
        if let Err(state) = freed {
            self.unlock_contended(me, free, state);
        }
    }

    #[cold]
    fn unlock_contended(&self, me: MemberId, free: u32, mut state: u32) {
        while state & OWNER == me.bits() {
            let new = state & RESERVED | free;
            match self.word.compare_exchange(state, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if has_sleepers(state) => return self.wake(),
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
    }

    /// Marks the lock as abandoned, as if its holder had died. To be called by the holder.
    pub fn abandon(&self) {
        self.word.fetch_or(ABANDONED, Ordering::Relaxed);
    }

    #[cold]
    fn wake(&self) {
        failpoint::reached("lock.about_to_wake");
        self.word.wake(1);
    }

    /// Frees the lock if whoever had `slot` before has it: called before the slot gets a new user.
    pub fn release_slot(&self, slot: usize) {
        let mut state = self.word.load(Ordering::Relaxed);
        while is_of_slot(state & OWNER, slot) {
            match self.word.compare_exchange(state, ABANDONED, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) if has_sleepers(state) => return self.wake(),
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
    }

    /// Who has it at this moment; `None` is nobody.
    #[inline]
    #[must_use]
    pub fn owner(&self) -> Option<MemberId> {
        MemberId::from_bits(self.word.load(Ordering::Relaxed) & OWNER)
    }

    /// Whether a holder died inside, and nobody has repaired since.
    #[inline]
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.word.load(Ordering::Relaxed) & ABANDONED != 0
    }

    /// Whether somebody may be asleep in front of it.
    #[must_use]
    pub fn has_sleepers(&self) -> bool {
        has_sleepers(self.word.load(Ordering::Relaxed))
    }

    /// Whether a sleeper has reserved it.
    #[cfg(loom)]
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        // Not a load: loom would then miss interleavings with the stores of others.
        is_reserved(self.word.fetch_or(0, Ordering::Relaxed))
    }

    /// The word itself, for models of time.
    #[cfg(loom)]
    #[must_use]
    pub fn futex(&self) -> &Futex {
        &self.word
    }
}
