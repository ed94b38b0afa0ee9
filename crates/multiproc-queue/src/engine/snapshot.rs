//! The state of a queue as a member reads it without a lock: its length, its bytes, its end.

use multiproc_shm::Deadline;
use multiproc_shm::members::Members;

use super::control::Control;
use super::error::EngineError;
use super::overflow::Memory;
use super::ring::Ring;
use super::side::Cursor;
use super::side_lock::Producers;

impl<M: Members + Memory> Ring<'_, M> {
    /// Returns the number of items that were put, and that were got, so far.
    pub(crate) fn counts(&self) -> Option<(u64, u64)> {
        let Control { producers, consumers, .. } = self.control;
        let consumed = consumers.observe()?.count;
        Some((producers.observe()?.count, consumed))
    }

    /// Returns when no put can be committed any more, after the queue was shut down or orphaned: a
    /// put that began before is committed, and none can follow.
    #[cold]
    pub(crate) fn end_puts(&self, deadline: Deadline) -> Result<(), EngineError> {
        self.lock::<Producers>(|| deadline).map(drop)
    }

    /// Returns `true` if the queue is shut down and no item will come any more. To be called when
    /// it was empty.
    #[cold]
    pub(crate) fn is_drained(
        &self,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<bool, EngineError> {
        if !self.control.is_shut_down() {
            return Ok(false);
        }
        if self.is_discarding() {
            return Ok(true);
        }
        // A put that began before may have been committed since. No put can follow after this lock
        // was acquired.
        drop(self.lock::<Producers>(deadline)?);
        Ok(self.len() == 0)
    }

    /// Returns the number of items. It was exact at one moment during the call.
    pub(crate) fn len(&self) -> u64 {
        let (head, tail) = self.cursors();
        tail.count.saturating_sub(head.count).min(self.limits.capacity)
    }

    /// Returns the number of bytes of the items, with their headers.
    pub(crate) fn bytes(&self) -> u64 {
        let (head, tail) = self.cursors();
        self.used(head, tail).map_or(0, |used| used.hot + used.overflow)
    }

    /// Returns `true` if queued items are discarded.
    pub(crate) fn is_discarding(&self) -> bool {
        self.control.is_discarding()
    }

    /// Returns both cursors as they were at one moment during the call.
    pub(super) fn cursors(&self) -> (Cursor, Cursor) {
        const NONE: Cursor = Cursor { hot: 0, overflow: 0, count: 0 };
        let Control { producers, consumers, .. } = self.control;
        if self.is_discarding() {
            return (NONE, NONE);
        }
        let try_to = || {
            let mut before = consumers.observe()?;
            let mut tail = producers.observe()?;
            // A few attempts are enough: counts only grow, and each attempt takes some nanoseconds.
            for _ in 0..100 {
                let after = consumers.observe()?;
                if before == after {
                    break;
                }
                before = after;
                tail = producers.observe()?;
            }
            Some((before, tail))
        };
        try_to().unwrap_or((NONE, NONE))
    }
}
