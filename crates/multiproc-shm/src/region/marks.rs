//! Marks: what the processes that have a region open do with it.
//!
//! A mark is a lock on a byte behind those of the member slots, shared by all processes that do the
//! same, each over its own open file description. So the kernel takes it back when a process ends,
//! for whatever reason, and tells whether any is left. It is not in the region's memory, where a
//! dead process would leave it.

use std::sync::atomic::{AtomicU32, Ordering};

use super::registry::Open;
use crate::members::MEMBERS;
use crate::ofd_lock::{self, Kind};

/// What a process does with a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It takes out what others put in.
    Taker,
    /// It keeps the region for others, as an observer.
    Keeper,
}

const ALL: [Mark; 2] = [Mark::Taker, Mark::Keeper];

impl Mark {
    fn byte(self) -> u32 {
        u32::try_from(MEMBERS).unwrap_or(u32::MAX) + self as u32
    }
}

/// The number of handles in this process for each mark.
#[derive(Debug, Default)]
pub(super) struct Marks {
    handles: [AtomicU32; ALL.len()],
}

impl Open {
    fn handles(&self, mark: Mark) -> &AtomicU32 {
        &self.marks.handles[mark as usize]
    }

    fn is_keeper(&self) -> bool {
        self.handles(Mark::Keeper).load(Ordering::SeqCst) > 0
    }

    /// Takes or releases the lock of a mark, until it agrees with the number of handles. A failure
    /// means that other code has closed the descriptor, or that the kernel is out of memory: then
    /// the mark is missing.
    fn settle(&self, mark: Mark) {
        let Ok(descriptor) = self.descriptor.get() else { return };
        loop {
            // A keeper is nothing else.
            let is_wanted = |open: &Self| {
                open.handles(mark).load(Ordering::SeqCst) > 0
                    && (mark == Mark::Keeper || !open.is_keeper())
            };
            let wanted = is_wanted(self);
            if wanted {
                let _ = ofd_lock::try_lock(descriptor, Kind::Shared, mark.byte());
            } else {
                let _ = ofd_lock::unlock(descriptor, mark.byte());
            }
            // Another thread may have changed the number before this one reached the kernel.
            if is_wanted(self) == wanted {
                return;
            }
        }
    }

    pub(super) fn mark(&self, mark: Mark) {
        if self.handles(mark).fetch_add(1, Ordering::SeqCst) == 0 {
            ALL.iter().for_each(|&mark| self.settle(mark));
        }
    }

    pub(super) fn unmark(&self, mark: Mark) {
        if self.handles(mark).fetch_sub(1, Ordering::SeqCst) == 1 {
            ALL.iter().for_each(|&mark| self.settle(mark));
        }
    }

    /// Takes the locks again in a forked child, over its own open file description.
    pub(super) fn mark_again(&self) {
        ALL.iter().for_each(|&mark| self.settle(mark));
    }

    /// Returns `true` if a living process has the mark, and also if that cannot be determined.
    pub(super) fn is_marked(&self, mark: Mark) -> bool {
        let is_own = self.handles(mark).load(Ordering::SeqCst) > 0;
        (is_own && (mark == Mark::Keeper || !self.is_keeper()))
            || ofd_lock::is_locked(self.descriptor.unchecked(), mark.byte())
            // Checked afterwards: if the descriptor is intact now, it was so during the query.
            || !self.descriptor.is_intact()
    }
}
