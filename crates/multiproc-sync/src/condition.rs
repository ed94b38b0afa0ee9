//! The handle of a condition variable: a raw lock and a raw condition, placed in a region.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use multiproc_shm::primitives::AtomicU32;
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{Deadline, RECHECK, placed};
use serde::{Deserialize, Serialize};

use crate::error::{Abandoned, LockTimeoutError, TryLockError};
use crate::guard::{Held, Repair, debug_lock};
use crate::inspect::{Inspect, Inspection};
use crate::lock::LockGuard;
use crate::methods::lock_methods;
use crate::mutex::MutexGuard;
use crate::plain::Plain;
use crate::raw::condition::Condition as RawCondition;
use crate::raw::lock::{Acquired, Lock as RawLock};
use crate::robust::{Robust, checked};

/// A condition variable between processes, with a lock of its own.
///
/// `wait` releases the lock, waits for a notification, and acquires the lock again. A wait may also
/// end without a notification. So check what you wait for under the lock, before and after each
/// wait; [`wait_while`](Self::wait_while) and [`wait_for`](Self::wait_for) do so.
///
/// The lock can also be another one: pass the guard of a [`Lock`](crate::Lock) or of a
/// [`Mutex`](crate::Mutex) to the methods that wait. So one lock can have several conditions, such
/// as `not_empty` and `not_full`.
///
/// # When a process dies
///
/// The lock of a dead holder is recovered as that of a [`Lock`](crate::Lock): the next acquirer
/// gets [`Abandoned`], which contains the guard. A waiter that dies has no effect: `notify` never
/// blocks, and a notification that a dead waiter had received goes to another waiter within about
/// 250 ms.
///
/// # Fairness
///
/// It is not specified which waiters are notified. Up to 479 waiters are notified one by one. More
/// can wait: a notification that finds none of those 479 waiting wakes all others, and each of them
/// checks its condition again.
///
/// # Examples
///
/// ```
/// use multiproc_sync::{Condition, Event};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let changed = Condition::new()?;
/// let ready = Event::new()?; // any shared state that is checked under the lock
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
#[doc(alias = "Condvar")]
#[doc(alias = "condition variable")]
#[derive(Clone, Serialize, Deserialize)]
pub struct Condition {
    region: Region<ConditionControl>,
}

