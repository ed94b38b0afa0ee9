//! Sleeping until something has changed: spin, sleep, recheck.
//!
//! # The word
//!
//! Bit 0 says that somebody may be asleep; the other bits count notifications.
//!
//! # Invariants
//!
//! 1. Whoever falls asleep has set the bit, then fenced, then found the condition false. Whoever
//!    makes the condition true fences, then looks at the bit. So one of the two sees the other
//!    (Dekker's pattern), and the count, which the sleep is conditional on, covers the time between
//!    the look and the sleep.
//! 2. A notification clears the bit and wakes one. So the others who sleep are found again only
//!    because the one that was woken sets the bit anew before it looks, and, if it takes what it
//!    came for and more is there, notifies the next ([`EventCount::wait_until`] says whether it slept).
//!    (Which fences the two sides have is a matter of the type: see [`fences`](crate::fences).)
//! 3. A notification that is lost with the woken process, or with the one that was about to notify,
//!    is made up for by the recheck interval.
//!
//! A bit, and no count of sleepers: one that is killed while it sleeps leaves the bit set, which
//! costs one wake of nobody; a count would stay wrong for ever.

use std::marker::PhantomData;
use std::time::Duration;

use crate::Deadline;

use crate::failpoint;
use crate::fences::{Fences, FullFence, LightFence, full_fence};
use crate::primitives::{Backoff, Futex, Ordering, has_one_cpu, pause};
use crate::recheck::Recheck;

const SLEEPERS: u32 = 1;
const NOTIFICATION: u32 = 2;

/// More than there can be (the kernel counts them in an `i32`).
const ALL: u32 = i32::MAX.unsigned_abs();

/// How long a pause is between two looks: see [`pause`].
pub const PAUSE: u32 = 16;

/// A place where processes sleep until a condition becomes true. `F` is what notifiers have to pass
/// between the change and the notification: a [`FullFence`], or a [`LightFence`].
#[derive(Debug)]
#[repr(transparent)]
pub struct EventCount<F = FullFence> {
    word: Futex,
    fence: PhantomData<fn(F)>,
}

impl<F> Default for EventCount<F> {
    fn default() -> Self {
        Self { word: Futex::new(0), fence: PhantomData }
    }
}

/// Why an attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// Something may have changed.
    Retry,
    /// Nothing has been heard for a while, or this is the last look before the first sleep: somebody
    /// may have died.
    CheckLiveness,
}

/// What a wait came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited<T> {
    /// What the attempt gave; `None`, if the deadline passed before.
    pub outcome: Option<T>,
    /// Whether it slept on the way: then by invariant 2 the next one may have to be notified.
    pub slept: bool,
}

impl EventCount<FullFence> {
    /// Calls `attempt` until it gives something, or the deadline passes: first a few times in a
    /// row, then after each notification and each `recheck` interval. It is called once at least.
    ///
    /// It is told why it is called: time to look for deaths is [`Poll::CheckLiveness`].
    pub fn wait_until<T>(
        &self,
        deadline: Deadline,
        recheck: Duration,
        attempt: impl FnMut(Poll) -> Option<T>,
    ) -> Waited<T> {
        self.wait_with(PAUSE, &|| _ = full_fence(), deadline, recheck, attempt)
    }
}

impl EventCount<LightFence> {
    /// As [`wait_until`](EventCount::wait_until), with a pause of one's own between two looks (see
    /// [`pause`]).
    pub fn wait_asymmetric<T>(
        &self,
        fences: &Fences,
        pause: u32,
        deadline: Deadline,
        recheck: Duration,
        attempt: impl FnMut(Poll) -> Option<T>,
    ) -> Waited<T> {
        self.wait_with(pause, &|| _ = fences.heavy(), deadline, recheck, attempt)
    }

