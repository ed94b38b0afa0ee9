//! The locks of the two sides, and what is done while they are held beside put and get.

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

/// How often one who waits for a lock of the ring looks whether its holder is alive. The locks are
/// held for less than a microsecond, so whoever waits longer has most likely met a dead one.
const LOCK_RECHECK: Duration = Duration::from_millis(10);

/// How long a consumer that wants to give memory back waits for the producers' lock.
pub(super) const TRIM_PATIENCE: Duration = Duration::from_millis(10);

/// Names the side whose lock it is. By a type, so that [`Held`] is no more than one pointer: put and
/// get take longer with two.
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

/// A lock of the ring that this thread holds. Dropping it releases the lock, also when a panic unwinds
/// through the operation: as after a death, there is nothing to repair (invariant 3).
#[must_use = "the lock is released as soon as this is dropped"]
pub(super) struct Held<'a, L: Locked> {
    control: &'a Control,
    me: MemberId,
    side: PhantomData<L>,
}

impl<L: Locked> Held<'_, L> {
    /// Releases the lock. What was committed is visible to other members before they go to sleep.
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
    /// Takes a lock of the ring. If its owner died inside, there is nothing to repair (invariant 3).
    #[inline]
    pub(super) fn lock<L: Locked>(
        &self,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<Held<'_, L>, EngineError> {
        let lock = L::lock(self.control);
        // The deadline is made only if there is something to wait for: the clock costs more than
        // the lock.
        let me = self.members.me();
        if !lock.take_free(me) {
            lock.lock(self.members, self.control.fences(), deadline(), LOCK_RECHECK)
                .map_err(|Busy| self.stalled())?;
        }
        Ok(Held { control: self.control, me, side: PhantomData })
    }

    /// Why a lock could not be had: its owner lives, or nobody can tell any more whether it does.
    #[cold]
    fn stalled(&self) -> EngineError {
        if self.members.is_cut_off() { EngineError::CutOff } else { EngineError::Stalled }
    }

    /// Does `act` under the consumers' lock, if that can be had soon.
    #[cold]
    pub(crate) fn as_consumer(&self, act: impl FnOnce()) {
        if let Ok(_held) = self.lock::<Consumers>(|| Deadline::after(TRIM_PATIENCE)) {
            act();
        }
    }

    /// Does `act` while nobody can be in the middle of a put or a get, if the queue is empty then.
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

    /// Does `act` while nobody puts or gets, if the locks can be had soon; whether they could. (If a
    /// member was stopped while it had one, that side keeps still anyhow.)
    #[cold]
    pub(crate) fn while_still<R>(&self, act: impl FnOnce() -> R) -> (R, bool) {
        let patience = || Deadline::after(TRIM_PATIENCE);
        let consumers = self.lock::<Consumers>(patience);
        let producers = self.lock::<Producers>(patience);
        (act(), consumers.is_ok() && producers.is_ok())
    }
}
