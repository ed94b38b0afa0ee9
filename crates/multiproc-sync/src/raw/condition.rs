//! The condition variable: each waiter sleeps in a place of its own.
//!
//! # A place
//!
//! A place is one word: 0 if it is free, otherwise the [`MemberId`] of the waiter, and in bit 31
//! whether the waiter has been notified.
//!
//! # Invariants
//!
//! 1. A waiter takes its place before it releases the lock. So a notification by a later holder of
//!    the lock finds it.
//! 2. A notification marks one place of a waiter, by one compare-exchange, and wakes that waiter.
//!    So `notify(n)` ends at most `n` waits, and it does not wait for a confirmation.
//! 3. If a notified waiter is dead (it died before the notification, or before it left its place),
//!    another waiter takes the notification over at its next recheck. At every moment the
//!    notification is in some place, so one more death cannot lose it.
//!
//! # More waiters than places
//!
//! Further waiters sleep together on one word, the *crowd*. A notification that finds no waiter in
//! a place wakes all of the crowd, and each of them checks its condition again: a wait may end
//! without a notification. At each recheck, waiters of the crowd move to places that are free by
//! then, or that belonged to dead waiters.
//!
//! # Orderings
//!
//! What was written under the lock is ordered by the lock, which a waiter acquires again before it
//! checks its condition. Places order only themselves: marking is `Release`, leaving is `Acquire`.

use std::time::Duration;

use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{Futex, Ordering};
use multiproc_shm::recheck::Recheck;
use multiproc_shm::{Deadline, failpoint};

/// The number of places.
pub const PLACES: usize = if cfg!(loom) { 3 } else { 479 };

/// In the word of the crowd: waiters may be asleep there. The other bits count its wake-ups.
const SLEEPERS: u32 = 1;
const WOKEN: u32 = 2;

/// More waiters than there can be: the kernel counts them in an `i32`.
const ALL: u32 = i32::MAX.unsigned_abs();

const FREE: u32 = 0;
const NOTIFIED: u32 = 1 << 31;

fn is_notified(place: u32) -> bool {
    place & NOTIFIED != 0
}

fn owner(place: u32) -> Option<MemberId> {
    MemberId::from_bits(place & !NOTIFIED)
}

/// A condition variable, without its lock. See the documentation of the module.
#[derive(Debug)]
#[repr(C)]
pub struct Condition {
    places: [Futex; PLACES],
    crowd: Futex,
}

#[cfg(not(loom))]
multiproc_shm::placed!(Condition { places, crowd });

impl Default for Condition {
    fn default() -> Self {
        Self { places: std::array::from_fn(|_| Futex::new(FREE)), crowd: Futex::new(0) }
    }
}

/// A place to wait in.
#[derive(Debug)]
#[must_use = "a place that is not waited in takes a notification from others"]
pub struct Place(Kind);

#[derive(Debug)]
enum Kind {
    /// The place of this index.
    Own(usize),
    /// The crowd, whose word had this value.
    Crowd(u32),
}

impl Condition {
    /// Takes a place. The caller must hold the lock.
    pub fn enter(&self, members: &impl Members) -> Place {
        Place(match self.take_place(members) {
            Some(index) => Kind::Own(index),
            // Read before the lock is released, so that a later notification changes the word.
            None => Kind::Crowd(self.enter_crowd()),
        })
    }

    fn take_place(&self, members: &impl Members) -> Option<usize> {
        let waiting = members.me().bits();
        let take =
            |place: &Futex| place.load(Ordering::Relaxed) == FREE && change(place, FREE, waiting);
        self.places.iter().position(take)
    }

    fn enter_crowd(&self) -> u32 {
        self.crowd.fetch_or(SLEEPERS, Ordering::AcqRel) | SLEEPERS
    }

    /// Waits for a notification, without the lock. Returns false if none came before the deadline.
    ///
    /// It returns true early if it can no longer be determined which members are alive.
    pub fn wait(
        &self,
        Place(place): Place,
        members: &impl Members,
        deadline: Deadline,
        recheck: Duration,
    ) -> bool {
        let index = match place {
            Kind::Own(index) => index,
            Kind::Crowd(seen) => match self.wait_in_crowd(seen, members, deadline, recheck) {
                Ok(index) => index,
                Err(is_woken) => return is_woken,
            },
        };
        let place = &self.places[index];
        let waiting = members.me().bits();
        let mut recheck = Recheck::every(recheck);
        loop {
            let state = place.load(Ordering::Acquire);
            if state != waiting {
                // Notified. (Or the word was corrupted, and a notification would not be found.)
                failpoint::reached("condition.notified");
                let _ = change(place, state, FREE);
                return true;
            }
            if deadline.is_past() {
                if change(place, waiting, FREE) {
                    return false;
                }
                continue;
            }
            failpoint::reached("condition.about_to_sleep");
            let is_time = recheck.sleep(place, waiting, deadline);
            if is_time && members.is_cut_off() {
                // A notification of a dead waiter can no longer be found.
                let _ = change(place, waiting, FREE);
                return true;
            }
            if is_time && let Some(adopted) = self.adopt(members) {
                // If this waiter was notified as well, `leave` passes one of the two on.
                self.leave(index, members);
                let _ = change(adopted, waiting | NOTIFIED, FREE);
                return true;
            }
        }
    }

