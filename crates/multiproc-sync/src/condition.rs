//! The condition, placed in a region.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use multiproc_shm::Deadline;
use serde::{Deserialize, Serialize};

use crate::error::{Abandoned, LockTimeoutError, TryLockError};
use crate::guard::{Held, Repair, debug_lock};
use crate::inspect::{Inspect, Inspection};
use crate::methods::lock_methods;
use crate::raw::condition::Condition as RawCondition;
use crate::raw::lock::{Acquired, Lock as RawLock};
use crate::robust::{Robust, checked};
use multiproc_shm::primitives::AtomicU32;
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{RECHECK, placed};

/// A lock between processes, and those who wait for something that happens under it.
///
/// `wait` lets go of the lock, waits for a notification, and takes the lock again. What one waits
/// for must be looked at under the lock, before and after waiting: see
/// [`wait_while`](Self::wait_while). A wait may end without a notification.
///
/// # When a process dies
///
/// Its lock is taken over, as that of a [`Lock`](crate::Lock): the others get [`Abandoned`], with
/// the guard. A waiter that dies changes nothing: `notify` waits for nobody, and a notification that
/// went to a dead one is taken over by another one who waits, within about 250 ms.
///
/// # Fairness
///
/// Which of those who wait are notified is not defined. Up to 479 waiters are notified one by one.
/// More can wait: a notification that finds none of those 479 wakes all the others, and each checks
/// its condition again.
///
/// ```
/// use multiproc_sync::{Condition, Event};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let changed = Condition::new()?;
/// let ready = Event::new()?; // any shared state that is looked at under the lock
/// let (other, flag) = (changed.clone(), ready.clone());
/// let thread = std::thread::spawn(move || {
///     let guard = other.lock().unwrap();
///     flag.set();
///     drop(guard);
///     other.notify_one();
/// });
/// let guard = changed.lock().unwrap();
/// let guard = changed.wait_while(guard, || !ready.is_set()).unwrap();
/// drop(guard);
/// # thread.join().unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct Condition {
    region: Region<ConditionControl>,
}

/// What its members share.
#[derive(Debug, Default)]
#[repr(C)]
struct ConditionControl {
    lock: RawLock,
    condition: RawCondition,
}

const _: () = {
    assert!(std::mem::offset_of!(ConditionControl, condition) == 4);
    assert!(size_of::<ConditionControl>() == 4 + 4 * 479 + 4);
};

placed!(ConditionControl { lock, condition });

impl Control for ConditionControl {
    const KIND: u32 = u32::from_le_bytes(*b"COND");
    const NAME: &'static str = "condition";

    fn release_slot(&self, _: &[AtomicU32], slot: usize) {
        self.lock.release_slot(slot);
        self.condition.release_slot(slot);
    }
}

impl Condition {
    /// A new condition, whose lock nobody holds.
    ///
    /// # Errors
    ///
    /// If there are no descriptors or no memory left, there is no `/proc`, or a resource limit is
    /// too small, which the error then names.
    pub fn new() -> io::Result<Self> {
        Ok(Self { region: Region::create(0, |_| {})? })
    }

