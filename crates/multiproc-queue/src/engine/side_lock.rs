//! The locks of the two sides, and other critical sections than put and get.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::time::Duration;

use multiproc_shm::Busy;
use multiproc_shm::Deadline;
use multiproc_shm::fences::LightFence;
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::owner_lock::OwnerLock;

use super::control::Control;
use super::error::EngineError;
use super::overflow::Memory;
use super::ring::Ring;

/// How often a waiter for a lock of the ring checks whether its owner is alive. The locks are held
/// for less than a microsecond, so the owner is most likely dead if the wait is longer.
const LOCK_RECHECK: Duration = Duration::from_millis(10);

/// How long a consumer that releases memory waits for the producers' lock. (Models have no clock:
/// one that ran slowly would not be deterministic.)
pub(super) const TRIM_PATIENCE: Duration =
    if cfg!(loom) { Duration::MAX } else { Duration::from_millis(10) };

/// Names the side of a lock. This is a type and not a value, so that [`Held`] is a single pointer:
/// with two, put and get are slower.
pub(super) trait Locked {
    fn lock(control: &Control) -> &OwnerLock;
}

pub(super) enum Producers {}
pub(super) enum Consumers {}

impl Locked for Producers {
    #[inline]
    fn lock(control: &Control) -> &OwnerLock {
        &control.producers.lock
    }
}

impl Locked for Consumers {
    #[inline]
    fn lock(control: &Control) -> &OwnerLock {
        &control.consumers.lock
    }
}

/// A lock of the ring that this thread holds. Dropping it releases the lock, also when a panic
/// unwinds through the operation. As after a death, nothing needs repair (invariant 3 of
/// [`ring`](super::ring)).
#[must_use = "the lock is released as soon as this is dropped"]
pub(super) struct Held<'a, L: Locked> {
    control: &'a Control,
    me: MemberId,
    side: PhantomData<L>,
}

impl<L: Locked> Held<'_, L> {
    /// Releases the lock. What was committed is visible to other members before they sleep.
    #[inline]
    pub(super) fn release(self) -> LightFence {
        ManuallyDrop::new(self).unlock()
    }

    #[inline]
    fn unlock(&self) -> LightFence {
        let lock = L::lock(self.control);
        lock.free(self.me);
        let passed = self.control.fences().light();
        lock.wake(passed);
        passed
    }
}

impl<L: Locked> Drop for Held<'_, L> {
    #[inline]
    fn drop(&mut self) {
        // In a model, a panic stands for the death of a process, which releases nothing.
        if cfg!(loom) && std::thread::panicking() {
            return;
        }
        self.unlock();
    }
}

impl<M: Members + Memory> Ring<'_, M> {
    /// Acquires a lock of the ring. If its owner died inside, nothing needs repair (invariant 3 of
    /// [`ring`](super::ring)).
    #[inline]
    pub(super) fn lock<L: Locked>(
        &self,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<Held<'_, L>, EngineError> {
        let lock = L::lock(self.control);
        // The deadline is computed only if there is something to wait for: reading the clock is
        // more expensive than the lock.
        let me = self.members.me();
        if !lock.take_free(me) {
            lock.lock(self.members, self.control.fences(), deadline(), LOCK_RECHECK)
                .map_err(|Busy| self.stalled())?;
        }
        Ok(Held { control: self.control, me, side: PhantomData })
    }

    /// Returns why a lock was not acquired: its owner is alive, or this process cannot tell any
    /// more.
    #[cold]
    fn stalled(&self) -> EngineError {
        if self.members.is_cut_off() { EngineError::CutOff } else { EngineError::Stalled }
    }

    /// Calls `act` under the consumers' lock, if that can be acquired soon.
    #[cold]
    pub(crate) fn as_consumer(&self, act: impl FnOnce()) {
        if let Ok(_held) = self.lock::<Consumers>(|| Deadline::after(TRIM_PATIENCE)) {
            act();
        }
    }

    /// Calls `act` under both locks if the queue is empty, so that no put or get is under way.
    #[cold]
    pub(crate) fn while_empty(&self, act: impl FnOnce()) -> Result<(), EngineError> {
        let patience = || Deadline::after(TRIM_PATIENCE);
        let Control { producers, consumers, .. } = self.control;
        let _consumers = self.lock::<Consumers>(patience)?;
        let _producers = self.lock::<Producers>(patience)?;
        if producers.current().1 == consumers.current().1 {
            act();
        }
        Ok(())
    }

    /// Calls `act` under both locks, or without those that cannot be acquired soon. Returns its
    /// result, and whether both were acquired. (A side whose lock a stopped member holds does not
    /// change either.)
    #[cold]
    pub(crate) fn while_still<R>(&self, act: impl FnOnce() -> R) -> (R, bool) {
        let patience = || Deadline::after(TRIM_PATIENCE);
        let consumers = self.lock::<Consumers>(patience);
        let producers = self.lock::<Producers>(patience);
        (act(), consumers.is_ok() && producers.is_ok())
    }
}
