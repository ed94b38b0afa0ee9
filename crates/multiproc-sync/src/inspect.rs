//! What a manager shows of an object that it has handed out.

use crate::robust::Robust;
use multiproc_shm::region::{Control, Region};

/// Who has an object open, and who waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// How many living processes have it open, but those that stand aside.
    pub members: usize,
    /// The process that holds its lock, if it has one and that one is alive; 0 is unknown.
    pub holder: Option<u32>,
    /// Somebody waits for it, or did when last one was woken.
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
    /// Looks.
    fn inspect(&self) -> Inspection;

    /// See [`Region::stand_aside`].
    fn observe(&self);
}
