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
//!    over by another one who waits, at its next recheck.
//!
//! # Orderings
//!
//! What was written under the lock is ordered by the lock, which a waiter takes again before it
//! looks. Places order nothing but themselves: marking releases, leaving acquires.

use std::time::Duration;

use multiproc_pipe::Deadline;

use super::members::{MemberId, Members};
use crate::fault;
use crate::primitives::{Futex, Ordering};

/// How many can wait at a time. Who comes on top is told that it was notified, and looks again.
pub const PLACES: usize = if cfg!(loom) { 3 } else { 480 };

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
}

impl Default for Condition {
    fn default() -> Self {
        Self { places: std::array::from_fn(|_| Futex::new(FREE)) }
    }
}

/// A place that was taken: to be waited in.
#[derive(Debug)]
#[must_use = "a place that is not waited in takes a notification from others"]
pub struct Place(Option<usize>);

impl Condition {
    /// Takes a place. To be called with the lock held.
    pub fn enter(&self, members: &impl Members) -> Place {
        let waiting = members.me().bits();
        let take =
            |place: &Futex| place.load(Ordering::Relaxed) == FREE && change(place, FREE, waiting);
        let index = self.places.iter().position(take).or_else(|| {
            // All are taken: those of the dead are not needed any more.
            while self.take_over(members) {
                self.notify(1);
            }
            self.places.iter().position(take)
        });
        Place(index)
    }

    /// Waits for a notification, without the lock. False: none came in time.
    pub fn wait(
        &self,
        Place(index): Place,
        members: &impl Members,
        deadline: Deadline,
        recheck: Duration,
    ) -> bool {
        let Some(index) = index else {
            // All places are taken. To look again is never wrong, only more work.
            return true;
        };
        let place = &self.places[index];
        let waiting = members.me().bits();
        loop {
            let state = place.load(Ordering::Acquire);
            if state != waiting {
                // Notified; or scribbled over, and then there is nothing to wait for.
                fault::reached("condition.notified");
                let _ = change(place, state, FREE);
                return true;
            }
            if deadline.is_past() {
                if change(place, waiting, FREE) {
                    return false;
                }
                continue;
            }
            fault::reached("condition.about_to_sleep");
            let woken = place.wait(waiting, deadline.within(recheck));
            if !woken && self.take_over(members) {
                if change(place, waiting, FREE) {
                    return true;
                }
                // It was notified itself, too: one of the two is somebody else's.
                self.notify(1);
            }
        }
    }

    /// Takes over a notification that went to a dead one, and clears the places of the dead up to there.
    fn take_over(&self, members: &impl Members) -> bool {
        self.places.iter().any(|place| {
            let state = place.load(Ordering::Relaxed);
            let is_of_dead = state != FREE && !owner(state).is_some_and(|o| members.is_alive(o));
            // A dead one that was not notified just leaves its place.
            is_of_dead && change(place, state, FREE) && is_notified(state)
        })
    }

    /// Ends the waiting of at most `count`; says how many it was.
    #[allow(clippy::must_use_candidate)] // notifying is something by itself
    pub fn notify(&self, count: usize) -> usize {
        let mut notified = 0;
        for place in &self.places {
            if notified == count {
                break;
            }
            let state = place.load(Ordering::Relaxed);
            if state != FREE && !is_notified(state) && change(place, state, state | NOTIFIED) {
                fault::reached("condition.notifying");
                place.wake(1);
                notified += 1;
            }
        }
        notified
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
        for place in &self.places {
            let state = place.load(Ordering::Relaxed);
            let is_its = owner(state).is_some_and(|owner| owner.slot() == slot);
            if is_its && change(place, state, FREE) && is_notified(state) {
                self.notify(1);
            }
        }
    }

    /// The time of everybody who sleeps runs out, for models.
    #[cfg(loom)]
    pub fn time_out(&self) {
        self.places.iter().for_each(Futex::time_out);
    }
}

fn change(place: &Futex, from: u32, to: u32) -> bool {
    place.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
