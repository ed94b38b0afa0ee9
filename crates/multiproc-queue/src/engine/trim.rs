//! Releasing memory: that of a queue that has run empty, and that of items that no process can get
//! any more.

use multiproc_shm::Deadline;
use multiproc_shm::failpoint;
use multiproc_shm::members::Members;

use super::control::Control;
use super::overflow::Memory;
use super::ring::Ring;
use super::side_lock::{Consumers, Producers, TRIM_PATIENCE};

impl<M: Members + Memory> Ring<'_, M> {
    /// Releases memory if the queue is empty. For callers that have nothing else to do.
    pub(crate) fn trim_if_idle(&self) {
        let (head, tail) = self.cursors();
        if head == tail {
            self.trim_if_time(head.overflow, tail.overflow);
        }
    }

    #[cold]
    pub(super) fn trim_if_time(&self, head: u64, tail: u64) {
        if self.blocks().is_time_to_trim(head, tail) {
            self.trim();
        }
    }

    /// Releases memory that the queue does not need.
    fn trim(&self) {
        let Control { producers, consumers, .. } = self.control;
        // If a stopped producer holds the lock, or the queue is corrupted, the memory stays in use,
        // which is harmless.
        let Ok(_held) = self.lock::<Producers>(|| Deadline::after(TRIM_PATIENCE)) else {
            return;
        };
        let Some(head) = consumers.observe() else { return };
        let (_, tail) = producers.current();
        if self.used(head, tail).is_ok() {
            let _ = self.blocks().trim(head.overflow, tail.overflow);
        }
    }

    /// Discards the items and releases their memory. Only for a queue from which no process can get
    /// any more: see [`is_discarding`](Self::is_discarding). A producer that is about to commit an
    /// item is waited for until the deadline. If that is too short, or this process dies during the
    /// call, the next call does the rest.
    #[cold]
    pub(crate) fn discard(&self, deadline: Deadline) {
        let Control { producers, consumers, .. } = self.control;
        let Ok(_consumers) = self.lock::<Consumers>(|| deadline) else { return };
        // A put that began before is committed by now. No put can follow after this lock was
        // acquired.
        let Ok(_producers) = self.lock::<Producers>(|| deadline) else { return };
        let (_, tail) = producers.current();
        let (epoch, head) = consumers.current();
        if head != tail {
            consumers.prepare(epoch, tail);
            consumers.commit(epoch);
            failpoint::reached("discard.committed");
        }
        let blocks = self.blocks();
        if self.used(tail, tail).is_ok() && blocks.has_more_than_reserve(tail.overflow) {
            let _ = blocks.trim(tail.overflow, tail.overflow);
        }
    }
}
