//! The end of a queue, and of one of its sides; and waiting for it with poll(2).

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

impl<T> Inner<T> {
    /// Puts no more through this handle.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        // Dropping the last one wakes others.
        drop(self.producer.swap(None));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Ends the queue for everybody.
    pub(crate) fn shut_down(&self, drain: bool) {
        self.store.region.control().shut_down(drain);
        // Wakes those who wait with poll(2), on both sides. What lies in the lane can still be read.
        if let Some(end) = self.producer_end().as_ref().or(self.consumer.as_ref()) {
            end.shut_down();
        }
        self.discard(PATIENCE);
    }

    /// If nobody gets the queued items any more, releases them: their memory, and their descriptors if
    /// this handle could get. The process that shuts the queue down calls this. In case it has no
    /// consumers' end, or is killed before, every operation that finds the queue closed does, too.
    #[cold]
    pub(crate) fn discard(&self, patience: Duration) {
        let ring = self.ring();
        if ring.is_discarding() {
            self.drain_lane();
            ring.discard(Deadline::after(patience));
            self.discard_tasks(&ring);
        }
    }

    /// Closes the descriptors in the lane of a queue that is shut down and has nothing left to get.
    pub(super) fn drain_lane(&self) {
        if let Some(end) = &self.consumer {
            // From here on nobody can send, so the drain comes to an end.
            end.shut_down();
            end.drain(Deadline::NEVER);
        }
    }

    /// Items that no consumer is left for do not count.
    pub(super) fn discard_unreachable(&self) {
        if self.consumer.is_none() && self.gettable_len() > 0 {
            // If none is left, this discards them.
            let _ = self.check_consumers(true);
        }
    }

    /// Whether anybody is left who could get. Asks only if something has changed since, or it is
    /// `time` to.
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
        // In this order: a shutdown hangs the lane up as well, and may leave consumers something.
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

    /// Whether anything can come any more, when nothing was there.
    pub(crate) fn check_producers(
        &self,
        ring: &Ring<'_, Store>,
        poll: Poll,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<(), EngineError> {
        match self.check_puts(ring, poll, deadline) {
            // In this order: what was got since is in work.
            Err(EngineError::Closed | EngineError::Disconnected) if self.may_tasks_come_back() => {
                Ok(())
            }
            result => result,
        }
    }

    /// Whether anything can be put any more, or is there.
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
        // Whoever has both ends is a producer. The look at the lane comes first: what was put before
        // its end is seen by the look at the length.
        if self.is_closed() && end.is_hung_up() && ring.len() == 0 {
            return Err(EngineError::Disconnected);
        }
        if end.has_packets() {
            // If it is empty, they belong to nothing: a producer was killed, or a doorbell was rung.
            let _ = ring.while_empty(|| end.drain(Deadline::after(MOMENT)));
        }
        ring.trim_if_idle();
        self.trim_tasks(ring);
        self.closed_producers.store(closed, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn watch_consumer<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
        // A lane that is hung up is always ready, though tasks may still come back: they are looked
        // for now and then.
        let may_hang_up = self.store.tasks.is_some();
        if let Some(end) = self.consumer.as_ref().filter(|end| !(may_hang_up && end.is_hung_up())) {
            add(end.as_fd());
        }
    }

    /// Whether `get` would not wait. If it would, a packet will lie in the lane as soon as that is
    /// over, or the lane be hung up.
    pub(crate) fn prepare_to_get(&self) -> io::Result<bool> {
        let ring = self.ring();
        self.reclaim();
        if self.len() > 0 {
            return Ok(true);
        }
        // Takes what lies in the lane away, if it belongs to nothing. Only then comes the doorbell, and
        // then the last look.
        let is_over = |result: Result<(), EngineError>| {
            result.is_err_and(|error| error != EngineError::Stalled)
        };
        if is_over(self.check_producers(&ring, Poll::CheckLiveness, || Deadline::after(MOMENT))) {
            self.discard(MOMENT);
            return Ok(true);
        }
        ring.control.ask_for_doorbell(fd_lane::now());
        Ok(self.len() > 0 || (ring.control.is_shut_down() && !self.may_tasks_come_back()))
    }

    /// Wakes who waits with poll(2), if anybody wants to be.
    #[inline]
    pub(crate) fn ring_doorbell(&self) {
        if self.store.region.control().must_ring_doorbell()
            && let Some(end) = self.producer_end()
        {
            end.ring();
        }
    }
}
