//! Event counts: sleeping until a condition becomes true, by spinning, then sleeping, then
//! rechecking.
//!
//! An event count lets a lock-free algorithm block (Reed and Kanodia, "Synchronization with
//! Eventcounts and Sequencers", 1979; the form with a futex is Vyukov's, as in folly's
//! `EventCount`).
//!
//! # The word
//!
//! Bit 0 is set if a waiter may be asleep. The other bits count notifications.
//!
//! # Invariants
//!
//! 1. A waiter sets the bit, then passes a fence, then checks the condition, and sleeps only if it
//!    is false. A notifier makes the condition true, then passes a fence, then checks the bit. One
//!    of the two sees the other (Dekker's pattern). The sleep is conditional on the count of
//!    notifications, which covers the time between the check and the sleep.
//! 2. A notification clears the bit and wakes one waiter. The other sleepers are found again
//!    because the woken waiter sets the bit again before it checks and, if it succeeds and more is
//!    available, notifies the next ([`EventCount::wait_until`] reports whether it slept). Which
//!    fences the two sides need is expressed by the type: see [`fences`](crate::fences).
//! 3. A notification that is lost with a killed process (the woken one, or the one that was about
//!    to notify) is recovered by the recheck interval.
//!
//! The word holds a bit and not a count of sleepers: a waiter that is killed in its sleep leaves
//! the bit set, which costs one wake that finds no sleeper. A count would stay wrong indefinitely.

use std::marker::PhantomData;
use std::time::Duration;

use crate::Deadline;

use crate::failpoint;
use crate::fences::{Fences, FullFence, LightFence, full_fence};
use crate::primitives::{Backoff, Futex, Ordering, has_one_cpu, pause};
use crate::recheck::Recheck;

const SLEEPERS: u32 = 1;
const NOTIFICATION: u32 = 2;

/// More sleepers than there can be: the kernel counts them in an `i32`.
const ALL: u32 = i32::MAX.unsigned_abs();

/// The length of the pause between two checks: see [`pause`].
pub const PAUSE: u32 = 16;

/// A place where processes sleep until a condition becomes true. `F` is the fence that a notifier
/// must pass between the change and the notification: a [`FullFence`] or a [`LightFence`].
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

/// The reason for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// The condition may have changed.
    Retry,
    /// A recheck interval has passed, or this is the last check before the first sleep: a peer may
    /// have died.
    CheckLiveness,
}

/// The outcome of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited<T> {
    /// The result of the attempt, or `None` if the deadline passed first.
    pub outcome: Option<T>,
    /// Whether the waiter slept. If so, it may have to notify the next one (invariant 2).
    pub slept: bool,
}

impl EventCount<FullFence> {
    /// Calls `attempt` until it returns `Some` or the deadline passes: first a few times in a row,
    /// then after each notification and each `recheck` interval. It is called at least once.
    ///
    /// The argument of `attempt` is [`Poll::CheckLiveness`] when it should check for dead owners.
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
    /// Waits as [`wait_until`](EventCount::wait_until), with asymmetric fences and `pause` as the
    /// length of the pause between two checks (see [`pause`]).
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

    /// Waits without spinning before the first sleep.
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
            // Leaves the other side its cache lines for a moment. Polling without a pause takes a
            // line away for every item; after a pause, several items are found at once.
            pause(times);
            backoff.snooze();
        }
        self.sleep_until(fence, deadline, recheck, &mut attempt)
    }

    /// Waits without spinning before the first sleep.
    #[cold]
    fn sleep_until<T>(
        &self,
        fence: &dyn Fn(),
        deadline: Deadline,
        recheck: Duration,
        attempt: &mut dyn FnMut(Poll) -> Option<T>,
    ) -> Waited<T> {
        let mut slept = false;
        // Also before the first sleep: the owner may have died long ago.
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

    /// Wakes one sleeper. The caller has made the condition true and then passed the fence.
    #[inline]
    pub fn notify_one(&self, passed: F) {
        self.notify(1, passed);
    }

    /// Wakes up to `count` sleepers. Otherwise as [`notify_one`](Self::notify_one).
    #[inline]
    pub fn notify(&self, count: u32, _passed: F) {
        if self.has_sleepers() {
            self.notify_sleepers(count);
        }
    }

    /// Wakes all sleepers. Otherwise as [`notify_one`](Self::notify_one). Only for words that are
    /// never notified one at a time: after a `notify_one` the bit is clear although others may
    /// sleep.
    #[inline]
    pub fn notify_all(&self, passed: F) {
        self.notify(ALL, passed);
    }

    /// Wakes all sleepers, also on words that are notified one at a time. Always makes a system
    /// call.
    pub fn wake_all(&self) {
        self.word.fetch_add(NOTIFICATION, Ordering::Relaxed);
        self.word.wake(ALL);
    }

    /// Returns `true` if a waiter may be asleep.
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

    /// Returns the word itself, for models of time.
    #[cfg(loom)]
    #[must_use]
    pub fn futex(&self) -> &Futex {
        &self.word
    }
}
