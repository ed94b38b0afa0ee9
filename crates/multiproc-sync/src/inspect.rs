//! What a manager lists about an object that it has handed out.

use multiproc_shm::region::{Control, Region};

use crate::robust::Robust;

/// The users of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// The number of living processes that have it open, without observers.
    pub members: usize,
    /// The pid of the living holder of its lock, if any; 0 is unknown.
    pub holder: Option<u32>,
    /// Whether processes wait for it, or did when a waiter was last woken.
    pub waited_for: bool,
}

impl Inspection {
    pub(crate) fn of<C: Control>(region: &Region<C>, waited_for: bool) -> Self {
        Self { members: region.live_members(), holder: None, waited_for }
    }

    pub(crate) fn of_lock<C: Control>(Robust { lock, region }: Robust<'_, C>, waits: bool) -> Self {
        use multiproc_shm::members::Members;
        let holder = lock.owner().filter(|&owner| region.is_alive(owner));
        Self {
            holder: holder.map(|owner| region.pid(owner)),
            ..Self::of(region, lock.has_sleepers() || waits)
        }
    }
}

/// Implemented by all primitives.
pub trait Inspect {
    /// Returns the users of the object.
    fn inspect(&self) -> Inspection;

    /// Makes this process an observer: it is not counted, and its death has no effect.
    fn observe(&self);
}
