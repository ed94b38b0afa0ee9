//! The bounded semaphore: permits, each with an owner.
//!
//! A permit is a word: 0 is free, else it holds the [`MemberId`] of its owner.
//!
//! # Invariants
//!
//! 1. A permit changes hands by one compare-exchange: a death at any instruction leaves it free, or
//!    owned by the dead, whom others find out about.
//! 2. Whoever waits looks, at each recheck, for permits of the dead, and takes one of those as if it
//!    were free.
//!
//! # Orderings
//!
//! As a lock's: taking acquires, giving back releases.

use std::time::Duration;

use multiproc_shm::Deadline;

use super::{Busy, is_of_slot, is_owned};
use multiproc_shm::event_count::{EventCount, Poll};
use multiproc_shm::failpoint;
use multiproc_shm::fences::{full_fence, full_fence_after_rmw};
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{AtomicU32, Ordering};

const FREE: u32 = 0;

/// What all share beside the permits themselves.
#[derive(Debug, Default)]
#[repr(C)]
pub struct PermitsControl {
    waiters: EventCount,
}

#[cfg(not(loom))]
multiproc_shm::placed!(PermitsControl { waiters });

/// The permits, as one member sees them.
#[derive(Debug, Clone, Copy)]
pub struct Permits<'a> {
    /// Where those wait who found none.
    pub control: &'a PermitsControl,
    /// One word each.
    pub words: &'a [AtomicU32],
}

impl Permits<'_> {
    /// How many are free at this moment.
    #[must_use]
    pub fn available(&self) -> usize {
        self.words.iter().filter(|word| word.load(Ordering::Relaxed) == FREE).count()
    }

    /// How many are free, or owned by the dead.
    #[must_use]
    pub fn available_after_deaths(&self, members: &impl Members) -> usize {
        self.words.iter().filter(|word| !is_owned(word.load(Ordering::Relaxed), members)).count()
    }

    /// Takes a free permit, or else one of the dead; gives its index.
    ///
    /// # Errors
    ///
    /// If all are owned by the living.
    #[inline]
    pub fn try_acquire(&self, members: &impl Members) -> Result<usize, Busy> {
        self.take_free(members.me()).or_else(|| self.take_of_dead(members)).ok_or(Busy)
    }

    /// Takes a permit, waiting for one.
    ///
    /// # Errors
    ///
    /// If all are owned by living members until the deadline; or earlier, if the members can no longer
    /// be asked whether they are alive (see [`Members::is_cut_off`]).
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
            !is_owned(owner, members) && change(word, owner, members.me().bits())
        })
    }

    /// Returns a permit, if `me` owns it; else does nothing.
    #[inline]
    pub fn release(&self, me: MemberId, index: usize) {
        if let Some(word) = self.words.get(index)
            && change(word, me.bits(), FREE)
        {
            self.notify();
        }
    }

    fn notify(&self) {
        failpoint::reached("permit.released");
        self.control.waiters.notify(1, full_fence_after_rmw());
    }

    /// Frees the permits of whoever had `slot`: called before the slot gets a new user.
    pub fn release_slot(&self, slot: usize) {
        for word in self.words {
            let owner = word.load(Ordering::Relaxed);
            // If it has changed, somebody has taken it over just now.
            if is_of_slot(owner, slot) && change(word, owner, FREE) {
                self.notify();
            }
        }
    }
}

impl PermitsControl {
    /// Where those sleep who wait.
    #[must_use]
    pub fn waiters(&self) -> &EventCount {
        &self.waiters
    }
}

fn change(word: &AtomicU32, from: u32, to: u32) -> bool {
    word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
