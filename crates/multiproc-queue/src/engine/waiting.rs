//! Waiting for room and for items.

use std::time::Duration;

use multiproc_shm::Deadline;
use multiproc_shm::RECHECK;
use multiproc_shm::event_count::{PAUSE, Poll};
use multiproc_shm::members::Members;

use super::control::NotFull;
use super::error::EngineError;
use super::get::{Incoming, Sink};
use super::overflow::Memory;
use super::put::{Items, Outgoing, Put};
use super::ring::Ring;

/// The first interval at which a producer retries to send descriptors while the user has too many
/// in flight. Nothing notifies it when another queue or program has received some. The interval
/// doubles, up to [`RECHECK`].
const DESCRIPTORS_RECHECK: Duration = Duration::from_millis(1);

impl<M: Members + Memory> Ring<'_, M> {
    /// Puts all items, and waits for room. Returns how many were put: fewer than all if the
    /// deadline passed.
    ///
    /// `check` is called when there is no room, and can end the wait.
    #[inline]
    pub(crate) fn put(
        &self,
        items: Items<'_>,
        mut fds: Option<&mut dyn Outgoing>,
        deadline: Deadline,
        check: impl FnMut(Poll) -> Result<(), EngineError>,
    ) -> (usize, Result<(), EngineError>) {
        self.puts.keep();
        let first = self.try_put(items, fds.as_mut().map(|p| &mut **p as _), || deadline);
        match first {
            Ok((count, Put::Done)) => (count, Ok(())),
            Ok((count, full)) => self.put_contended(items, count, full, fds, deadline, check),
            Err(error) => (0, Err(error)),
        }
    }

    #[cold]
    fn put_contended(
        &self,
        items: Items<'_>,
        mut done: usize,
        mut full: Put,
        mut fds: Option<&mut dyn Outgoing>,
        deadline: Deadline,
        mut check: impl FnMut(Poll) -> Result<(), EngineError>,
    ) -> (usize, Result<(), EngineError>) {
        let NotFull { places, bytes, .. } = &self.control.not_full;
        let mut pause = DESCRIPTORS_RECHECK;
        loop {
            // Waits until some are put, or until another resource is missing.
            let waiters = if full == Put::NoPlace { places } else { bytes };
            let until = match full {
                Put::NoDescriptors => deadline.or_earlier(Deadline::after(pause)),
                _ => deadline,
            };
            let fences = self.control.fences();
            let waited = waiters.wait_asymmetric(fences, PAUSE, until, RECHECK, |poll| {
                let rest = items.after(done);
                let fds = fds.as_mut().map(|fds| &mut **fds as &mut dyn Outgoing);
                match self.try_put(rest, fds, || deadline) {
                    Ok((0, same)) if same == full => check(poll).err().map(Err),
                    result => Some(result),
                }
            });
            if full == Put::NoPlace && waited.slept && self.len() < self.limits.capacity {
                places.notify_one(self.control.fences().light());
            }
            match waited.outcome {
                None if full == Put::NoDescriptors && !deadline.is_past() => {
                    pause = RECHECK.min(2 * pause);
                }
                None => return (done, Err(EngineError::Stalled)),
                Some(Err(error)) => return (done, Err(error)),
                Some(Ok((count, put))) => {
                    done += count;
                    if put == Put::Done {
                        return (done, Ok(()));
                    }
                    full = put;
                    // If the two kinds of "full" alternate without end, the memory was overwritten
                    // by a hostile process.
                    if count == 0 && deadline.is_past() {
                        return (done, Err(EngineError::Stalled));
                    }
                }
            }
        }
    }

    /// Gets as many items as are queued and the sink takes, and waits for the first one.
    ///
    /// `check` is called when there is none, and can end the wait.
    #[inline]
    pub(crate) fn get(
        &self,
        sink: &mut impl Sink,
        lane: &mut dyn Incoming,
        deadline: Deadline,
        check: impl FnMut(Poll) -> Result<(), EngineError>,
    ) -> Result<usize, EngineError> {
        self.gets.keep();
        match self.try_get(sink, lane, || deadline) {
            Ok(0) => self.get_contended(sink, lane, deadline, check),
            result => result,
        }
    }

    #[cold]
    fn get_contended(
        &self,
        sink: &mut impl Sink,
        lane: &mut dyn Incoming,
        deadline: Deadline,
        mut check: impl FnMut(Poll) -> Result<(), EngineError>,
    ) -> Result<usize, EngineError> {
        let result =
            self.wait_for_item(deadline, |poll| match self.try_get(sink, lane, || deadline) {
                Ok(0) => check(poll).err().map(Err),
                result => Some(result),
            });
        result.unwrap_or(Ok(0))
    }

    /// Calls `attempt` whenever there may be an item, until it returns a result. Returns `None` if
    /// the deadline passed.
    pub(crate) fn wait_for_item<R>(
        &self,
        deadline: Deadline,
        attempt: impl FnMut(Poll) -> Option<R>,
    ) -> Option<R> {
        let empty = &self.control.not_empty.waiters;
        let waited = empty.wait_asymmetric(
            self.control.fences(),
            self.gets.steps(),
            deadline,
            RECHECK,
            attempt,
        );
        if waited.slept && self.len() > 0 {
            empty.notify_one(self.control.fences().light());
        }
        waited.outcome
    }

    /// Wakes one consumer that waits: an item has become available that was not put.
    pub(crate) fn notify_consumer(&self) {
        self.control.not_empty.waiters.notify_one(self.control.fences().light());
    }

    /// Wakes all waiting consumers, because they may wait in vain.
    #[cold]
    pub(crate) fn wake_consumers(&self) {
        self.control.not_empty.waiters.wake_all();
    }
}
