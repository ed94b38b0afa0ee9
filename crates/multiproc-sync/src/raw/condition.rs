//! The condition: those who wait, each in a place of its own.
//!
//! # A place
//!
//! One word: 0 is free; else it holds the [`MemberId`] of the one who waits there, and bit 31 says
//! that it has been notified.
//!
//! # Invariants
//!
//! 1. Whoever waits takes its place before it lets go of the lock. So a notification by whoever has
//!    the lock afterwards finds it.
//! 2. A notification marks one place that is waiting, by one compare-exchange, and wakes who sleeps
//!    there. So `notify(n)` ends the waiting of at most `n`, and acknowledges nobody.
//! 3. A notification that went to a dead one (it died before, or before it left its place) is taken
//!    over by another one who waits, at its next recheck. At every moment it is in some place: it
//!    cannot be lost by one more death.
//!
//! # More waiters than places
//!
//! Those sleep together on one word, the *crowd*. A notification that finds no waiter in a place wakes
//! all of them, and each checks again what it waits for: a wait may end without a notification. At
//! each recheck interval, they move to places that are free by then, or were those of dead waiters.
//!
//! # Orderings
//!
//! What was written under the lock is ordered by the lock, which a waiter takes again before it
//! looks. Places order nothing but themselves: marking releases, leaving acquires.

use std::time::Duration;

use multiproc_shm::Deadline;

use super::is_owned;
use multiproc_shm::failpoint;
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{Futex, Ordering};
use multiproc_shm::recheck::Recheck;

/// How many can wait in a place of their own at a time.
pub const PLACES: usize = if cfg!(loom) { 3 } else { 479 };

/// Somebody may sleep in the crowd; the other bits of its word count how often it was woken.
const SLEEPERS: u32 = 1;
const WOKEN: u32 = 2;

/// More than there can be (the kernel counts them in an `i32`).
const ALL: u32 = i32::MAX.unsigned_abs();

const FREE: u32 = 0;
const NOTIFIED: u32 = 1 << 31;

fn is_notified(place: u32) -> bool {
    place & NOTIFIED != 0
}

fn owner(place: u32) -> Option<MemberId> {
    MemberId::from_bits(place & !NOTIFIED)
}

/// See the module's text.
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

/// Where to wait.
#[derive(Debug)]
#[must_use = "a place that is not waited in takes a notification from others"]
pub struct Place(Kind);

#[derive(Debug)]
enum Kind {
    /// In the place of this index.
    Own(usize),
    /// In the crowd, whose word was this one.
    Crowd(u32),
}

impl Condition {
    /// Takes a place. To be called with the lock held.
    pub fn enter(&self, members: &impl Members) -> Place {
        Place(match self.take_place(members) {
            Some(index) => Kind::Own(index),
            // Before the lock is free, so that a notification that comes after it changes the word.
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

    /// Waits for a notification, without the lock. False: none came before the deadline.
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
                // Notified; or scribbled over, and then there is nothing to wait for.
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
                // A notification that a dead waiter has taken along cannot be found any more.
                let _ = change(place, waiting, FREE);
                return true;
            }
            if is_time && let Some(adopted) = self.adopt(members) {
                // If it was notified itself, too, one of the two is somebody else's.
                self.leave(index, members);
                let _ = change(adopted, waiting | NOTIFIED, FREE);
                return true;
            }
        }
    }

    /// Waits in the crowd, until a place is free.
    ///
    /// # Errors
    ///
    /// True: it was woken. False: it was not before the deadline.
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
                // Perhaps the places are those of dead waiters.
                let is_dead = |member| !members.is_alive(member);
                self.places.iter().for_each(|place| self.clear(place, is_dead));
                if let Some(index) = self.take_place(members) {
                    // What was notified before that has changed the word; what is notified from now
                    // on may find the place.
                    if self.crowd.load(Ordering::Acquire) == seen {
                        return Ok(index);
                    }
                    self.leave(index, members);
                    return Err(true);
                }
            }
        }
    }

    /// Leaves a place; a notification that it has got is passed on.
    fn leave(&self, index: usize, members: &impl Members) {
        let place = &self.places[index];
        let waiting = members.me().bits();
        if !change(place, waiting, FREE) {
            self.notify(1);
            let _ = change(place, waiting | NOTIFIED, FREE);
        }
    }

    /// Takes over the place, and so the notification, of one that was notified and is dead. By one
    /// exchange: if this one dies as well, yet another one can take it over.
    fn adopt(&self, members: &impl Members) -> Option<&Futex> {
        self.places.iter().find(|place| {
            let state = place.load(Ordering::Relaxed);
            is_notified(state)
                && !is_owned(state & !NOTIFIED, members)
                && change(place, state, members.me().bits() | NOTIFIED)
        })
    }

    /// Frees a place if its owner is one of those. A notification is handed on first: a death in
    /// between leaves one too many, and not one too few.
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

    /// Ends the waiting of at most `count`; returns how many in places of their own it was.
    #[allow(clippy::must_use_candidate)] // notifying is something by itself
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

    /// How many wait at this moment.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let is_waiting = |place: &&Futex| {
            let state = place.load(Ordering::Relaxed);
            state != FREE && !is_notified(state)
        };
        self.places.iter().filter(is_waiting).count()
    }

    /// Clears the places of whoever had `slot`: called before the slot gets a new user.
    pub fn release_slot(&self, slot: usize) {
        let is_its = |member: MemberId| member.slot() == slot;
        self.places.iter().for_each(|place| self.clear(place, is_its));
    }

    /// The time of everybody who sleeps runs out, for models.
    #[cfg(loom)]
    pub fn time_out(&self) {
        self.places.iter().for_each(Futex::time_out);
        self.crowd.time_out();
    }
}

fn change(place: &Futex, from: u32, to: u32) -> bool {
    place.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
