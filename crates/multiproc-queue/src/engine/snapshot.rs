//! What a member sees of a queue without changing it: its length, its bytes, its end.

use multiproc_shm::Deadline;
use multiproc_shm::members::Members;

use super::control::Control;
use super::error::EngineError;
use super::overflow::Memory;
use super::ring::Ring;
use super::side::Cursor;
use super::side_lock::Producers;

impl<M: Members + Memory> Ring<'_, M> {
    /// How many items were put so far, and how many got.
    pub(crate) fn counts(&self) -> Option<(u64, u64)> {
        let Control { producers, consumers, .. } = self.control;
        let consumed = consumers.observe()?.count;
        Some((producers.observe()?.count, consumed))
    }

    /// Whether a shut-down queue has nothing left to get. To be asked when there was nothing.
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
        // A put that had begun before may have been committed since. Behind it in the lock, there is
        // none any more.
        drop(self.lock::<Producers>(deadline)?);
        Ok(self.len() == 0)
    }

    /// How many items there are: a number that was true at one moment during the call.
    pub(crate) fn len(&self) -> u64 {
        let (head, tail) = self.cursors();
        tail.count.saturating_sub(head.count).min(self.limits.capacity)
    }

    /// How many bytes they take, with their headers.
    pub(crate) fn bytes(&self) -> u64 {
        let (head, tail) = self.cursors();
        self.used(head, tail).map_or(0, |used| used.hot + used.overflow)
    }

    /// Whether what is there is thrown away.
    pub(crate) fn is_discarding(&self) -> bool {
        self.control.is_discarding()
    }

    /// Both marks as they were at one moment during the call.
    pub(super) fn cursors(&self) -> (Cursor, Cursor) {
        const NONE: Cursor = Cursor { hot: 0, overflow: 0, count: 0 };
        let Control { producers, consumers, .. } = self.control;
        if self.is_discarding() {
            return (NONE, NONE);
        }
        let try_to = || {
            let mut before = consumers.observe()?;
            let mut tail = producers.observe()?;
            // Few tries are needed: counts only grow, and each try takes some nanoseconds.
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
