//! The bounded semaphore: permits, each with an owner.
//!
//! A permit is a word: 0 if it is free, otherwise the [`MemberId`] of its owner.
//!
//! # Invariants
//!
//! 1. The owner of a permit changes by one compare-exchange. So a death at any instruction leaves
//!    it free, or owned by a dead member.
//! 2. A waiter checks for permits of dead members at each recheck, and takes them as if they were
//!    free.
//!
//! # Orderings
//!
//! Those of a lock: acquiring a permit is `Acquire`, returning it is `Release`.
//!
//! Waiters sleep on an [`EventCount`].

use std::time::Duration;

use multiproc_shm::event_count::{EventCount, Poll};
use multiproc_shm::fences::{full_fence, full_fence_after_rmw};
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{AtomicU32, Ordering};
use multiproc_shm::{Deadline, failpoint};

use super::{Busy, is_of_slot};

const FREE: u32 = 0;

/// What is shared beside the words of the permits.
#[derive(Debug, Default)]
#[repr(C)]
pub struct PermitsControl {
    waiters: EventCount,
}

#[cfg(not(loom))]
multiproc_shm::placed!(PermitsControl { waiters });

/// A view of the permits.
#[derive(Debug, Clone, Copy)]
pub struct Permits<'a> {
    /// The waiters.
    pub control: &'a PermitsControl,
    /// One word for each permit.
    pub words: &'a [AtomicU32],
}

impl Permits<'_> {
    /// Returns the number of free permits.
    #[must_use]
    pub fn available(&self) -> usize {
        self.words.iter().filter(|word| word.load(Ordering::Relaxed) == FREE).count()
    }

    /// Returns the number of permits that are free or owned by dead members.
    #[must_use]
    pub fn available_after_deaths(&self, members: &impl Members) -> usize {
        self.words
            .iter()
            .filter(|word| !members.is_owner_alive(word.load(Ordering::Relaxed)))
            .count()
    }

    /// Acquires a permit that is free or owned by a dead member, and returns its index.
    ///
    /// # Errors
    ///
    /// Returns [`Busy`] if living members own all permits.
    #[inline]
    pub fn try_acquire(&self, members: &impl Members) -> Result<usize, Busy> {
        self.take_free(members.me()).or_else(|| self.take_of_dead(members)).ok_or(Busy)
    }

    /// Acquires a permit, and waits for one. Each `recheck`, it checks for dead owners.
    ///
    /// # Errors
    ///
    /// Returns [`Busy`] if living members own all permits until the deadline. It does so earlier if
    /// it can no longer be determined which members are alive (see [`Members::is_cut_off`]).
    #[inline]
    pub fn acquire(
        &self,
        members: &impl Members,
        deadline: Deadline,
        recheck: Duration,
    ) -> Result<usize, Busy> {
        match self.take_free(members.me()) {
            Some(index) => Ok(index),
            None => self.acquire_contended(members, deadline, recheck),
        }
    }

    #[cold]
    fn acquire_contended(
        &self,
        members: &impl Members,
        deadline: Deadline,
        recheck: Duration,
    ) -> Result<usize, Busy> {
        let waited = self.control.waiters.wait_until(deadline, recheck, |poll| match poll {
            Poll::Retry => self.take_free(members.me()).map(Ok),
            Poll::CheckLiveness => match self.try_acquire(members) {
                Err(Busy) if !members.is_cut_off() => None,
                result => Some(result),
            },
        });
        if waited.slept && self.available() > 0 {
            self.control.waiters.notify(1, full_fence());
        }
        waited.outcome.unwrap_or(Err(Busy))
    }

    #[inline]
    fn take_free(&self, me: MemberId) -> Option<usize> {
        let take = |word: &AtomicU32| {
            word.load(Ordering::Relaxed) == FREE && change(word, FREE, me.bits())
        };
        let index = self.words.iter().position(take)?;
        failpoint::reached("permit.acquired");
        Some(index)
    }

    fn take_of_dead(&self, members: &impl Members) -> Option<usize> {
        self.words.iter().position(|word| {
            let owner = word.load(Ordering::Relaxed);
            !members.is_owner_alive(owner) && change(word, owner, members.me().bits())
        })
    }

    /// Releases a permit, if `me` owns it. Otherwise it does nothing.
    #[inline]
    pub fn release(&self, me: MemberId, index: usize) {
        if let Some(word) = self.words.get(index)
            && change(word, me.bits(), FREE)
        {
            self.notify();
        }
    }

    #[inline]
    fn notify(&self) {
        failpoint::reached("permit.released");
        self.control.waiters.notify(1, full_fence_after_rmw());
    }

    /// Frees the permits of former users of `slot`. It is called before the slot gets a new user.
    pub fn release_slot(&self, slot: usize) {
        for word in self.words {
            let owner = word.load(Ordering::Relaxed);
            // If the word has changed, another member has just taken the permit over.
            if is_of_slot(owner, slot) && change(word, owner, FREE) {
                self.notify();
            }
        }
    }
}

impl PermitsControl {
    /// Returns what waiters sleep on.
    #[must_use]
    pub fn waiters(&self) -> &EventCount {
        &self.waiters
    }
}

#[inline]
fn change(word: &AtomicU32, from: u32, to: u32) -> bool {
    word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