/// The control block.
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
    /// Creates a condition whose lock is free.
    ///
    /// # Errors
    ///
    /// Fails if the process has run out of descriptors or memory, if `/proc` is not mounted, or if
    /// a resource limit is too small. The error then names the limit.
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

    lock_methods!(ConditionGuard<'_>, "Condition::new()",);

    #[inline]
    fn acquire<'a, E: From<Abandoned<ConditionGuard<'a>>>>(
        &'a self,
        take: impl FnOnce(Robust<'a, ConditionControl>) -> Result<Acquired, E>,
    ) -> Result<ConditionGuard<'a>, E> {
        let held = Held::new(self.robust(), take(self.robust())?);
        let is_abandoned = held.is_abandoned();
        checked(ConditionGuard { held, condition: self }, is_abandoned)
    }

    /// Releases the lock, waits for a notification, and acquires the lock again.
    ///
    /// The wait can end without a notification: after a waiter has died, or if there are more than
    /// 479 waiters. If the process dies that would have notified, the wait does not end.
    ///
    /// # Errors
    ///
    /// Returns [`Abandoned`] as [`lock`](Self::lock) does, if a holder died meanwhile.
    ///
    /// # Panics
    ///
    /// Panics if the guard belongs to another condition; also as [`lock`](Self::lock) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::{Atomic, Condition};
    ///
    /// let (changed, jobs) = (Condition::new()?, Atomic::new(0)?);
    /// let (producer, queued) = (changed.clone(), jobs.clone()); // usually in another process
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = producer.lock().unwrap();
    ///     queued.fetch_add(1);
    ///     producer.notify_one();
    /// });
    /// let mut guard = changed.lock().unwrap();
    /// while jobs.load() == 0 {
    ///     guard = changed.wait(guard).unwrap();
    /// }
    /// jobs.fetch_sub(1); // under the lock
    /// drop(guard);
    /// # thread.join().unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn wait<G: Release>(&self, guard: G) -> Result<G, Abandoned<G>> {
        self.wait_until(guard, Deadline::NEVER).0
    }

    /// Waits for at most `timeout`, as [`wait`](Self::wait) does, and returns whether it timed out.
    ///
    /// The timeout does not bound the time for acquiring the lock afterwards.
    ///
    /// # Errors
    ///
    /// Returns [`Abandoned`] as [`wait`](Self::wait) does.
    ///
    /// # Panics
    ///
    /// Panics if the guard belongs to another condition; also as [`lock`](Self::lock) does.
    pub fn wait_timeout<G: Release>(
        &self,
        guard: G,
        timeout: Duration,
    ) -> Result<(G, WaitTimeoutResult), Abandoned<G>> {
        let (guard, notified) = self.wait_until(guard, Deadline::after(timeout));
        Ok((guard?, WaitTimeoutResult { timed_out: !notified }))
    }

    /// Waits until `deadline` at most, as [`wait_timeout`](Self::wait_timeout) does.
    ///
    /// # Errors
    ///
    /// Returns [`Abandoned`] as [`wait`](Self::wait) does.
    ///
    /// # Panics
    ///
    /// Panics if the guard belongs to another condition; also as [`lock`](Self::lock) does.
    pub fn wait_deadline<G: Release>(
        &self,
        guard: G,
        deadline: Instant,
    ) -> Result<(G, WaitTimeoutResult), Abandoned<G>> {
        let (guard, notified) = self.wait_until(guard, Deadline::at(deadline));
        Ok((guard?, WaitTimeoutResult { timed_out: !notified }))
    }

    /// Waits while `condition` returns true. It is called under the lock, first before any wait.
    ///
    /// If the process dies that would have changed the condition and notified, the wait does not
    /// end. Use [`wait_timeout_while`](Self::wait_timeout_while) to check on that process
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// Returns [`Abandoned`] as [`wait`](Self::wait) does.
    ///
    /// # Panics
    ///
    /// Panics if the guard belongs to another condition; also as [`lock`](Self::lock) does.
    pub fn wait_while<G: Release>(
        &self,
        mut guard: G,
        mut condition: impl FnMut() -> bool,
    ) -> Result<G, Abandoned<G>> {
        while condition() {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Waits while `condition` returns true, for at most `timeout`. The result tells whether it
    /// timed out with the condition still true.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::{Atomic, Condition};
    /// use std::time::Duration;
    ///
    /// let (changed, jobs) = (Condition::new()?, Atomic::new(0)?);
    /// let guard = changed.lock().unwrap();
    /// let (wait, is_idle) = (Duration::from_millis(5), || jobs.load() == 0);
    /// let (_guard, result) = changed.wait_timeout_while(guard, wait, is_idle).unwrap();
    /// assert!(result.timed_out());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Abandoned`] as [`wait`](Self::wait) does.
    ///
    /// # Panics
    ///
    /// Panics if the guard belongs to another condition; also as [`lock`](Self::lock) does.
    pub fn wait_timeout_while<G: Release>(
        &self,
        guard: G,
        timeout: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(G, WaitTimeoutResult), Abandoned<G>> {
        self.wait_until_false(guard, Deadline::after(timeout), |_| condition())
    }

    /// Waits until `is_reached`, called with the value of a mutex, returns true. It is called under
    /// the lock, first before any wait. Python calls it `wait_for`.
    ///
    /// Several conditions can be used with one mutex: one for each thing that is waited for.
    ///
    /// If the process dies that would have changed the value and notified, the wait does not end.
    /// Use [`wait_for_timeout`](Self::wait_for_timeout) to check on that process meanwhile.
    ///
    /// # Errors
    ///
    /// Returns [`Abandoned`] as [`Mutex::lock`](crate::Mutex::lock) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::{Condition, Mutex};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let stock = Mutex::new(0u32)?;
    /// let (not_empty, not_full) = (Condition::new()?, Condition::new()?);
    /// let producer = {
    ///     let (stock, not_empty, not_full) = (stock.clone(), not_empty.clone(), not_full.clone());
    ///     std::thread::spawn(move || { // usually a process
    ///         for _ in 0..5 {
    ///             let mut n = not_full.wait_for(stock.lock().unwrap(), |&n| n < 2).unwrap();
    ///             *n += 1;
    ///             drop(n);
    ///             not_empty.notify_one();
    ///         }
    ///     })
    /// };
    /// for _ in 0..5 {
    ///     let mut n = not_empty.wait_for(stock.lock().unwrap(), |&n| n > 0).unwrap();
    ///     *n -= 1;
    ///     drop(n);
    ///     not_full.notify_one();
    /// }
    /// producer.join().unwrap();
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_for<'a, T: Plain>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut is_reached: impl FnMut(&T) -> bool,
    ) -> Result<MutexGuard<'a, T>, Abandoned<MutexGuard<'a, T>>> {
        while !is_reached(&guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Waits until `is_reached` returns true, as [`wait_for`](Self::wait_for) does, for at most
    /// `timeout`. The result tells whether it timed out with the condition not reached.
    ///
    /// # Errors
    ///
    /// Returns [`Abandoned`] as [`wait_for`](Self::wait_for) does.
    pub fn wait_for_timeout<'a, T: Plain>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut is_reached: impl FnMut(&T) -> bool,
    ) -> Result<(MutexGuard<'a, T>, WaitTimeoutResult), Abandoned<MutexGuard<'a, T>>> {
        self.wait_until_false(guard, Deadline::after(timeout), |guard| !is_reached(guard))
    }

    fn wait_until_false<G: Release>(
        &self,
        mut guard: G,
        deadline: Deadline,
        mut condition: impl FnMut(&G) -> bool,
    ) -> Result<(G, WaitTimeoutResult), Abandoned<G>> {
        loop {
            if !condition(&guard) {
                return Ok((guard, WaitTimeoutResult { timed_out: false }));
            }
            if deadline.is_past() {
                return Ok((guard, WaitTimeoutResult { timed_out: true }));
            }
            guard = self.wait_until(guard, deadline).0?;
        }
    }

    /// Waits without the lock, and acquires it again. Also returns whether a notification came
    /// before the deadline.
    fn wait_until<G: Release>(
        &self,
        guard: G,
        deadline: Deadline,
    ) -> (Result<G, Abandoned<G>>, bool) {
        guard.assert_fits(self);
        // From here on, a notification is not missed.
        let place = self.raw().enter(&self.region);
        let mut notified = false;
        let guard = guard.release_while(|| {
            notified = self.raw().wait(place, &self.region, deadline, RECHECK);
        });
        (guard, notified)
    }

    /// Notifies one waiter, if there is one. It never blocks.
    ///
    /// Hold the lock while changing what the waiters check. It need not be held for the
    /// notification.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::{Atomic, Condition};
    ///
    /// let (changed, jobs) = (Condition::new()?, Atomic::new(0)?);
    /// let guard = changed.lock().unwrap();
    /// jobs.fetch_add(1);
    /// drop(guard);
    /// changed.notify_one();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "signal")]
    pub fn notify_one(&self) {
        self.notify(1);
    }

    /// Notifies up to `n` waiters. Returns how many of the first 479 it notified.
    #[allow(clippy::must_use_candidate)] // notifying has an effect of its own
    pub fn notify(&self, n: usize) -> usize {
        self.raw().notify(n)
    }

    /// Notifies all waiters. It never blocks.
    #[doc(alias = "broadcast")]
    pub fn notify_all(&self) {
        self.notify(usize::MAX);
    }
}

impl Inspect for Condition {
    fn inspect(&self) -> Inspection {
        Inspection::of_lock(self.robust(), self.raw().waiting() > 0)
    }

    fn observe(&self) {
        self.region.observe();
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Condition");
        debug_lock(&mut text, self.robust());
        text.field("waiting", &self.raw().waiting()).finish()
    }
}

/// A guard of the lock of a [`Condition`], which is released when the guard is dropped.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct ConditionGuard<'a> {
    held: Held<'a>,
    condition: &'a Condition,
}

/// The guards that [`Condition::wait`] can release and acquire again: those of a [`Condition`], a
/// [`Lock`](crate::Lock) and a [`Mutex`](crate::Mutex). (Not that of an [`RLock`](crate::RLock):
/// its thread may have locked it more than once.)
pub trait Release: Sized {
    /// Releases the lock, calls `wait`, and acquires the lock again.
    #[doc(hidden)]
    #[allow(clippy::missing_errors_doc)] // the errors of `lock`
    fn release_while(self, wait: impl FnOnce()) -> Result<Self, Abandoned<Self>>;

    /// Panics if the guard cannot be used with this condition.
    #[doc(hidden)]
    fn assert_fits(&self, _: &Condition) {}
}

impl Release for ConditionGuard<'_> {
    fn release_while(self, wait: impl FnOnce()) -> Result<Self, Abandoned<Self>> {
        let condition = self.condition;
        drop(self);
        wait();
        condition.lock()
    }

    fn assert_fits(&self, condition: &Condition) {
        assert!(
            condition.region.is_same(&self.condition.region),
            "the guard passed to a condition must be that of its own `lock`, not of another \
             condition; to use several conditions with one lock, pass the guard of a `Lock` or a \
             `Mutex`"
        );
    }
}

impl Release for LockGuard<'_> {
    fn release_while(self, wait: impl FnOnce()) -> Result<Self, Abandoned<Self>> {
        let lock = self.lock();
        drop(self);
        wait();
        lock.lock()
    }
}

impl<T: Plain> Release for MutexGuard<'_, T> {
    fn release_while(self, wait: impl FnOnce()) -> Result<Self, Abandoned<Self>> {
        let mutex = self.mutex();
        drop(self);
        wait();
        mutex.lock()
    }
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

/// The result of a wait with a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitTimeoutResult {
    timed_out: bool,
}

impl WaitTimeoutResult {
    /// Returns true if the wait timed out.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.timed_out
    }
}