    /// Without the looks in a row before the first sleep.
    #[cold]
    pub(crate) fn sleep_asymmetric<T>(
        &self,
        fences: &Fences,
        deadline: Deadline,
        recheck: Duration,
        attempt: &mut dyn FnMut(Poll) -> Option<T>,
    ) -> Waited<T> {
        self.sleep_until(&|| _ = fences.heavy(), deadline, recheck, attempt)
    }
}

impl<F> EventCount<F> {
    #[inline]
    fn wait_with<T>(
        &self,
        times: u32,
        fence: &dyn Fn(),
        deadline: Deadline,
        recheck: Duration,
        mut attempt: impl FnMut(Poll) -> Option<T>,
    ) -> Waited<T> {
        let is_alone = has_one_cpu();
        let backoff = Backoff::new();
        loop {
            if let Some(outcome) = attempt(Poll::Retry) {
                return Waited { outcome: Some(outcome), slept: false };
            }
            if is_alone || backoff.is_completed() {
                break;
            }
            // Leaves the other side alone with its cache lines for a moment. Who looks all the time
            // takes one away for every single item; who waits a little finds several, for one.
            pause(times);
            backoff.snooze();
        }
        self.sleep_until(fence, deadline, recheck, &mut attempt)
    }

    /// Without the looks in a row before the first sleep.
    #[cold]
    fn sleep_until<T>(
        &self,
        fence: &dyn Fn(),
        deadline: Deadline,
        recheck: Duration,
        attempt: &mut dyn FnMut(Poll) -> Option<T>,
    ) -> Waited<T> {
        let mut slept = false;
        // Before the first sleep, too: the death may be an old one.
        let mut poll = Poll::CheckLiveness;
        let mut recheck = Recheck::every(recheck);
        loop {
            let seen = self.word.fetch_or(SLEEPERS, Ordering::Relaxed) | SLEEPERS;
            fence();
            if let Some(outcome) = attempt(poll) {
                return Waited { outcome: Some(outcome), slept };
            }
            if deadline.is_past() {
                return Waited { outcome: None, slept };
            }
            failpoint::reached("event_count.about_to_sleep");
            let is_time = recheck.sleep(&self.word, seen, deadline);
            poll = if is_time { Poll::CheckLiveness } else { Poll::Retry };
            failpoint::reached("event_count.woken");
            slept = true;
        }
    }

    /// Wakes one sleeper. The condition must have been made true, and then the fence passed, before.
    #[inline]
    pub fn notify_one(&self, passed: F) {
        self.notify(1, passed);
    }

    /// Wakes up to `count` sleepers; else as [`notify_one`](Self::notify_one).
    #[inline]
    pub fn notify(&self, count: u32, _passed: F) {
        if self.has_sleepers() {
            self.notify_sleepers(count);
        }
    }

    /// Wakes all sleepers; else as [`notify_one`](Self::notify_one). For words that are notified so
    /// and not otherwise: after a `notify_one` the bit is down, though others may sleep.
    #[inline]
    pub fn notify_all(&self, passed: F) {
        self.notify(ALL, passed);
    }

    /// Wakes all sleepers, also on words that are notified one at a time. A system call, always.
    pub fn wake_all(&self) {
        self.word.fetch_add(NOTIFICATION, Ordering::Relaxed);
        self.word.wake(ALL);
    }

    /// Whether somebody may be asleep.
    #[inline]
    pub fn has_sleepers(&self) -> bool {
        self.word.load(Ordering::Relaxed) & SLEEPERS != 0
    }

    #[cold]
    fn notify_sleepers(&self, count: u32) {
        let mut seen = self.word.load(Ordering::Relaxed);
        while seen & SLEEPERS != 0 {
            let notified = seen.wrapping_add(NOTIFICATION) & !SLEEPERS;
            match self.word.compare_exchange(seen, notified, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    failpoint::reached("event_count.about_to_wake");
                    return self.word.wake(count);
                }
                Err(now) => seen = now,
            }
        }
    }

    /// The word itself, for models of time.
    #[cfg(loom)]
    #[must_use]
    pub fn futex(&self) -> &Futex {
        &self.word
    }
}
