//! Detecting the end of a queue and of its sides, and waiting for a queue with poll(2).
//!
//! Only the kernel knows whether the other end of the lane is still open, since a handle may be in
//! flight. The check is a system call. It is made after a handle of the other side was closed (a
//! counter in shared memory), before a process waits, and every
//! `PUTS_PER_CHECK` puts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use multiproc_shm::Deadline;
use multiproc_shm::event_count::Poll;

use super::{Inner, MOMENT, PATIENCE};
use crate::engine::error::EngineError;
use crate::engine::ring::Ring;
use crate::fd_lane;
use crate::memory::Store;

/// The parts of `Inner::puts_ended`: a number of closed producers, and whether putting has ended.
const KNOWN: u64 = !ENDED;
const ENDED: u64 = 1 << 32;

impl<T> Inner<T> {
    /// Ends putting through this handle.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        // Dropping the last reference wakes the other side.
        drop(self.producer.swap(None));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Makes this process an observer, which keeps the queue for others: see
    /// [`Region::observe`](multiproc_shm::region::Region::observe).
    pub(crate) fn observe(&self) {
        self.store.region.observe();
        if let Some(end) = &self.consumer {
            end.keep_for_others();
        }
    }

    /// Ends the queue for all processes.
    pub(crate) fn shut_down(&self, drain: bool) {
        self.store.region.control().shut_down(drain);
        // Wakes the processes that wait with poll(2), on both sides. Packets in the lane can still
        // be received.
        if let Some(end) = self.producer_end().as_ref().or(self.consumer.as_ref()) {
            end.shut_down();
        }
        self.discard(PATIENCE);
    }

    /// Releases the queued items if no process can get them any more: their memory, and their
    /// descriptors if this handle can get. The process that shuts the queue down calls this. Since
    /// that process may have no consumers' end, or may be killed before, every operation that finds
    /// the queue closed calls it as well.
    #[cold]
    pub(crate) fn discard(&self, patience: Duration) {
        let ring = self.ring();
        let deadline = Deadline::after(patience);
        if ring.is_discarding() && self.record_left(deadline) {
            self.drain_lane();
            ring.discard(deadline);
            self.discard_tasks(&ring);
        }
    }

    /// Before the tasks of a queue without consumers are discarded, records their number for the
    /// processes that join. Returns `false` if that must be done later.
    fn record_left(&self, deadline: Deadline) -> bool {
        let is_needed = self.store.tasks.is_some() && self.store.region.control().is_orphaned();
        !is_needed || self.work().record_left(deadline)
    }

    /// Closes the descriptors in the lane of a queue that is shut down and has no items left.
    pub(super) fn drain_lane(&self) {
        if let Some(end) = &self.consumer {
            // From here on no process can send, so the drain ends.
            end.shut_down();
            end.drain(Deadline::NEVER);
        }
    }

    /// Discards the items if no consumer is left, so that they are not counted.
    pub(super) fn discard_unreachable(&self) {
        if self.consumer.is_none() && self.gettable_len() > 0 {
            // If no consumer is left, this discards the items.
            let _ = self.check_consumers(true);
        }
    }

    /// Returns an error if no consumer is left. Asks the kernel only if a consumer was closed since
    /// the last check, or if it is `time` for a check.
    #[inline]
    pub(super) fn check_consumers(&self, time: bool) -> Result<(), EngineError> {
        let closed = self.store.region.control().config.closed_consumers.load(Ordering::Relaxed);
        let is_same = closed == self.closed_consumers.load(Ordering::Relaxed);
        if is_same && !time { Ok(()) } else { self.poll_consumers(closed) }
    }

    #[cold]
    fn poll_consumers(&self, closed: u32) -> Result<(), EngineError> {
        let is_hung_up =
            self.consumer.is_none() && self.producer_end().is_some_and(|end| end.is_hung_up());
        // The order matters: a shutdown closes the lane as well, but may leave items for consumers.
        if self.store.region.control().is_shut_down() {
            self.discard(MOMENT);
            return Err(EngineError::Closed);
        }
        if is_hung_up {
            self.store.region.control().orphan();
            self.discard(MOMENT);
            return Err(EngineError::Disconnected);
        }
        self.closed_consumers.store(closed, Ordering::Relaxed);
        Ok(())
    }

    /// Returns `true` if this handle does not put and has found that no other one is left that
    /// could. Asks the kernel only after a producer was closed. If the last one was killed, this
    /// may stay `false`: processes that wait find out at their next recheck.
    #[inline]
    pub(crate) fn have_puts_ended(&self) -> bool {
        if !self.is_closed() {
            return false;
        }
        let closed = self.store.region.control().config.closed_producers.load(Ordering::Relaxed);
        let known = self.puts_ended.load(Ordering::Relaxed);
        if known & KNOWN == u64::from(closed) { known & ENDED != 0 } else { self.poll_puts(closed) }
    }