    #[inline]
    fn robust(&self) -> Robust<'_, ConditionControl> {
        Robust { lock: &self.region.control().lock, region: &self.region }
    }

    fn raw(&self) -> &RawCondition {
        &self.region.control().condition
    }

    lock_methods!(ConditionGuard<'_>);

    #[inline]
    fn acquire<'a, E: From<Abandoned<ConditionGuard<'a>>>>(
        &'a self,
        take: impl FnOnce(Robust<'a, ConditionControl>) -> Result<Acquired, E>,
    ) -> Result<ConditionGuard<'a>, E> {
        let held = Held::new(self.robust(), take(self.robust())?);
        let is_abandoned = held.is_abandoned();
        checked(ConditionGuard { held, condition: self }, is_abandoned)
    }

    /// Lets go of the lock, waits for a notification, and takes the lock again.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock): whoever had the lock meanwhile may have died inside.
    ///
    /// # Panics
    ///
    /// If the guard is that of another condition.
    pub fn wait<'a>(
        &'a self,
        guard: ConditionGuard<'a>,
    ) -> Result<ConditionGuard<'a>, Abandoned<ConditionGuard<'a>>> {
        self.wait_until(guard, Deadline::NEVER);
        self.lock()
    }

    /// As [`wait`](Self::wait), for at most `timeout`; says whether that ran out.
    ///
    /// The lock is taken again after that, which may take longer.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    ///
    /// If the guard is that of another condition.
    pub fn wait_timeout<'a>(
        &'a self,
        guard: ConditionGuard<'a>,
        timeout: Duration,
    ) -> Result<(ConditionGuard<'a>, WaitTimeoutResult), Abandoned<ConditionGuard<'a>>> {
        let notified = self.wait_until(guard, Deadline::after(timeout));
        Ok((self.lock()?, WaitTimeoutResult { timed_out: !notified }))
    }

    /// As [`wait_timeout`](Self::wait_timeout), until `deadline` at most.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    ///
    /// If the guard is that of another condition.
    pub fn wait_deadline<'a>(
        &'a self,
        guard: ConditionGuard<'a>,
        deadline: Instant,
    ) -> Result<(ConditionGuard<'a>, WaitTimeoutResult), Abandoned<ConditionGuard<'a>>> {
        let notified = self.wait_until(guard, Deadline::at(deadline));
        Ok((self.lock()?, WaitTimeoutResult { timed_out: !notified }))
    }

    /// Waits while `condition` is true. It is looked at under the lock, before the first wait, too.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    ///
    /// If the guard is that of another condition.
    pub fn wait_while<'a>(
        &'a self,
        mut guard: ConditionGuard<'a>,
        mut condition: impl FnMut() -> bool,
    ) -> Result<ConditionGuard<'a>, Abandoned<ConditionGuard<'a>>> {
        while condition() {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Waits while `condition` is true, for at most `timeout`; says whether that ran out with the
    /// condition still true.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    ///
    /// If the guard is that of another condition.
    pub fn wait_timeout_while<'a>(
        &'a self,
        mut guard: ConditionGuard<'a>,
        timeout: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(ConditionGuard<'a>, WaitTimeoutResult), Abandoned<ConditionGuard<'a>>> {
        let deadline = Deadline::after(timeout);
        loop {
            if !condition() {
                return Ok((guard, WaitTimeoutResult { timed_out: false }));
            }
            if deadline.is_past() {
                return Ok((guard, WaitTimeoutResult { timed_out: true }));
            }
            self.wait_until(guard, deadline);
            guard = self.lock()?;
        }
    }

    /// Waits without the lock. False: no notification came in time.
    fn wait_until(&self, guard: ConditionGuard<'_>, deadline: Deadline) -> bool {
        assert!(
            self.region.is_same(&guard.condition.region),
            "the guard given to a condition must come from its own `lock`, and not from another \
             condition's"
        );
        let place = self.raw().enter(&self.region);
        drop(guard);
        self.raw().wait(place, &self.region, deadline, RECHECK)
    }

    /// Ends the waiting of one, if there is one. Waits for nobody.
    ///
    /// It is usual to hold the lock while changing what the others wait for; it need not be held any
    /// more when notifying.
    pub fn notify_one(&self) {
        self.notify(1);
    }

    /// Ends the waiting of at most `n`. Says how many it was.
    #[allow(clippy::must_use_candidate)] // notifying is something by itself
    pub fn notify(&self, n: usize) -> usize {
        self.raw().notify(n)
    }

    /// Ends the waiting of all.
    pub fn notify_all(&self) {
        self.notify(usize::MAX);
    }
}

impl Inspect for Condition {
    fn inspect(&self) -> Inspection {
        Inspection::of_lock(self.robust(), self.raw().waiting() > 0)
    }

    fn observe(&self) {
        self.region.stand_aside();
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Condition");
        debug_lock(&mut text, self.robust());
        text.field("waiting", &self.raw().waiting()).finish()
    }
}

/// The lock of a [`Condition`] is held while this lives, and released when it is dropped.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct ConditionGuard<'a> {
    held: Held<'a>,
    condition: &'a Condition,
}

impl Repair for ConditionGuard<'_> {
    fn repaired(&mut self) {
        self.held.repaired();
    }
}

impl fmt::Debug for ConditionGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConditionGuard").field("condition", self.condition).finish()
    }
}

/// Whether a wait ended because its time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitTimeoutResult {
    timed_out: bool,
}

impl WaitTimeoutResult {
    /// Whether the time ran out.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.timed_out
    }
}