    /// Waits in the crowd until a place is free, and returns its index.
    ///
    /// # Errors
    ///
    /// Returns true if the crowd was woken, and false if it was not woken before the deadline.
    fn wait_in_crowd(
        &self,
        seen: u32,
        members: &impl Members,
        deadline: Deadline,
        recheck: Duration,
    ) -> Result<usize, bool> {
        let mut recheck = Recheck::every(recheck);
        loop {
            failpoint::reached("condition.about_to_sleep");
            let is_time = recheck.sleep(&self.crowd, seen, deadline);
            if self.crowd.load(Ordering::Acquire) != seen {
                return Err(true);
            }
            if deadline.is_past() {
                return Err(false);
            }
            if is_time {
                // Some places may belong to dead waiters.
                let is_dead = |member| !members.is_alive(member);
                self.places.iter().for_each(|place| self.clear(place, is_dead));
                if let Some(index) = self.take_place(members) {
                    // A notification from before has changed the word. One from now on can find the
                    // place.
                    if self.crowd.load(Ordering::Acquire) == seen {
                        return Ok(index);
                    }
                    self.leave(index, members);
                    return Err(true);
                }
            }
        }
    }

    /// Leaves a place, and passes on a notification that it received.
    fn leave(&self, index: usize, members: &impl Members) {
        let place = &self.places[index];
        let waiting = members.me().bits();
        if !change(place, waiting, FREE) {
            self.notify(1);
            let _ = change(place, waiting | NOTIFIED, FREE);
        }
    }

    /// Takes over the place, and with it the notification, of a notified waiter that is dead. It is
    /// one compare-exchange: if this member dies as well, another one can take the place over.
    fn adopt(&self, members: &impl Members) -> Option<&Futex> {
        self.places.iter().find(|place| {
            let state = place.load(Ordering::Relaxed);
            is_notified(state)
                && !members.is_owner_alive(state & !NOTIFIED)
                && change(place, state, members.me().bits() | NOTIFIED)
        })
    }

    /// Frees a place if `is_one` returns true for its owner. A notification in it is passed on
    /// first, so that a death in between leaves one too many instead of one too few.
    fn clear(&self, place: &Futex, is_one: impl Fn(MemberId) -> bool) {
        loop {
            let state = place.load(Ordering::Relaxed);
            if !owner(state).is_some_and(&is_one) {
                return;
            }
            if is_notified(state) {
                self.notify(1);
            }
            if change(place, state, FREE) {
                return;
            }
        }
    }

    /// Notifies up to `count` waiters. Returns the number of those that had a place.
    #[allow(clippy::must_use_candidate)] // notifying has an effect of its own
    pub fn notify(&self, count: usize) -> usize {
        let mut notified = 0;
        for place in &self.places {
            if notified == count {
                break;
            }
            let state = place.load(Ordering::Relaxed);
            if state != FREE && !is_notified(state) && change(place, state, state | NOTIFIED) {
                failpoint::reached("condition.notifying");
                place.wake(1);
                notified += 1;
            }
        }
        if notified < count {
            self.wake_crowd();
        }
        notified
    }

    fn wake_crowd(&self) {
        let mut state = self.crowd.load(Ordering::Acquire);
        while state & SLEEPERS != 0 {
            let woken = state.wrapping_add(WOKEN) & !SLEEPERS;
            match self.crowd.compare_exchange(state, woken, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return self.crowd.wake(ALL),
                Err(now) => state = now,
            }
        }
    }

    /// Returns the number of waiters in places that are not yet notified.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let is_waiting = |place: &&Futex| {
            let state = place.load(Ordering::Relaxed);
            state != FREE && !is_notified(state)
        };
        self.places.iter().filter(is_waiting).count()
    }

    /// Frees the places of former users of `slot`. It is called before the slot gets a new user.
    pub fn release_slot(&self, slot: usize) {
        let is_its = |member: MemberId| member.slot() == slot;
        self.places.iter().for_each(|place| self.clear(place, is_its));
    }

    /// Lets the sleep of all waiters time out, for models.
    #[cfg(loom)]
    pub fn time_out(&self) {
        self.places.iter().for_each(Futex::time_out);
        self.crowd.time_out();
    }
}

fn change(place: &Futex, from: u32, to: u32) -> bool {
    place.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
