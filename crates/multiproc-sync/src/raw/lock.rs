//! The robust lock: one word that contains its owner.
//!
//! # The word
//!
//! | bits | name | meaning |
//! |---|---|---|
//! | 0..29 | owner | the [`MemberId`] of the holder; 0 if the lock is free |
//! | 29 | reserved | a waiter has waited for long: newcomers must not take the lock |
//! | 30 | abandoned | a holder died, and no holder has repaired what the lock protects since |
//! | 31 | sleepers | waiters may be asleep on the word |
//!
//! # Invariants
//!
//! 1. The owner changes from 0 to a member, or from a dead member to a living one, by one
//!    compare-exchange. So a death at any instruction leaves the lock free, or owned by a dead
//!    member.
//! 2. A waiter sets *sleepers* before it falls asleep. Only a release clears it, which also wakes a
//!    waiter. A recovery keeps it. A waiter that has slept takes the lock with *sleepers* set,
//!    because it cannot know whether it was the only one. That costs at most one wake-up of no
//!    waiter.
//! 3. A wake-up may be lost with the process that was woken, or with the one that was about to wake
//!    it. All other sleepers make up for it when their recheck interval ends.
//! 4. Only the owner that the word records frees it, by compare-exchange. A guard whose ownership
//!    has ended (a copy in a forked child) has no effect.
//!
//! # Fairness
//!
//! Newcomers may overtake sleepers, which is fast. A sleeper that has waited for a millisecond and
//! was woken in vain sets *reserved*, and sleeps again. While *reserved* is set, a free lock is
//! taken only by waiters that have slept (and by `try_lock`); a newcomer goes to sleep once. The
//! reservation names no waiter, so a waiter that dies leaves nothing behind that blocks others:
//! after one recheck interval, every newcomer is a waiter that has slept.
//!
//! This is the eventual fairness of WTF::Lock and parking_lot, without their direct hand-over,
//! which could hand the lock to a dead process.
//!
//! # Orderings
//!
//! What was written under the lock must be visible to the next holder: acquiring it is `Acquire`,
//! releasing it is `AcqRel`. `Release` would do, but `AcqRel` allows
//! [`fence_after_rmw`](multiproc_shm::primitives::fence_after_rmw) to follow at no cost. Between
//! the last writes of a dead holder and the recovery lies its death, which the kernel reports under
//! locks of its own.
//!
//! # Sources
//!
//! The shape is that of std's futex mutex (library/std/src/sys/sync/mutex/futex.rs), after Ulrich
//! Drepper, "Futexes Are Tricky" (2011), with the owner in place of "locked". An owner in the word,
//! and a bit for its death, are also what the kernel's robust futexes have
//! (Documentation/locking/robust-futexes.rst). There the kernel walks a list of held locks when a
//! thread ends; here each waiter asks whether the owner is alive.

use std::time::Duration;

use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{Backoff, Futex, Ordering};
use multiproc_shm::recheck::Recheck;
use multiproc_shm::{Deadline, failpoint};

use super::{Busy, is_of_slot};

const OWNER: u32 = (1 << MemberId::BITS) - 1;
const RESERVED: u32 = 1 << 29;
const ABANDONED: u32 = 1 << 30;
const SLEEPERS: u32 = 1 << 31;

/// The time for which a waiter may be overtaken before it reserves the lock.
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

/// The state in which the lock was acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquired {
    /// No holder has died, or what the lock protects was repaired since.
    Clean,
    /// A holder died, and no holder has called [`repaired`](Lock::repaired) since.
    OwnerDied,
}

/// A robust lock, without data. See the documentation of the module.
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
    /// Acquires the lock if it is free, or its owner is dead.
    ///
    /// # Errors
    ///
    /// Returns [`Busy`] if a living member has the lock.
    #[inline]
    pub fn try_lock(&self, members: &impl Members) -> Result<Acquired, Busy> {
        if self.take_free(members.me()) {
            return Ok(Acquired::Clean);
        }
        loop {
            let state = self.word.load(Ordering::Relaxed);
            if !is_free(state) && members.is_owner_alive(state & OWNER) {
                return Err(Busy);
            }
            if let Some(taken) = self.take_over(state, members.me(), state & RESERVED) {
                return Ok(taken);
            }
        }
    }

    /// Acquires the lock, and waits for it. Each `recheck`, it checks whether the owner is alive.
    ///
    /// # Errors
    ///
    /// Returns [`Busy`] if a living member has the lock until the deadline. It does so earlier if
    /// it can no longer be determined which members are alive (see [`Members::is_cut_off`]).
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

    /// Acquires the lock if it is free, and no bit is set: the fast path, in one instruction.
    #[inline]
    pub fn take_free(&self, me: MemberId) -> bool {
        self.word.compare_exchange(0, me.bits(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Changes the owner from that of `state`, which is free or owned by a dead member, to `me`,
    /// and sets `bits`. This ends a reservation, unless `bits` contains it. Returns `None` if the
    /// word has changed.
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
        // `SLEEPERS` once this thread has slept, by invariant 2.
        let mut sleepers = 0;
        // `RESERVED` once this thread has waited for `FAIR_AFTER` and was woken in vain.
        let mut reserved = 0;
        let mut fair = None;
        // True at first, because the owner may have died long ago.
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
            if look_up && !is_free(state) && !members.is_owner_alive(state & OWNER) {
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
            // The deadline is checked after *sleepers* was set. If this waiter was woken and
            // another one was faster, the remaining sleepers need the bit.
            if deadline.is_past() || look_up && members.is_cut_off() {
                if reserved != 0 {
                    // Other waiters that have waited for long set it again.
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

    /// Clears *abandoned*, so that the next holder acquires the lock as [`Acquired::Clean`].
    ///
    /// Only the holder may call it.
    pub fn repaired(&self) {
        self.word.fetch_and(!ABANDONED, Ordering::Relaxed);
    }

    /// Releases the lock, if `me` holds it. Otherwise it does nothing.
    ///
    /// With [`Acquired::OwnerDied`], the lock stays abandoned.
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

    /// Marks the lock as abandoned, as if its holder had died. Only the holder may call it.
    pub fn abandon(&self) {
        self.word.fetch_or(ABANDONED, Ordering::Relaxed);
    }

    #[cold]
    fn wake(&self) {
        failpoint::reached("lock.about_to_wake");
        self.word.wake(1);
    }

    /// Frees the lock if its owner is a former user of `slot`. It is called before the slot gets a
    /// new user.
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

    /// Returns the owner, or `None` if the lock is free.
    #[inline]
    #[must_use]
    pub fn owner(&self) -> Option<MemberId> {
        MemberId::from_bits(self.word.load(Ordering::Relaxed) & OWNER)
    }

    /// Returns true if a holder died, and no holder has called [`repaired`](Self::repaired) since.
    #[inline]
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.word.load(Ordering::Relaxed) & ABANDONED != 0
    }

    /// Returns true if waiters may be asleep on the word.
    #[must_use]
    pub fn has_sleepers(&self) -> bool {
        has_sleepers(self.word.load(Ordering::Relaxed))
    }

    /// Returns true if a sleeper has reserved the lock.
    #[cfg(loom)]
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        // With a load, loom would miss interleavings with the stores of other threads.
        is_reserved(self.word.fetch_or(0, Ordering::Relaxed))
    }

    /// Returns the word, for models of time.
    #[cfg(loom)]
    #[must_use]
    pub fn futex(&self) -> &Futex {
        &self.word
    }
}