    #[cold]
    fn poll_puts(&self, closed: u32) -> bool {
        let has_ended = self.consumer.as_ref().is_none_or(|end| end.is_hung_up());
        let answer = u64::from(closed) | if has_ended { ENDED } else { 0 };
        self.puts_ended.store(answer, Ordering::Relaxed);
        has_ended
    }

    /// Called when the queue is empty: returns an error if no item can be put or come back any
    /// more.
    pub(crate) fn check_producers(
        &self,
        ring: &Ring<'_, Store>,
        poll: Poll,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<(), EngineError> {
        match self.check_puts(ring, poll, deadline) {
            // The order matters: an item that was got since then is in progress.
            Err(EngineError::Closed) if self.may_tasks_come_back() => Ok(()),
            Err(EngineError::Disconnected) if !self.is_over(ring) => Ok(()),
            result => result,
        }
    }

    /// Returns `true` if no task can come although no producer is left. A worker that finishes its
    /// task together with a put needs no producers' end, so neither may have changed during the
    /// search for tasks in progress.
    fn is_over(&self, ring: &Ring<'_, Store>) -> bool {
        if self.store.tasks.is_none() {
            return true;
        }
        let before = ring.counts();
        before.is_some_and(|(produced, consumed)| produced == consumed)
            && !self.may_tasks_come_back()
            && ring.counts() == before
    }

    /// Returns an error if the queue is empty and no item can be put any more.
    fn check_puts(
        &self,
        ring: &Ring<'_, Store>,
        poll: Poll,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<(), EngineError> {
        if ring.control.is_shut_down() && ring.is_drained(deadline)? {
            return Err(EngineError::Closed);
        }
        let closed = ring.control.config.closed_producers.load(Ordering::Relaxed);
        let is_same = closed == self.closed_producers.load(Ordering::Relaxed);
        if is_same && poll == Poll::Retry { Ok(()) } else { self.poll_producers(ring, closed) }
    }

    #[cold]
    fn poll_producers(&self, ring: &Ring<'_, Store>, closed: u32) -> Result<(), EngineError> {
        let Some(end) = &self.consumer else { return Ok(()) };
        // A handle with both ends is a producer itself. The lane is checked before the length, so
        // that items that were put before the lane was closed are seen.
        if self.is_closed() && end.is_hung_up() && ring.len() == 0 {
            return Err(EngineError::Disconnected);
        }
        if end.has_packets() {
            // If the queue is empty, the packets belong to no item: a producer was killed, or the
            // doorbell was rung.
            let _ = ring.while_empty(|| end.drain(Deadline::after(MOMENT)));
        }
        ring.trim_if_idle();
        self.trim_tasks(ring);
        self.closed_producers.store(closed, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn watch_consumer<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
        // A lane whose other end is closed is always ready, although tasks may still come back.
        // Those are found by the recheck.
        let may_hang_up = self.store.tasks.is_some();
        if let Some(end) = self.consumer.as_ref().filter(|end| !(may_hang_up && end.is_hung_up())) {
            add(end.as_fd());
        }
    }

    /// Returns `true` if `get` would not wait, or once for each new dead letter. Otherwise, as soon
    /// as it would not, a packet arrives in the lane or the lane is closed.
    pub(crate) fn prepare_to_get(&self) -> io::Result<bool> {
        let ring = self.ring();
        self.reclaim();
        if self.len() > 0 || self.take_letter_report() {
            return Ok(true);
        }
        // First removes packets that belong to no item. Only then requests the doorbell, and then
        // checks once more.
        let is_over = |result: Result<(), EngineError>| {
            result.is_err_and(|error| error != EngineError::Stalled)
        };
        if is_over(self.check_producers(&ring, Poll::CheckLiveness, || Deadline::after(MOMENT))) {
            self.discard(MOMENT);
            return Ok(true);
        }
        ring.control.ask_for_doorbell(fd_lane::now());
        let is_over = ring.control.is_shut_down() && !self.may_tasks_come_back();
        Ok(self.len() > 0 || is_over || self.take_letter_report())
    }

    /// Wakes a process that waits with poll(2), if one has requested it.
    #[inline]
    pub(crate) fn ring_doorbell(&self) {
        if self.store.region.control().must_ring_doorbell() {
            self.ring_requested_doorbell();
        }
    }

    #[cold]
    fn ring_requested_doorbell(&self) {
        match self.producer_end() {
            Some(end) => end.ring(),
            // Another process rings. Until then, those that wait recheck.
            None => self.store.region.control().ask_again(fd_lane::now()),
        }
    }
}
