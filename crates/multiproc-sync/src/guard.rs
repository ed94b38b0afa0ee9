//! The parts of guards: the raw lock that this process holds, and who it is.

use std::fmt;
use std::thread;

use multiproc_shm::members::{MemberId, Members, Membership};
use multiproc_shm::region::{Control, Region};

use crate::raw::lock::{Acquired, Lock};
use crate::robust::Robust;

/// A guard of a lock whose last holder may have died.
pub trait Repair {
    /// Marks what the lock protects as repaired.
    fn repaired(&mut self);
}

/// The member that holds a guard, and whether a panic has begun since.
///
/// A copy of a guard in a forked child belongs to the parent, and has no effect. A panic that
/// begins while the guard is held counts as the death of its holder, as with the poisoning of std's
/// mutexes.
pub(crate) struct Holder<'a> {
    membership: &'a Membership,
    member: MemberId,
    was_panicking: bool,
}

impl<'a> Holder<'a> {
    #[inline]
    pub(crate) fn new<C: Control>(region: &'a Region<C>) -> Self {
        let (membership, member) = (region.membership(), region.me());
        Self { membership, member, was_panicking: thread::panicking() }
    }

    /// Returns the member that has the guard, if it is this process.
    #[inline]
    pub(crate) fn member(&self) -> Option<MemberId> {
        self.membership.is(self.member).then_some(self.member)
    }

    /// Returns true if a panic has begun since the guard was made.
    #[inline]
    pub(crate) fn has_panicked(&self) -> bool {
        !self.was_panicking && thread::panicking()
    }
}

/// A raw lock that is held, and released on drop.
pub(crate) struct Held<'a> {
    lock: &'a Lock,
    taken: Acquired,
    holder: Holder<'a>,
}

impl<'a> Held<'a> {
    /// Creates the guard of a lock that was just acquired.
    #[inline]
    pub(crate) fn new<C: Control>(robust: Robust<'a, C>, taken: Acquired) -> Self {
        Self { lock: robust.lock, taken, holder: Holder::new(robust.region) }
    }

    #[inline]
    pub(crate) fn is_abandoned(&self) -> bool {
        self.taken == Acquired::OwnerDied
    }

    #[inline]
    pub(crate) fn holder(&self) -> &Holder<'a> {
        &self.holder
    }

    /// Marks what the lock protects as half changed: the next acquirer is told as well.
    pub(crate) fn abandon(&mut self) {
        self.taken = Acquired::OwnerDied;
    }

    /// Marks what the lock protects as repaired.
    pub(crate) fn repaired(&mut self) {
        self.lock.repaired();
        self.taken = Acquired::Clean;
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(member) = self.holder.member() {
            let taken = if self.holder.has_panicked() { Acquired::OwnerDied } else { self.taken };
            self.lock.unlock(member, taken);
        }
    }
}

/// Adds the state of a lock to a `Debug` text.
pub(crate) fn debug_lock<C: Control>(
    text: &mut fmt::DebugStruct<'_, '_>,
    Robust { lock, region }: Robust<'_, C>,
) {
    match lock.owner() {
        Some(owner) => text
            .field("holder", &owner)
            .field("pid", &region.pid(owner))
            .field("alive", &region.is_alive(owner)),
        None => text.field("holder", &None::<()>),
    };
    text.field("abandoned", &lock.is_abandoned()).field("waited_for", &lock.has_sleepers());
}
