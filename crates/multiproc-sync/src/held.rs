//! What every guard is made of: a raw lock that this process holds.

use std::fmt;

use crate::raw::lock::{Lock, Taken};
use crate::raw::members::Members;
use crate::region::{Control, Region};

/// A guard of a lock that may have been abandoned.
pub trait Repair {
    /// What a dead holder left has been put right.
    fn repaired(&mut self);
}

/// A raw lock that is held while this lives.
pub(crate) struct Held<'a> {
    lock: &'a Lock,
    taken: Taken,
}

impl<'a> Held<'a> {
    /// The lock has just been taken.
    #[inline]
    pub(crate) fn new(lock: &'a Lock, taken: Taken) -> Self {
        Self { lock, taken }
    }

    #[inline]
    pub(crate) fn is_abandoned(&self) -> bool {
        self.taken == Taken::Abandoned
    }

    /// What a dead holder left has been put right.
    pub(crate) fn repaired(&mut self) {
        self.lock.repaired();
        self.taken = Taken::Clean;
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.lock.unlock(self.taken);
    }
}

/// The state of a lock, for the `Debug` of what it is part of.
pub(crate) fn debug_lock<C: Control>(
    text: &mut fmt::DebugStruct<'_, '_>,
    lock: &Lock,
    region: &Region<C>,
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
