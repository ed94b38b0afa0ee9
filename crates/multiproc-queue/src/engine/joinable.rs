//! Ring and slots together: what a joinable queue does.
//!
//! A count of both is exact if the ring kept still meanwhile, and no task came back: see the
//! invariants of [`tasks`](super::slots). Two things are asked:
//!
//! - **Is everything done?** One attempt answers that. If anything moved, the answer is no: whatever
//!   was put, got or brought back meanwhile will be completed later, and whoever completes it asks
//!   again. (If it dies before, those who wait ask again at their next recheck.)
//! - **How many are there?** Attempts are made until one is exact: after a few, under the locks of
//!   the ring.

use std::sync::{Mutex, atomic};

use multiproc_shm::Deadline;
use multiproc_shm::RECHECK;
use multiproc_shm::event_count::{PAUSE, Poll};
use multiproc_shm::members::Members;
use multiproc_shm::primitives::{Backoff, Ordering};

use super::allocation::SlotHints;
use super::error::EngineError;
use super::frame::Header;
use super::get::{Incoming, Sink};
use super::letters::LetterEnd;
use super::overflow::Memory;
use super::redelivery::Batch;
use super::ring::Ring;
use super::slot::Slot;
use super::slots::{Delivered, Places, Tally, Tasks};

/// A joinable queue, as one of its handles sees it.
pub(crate) struct Work<'a, M> {
    pub(crate) ring: Ring<'a, M>,
    pub(crate) max_attempts: u32,
    pub(crate) hints: &'a Hints,
    /// Whether this handle puts no more. As long as one does, the queue does not end by itself.
    pub(crate) is_closed: bool,
}

/// What a handle has seen of tasks. Hints, in the memory of its process.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// How often a task had come back, when last none was there.
    returned: atomic::AtomicU32,
    slot_hints: SlotHints,
    /// A slot in which an unfinished task was last found.
    busy: atomic::AtomicU64,
    batch: Mutex<Batch>,
    /// Where the search for tasks of dead members goes on.
    reclaimed: atomic::AtomicU64,
    /// How many more tasks that have come back are taken before another slot is looked for.
    short: atomic::AtomicU32,
}

/// How many tasks that have come back are taken for one search in vain of all slots for a free one.
const SHORT: u32 = 64;

/// What stays the same while no task is put, got or brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Still {
    returned: u32,
    produced: u64,
    consumed: u64,
}

/// Who gets a task, and where it goes.
pub(crate) struct Getting<'a> {
    pub(crate) thread: u64,
    pub(crate) buffer: &'a mut Vec<u8>,
    pub(crate) lane: &'a mut dyn Incoming,
    /// What was got. It stays here until the end: each result that it went through would copy it.
    pub(crate) task: Option<Delivered>,
}

impl<'a> Getting<'a> {
    #[inline]
    pub(crate) fn new(thread: u64, buffer: &'a mut Vec<u8>, lane: &'a mut dyn Incoming) -> Self {
        Self { thread, buffer, lane, task: None }
    }
}

/// An item on its way into a slot.
struct TaskSink<'a, M> {
    buffer: &'a mut Vec<u8>,
    tasks: Tasks<'a, M>,
    thread: u64,
    slot_hints: &'a SlotHints,
    task: &'a mut Option<Delivered>,
}

impl<M: Members + Places> Sink for TaskSink<'_, M> {
    #[inline]
    fn takes_more(&self) -> bool {
        false
    }

    #[inline]
    fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer
    }

    #[inline]
    fn finish_item(&mut self, header: &Header) -> Result<(), EngineError> {
        let had_descriptors = header.tag != 0;
        let (number, thread) = (header.number, self.thread);
        let task =
            self.tasks.allocate(number, self.buffer, had_descriptors, thread, self.slot_hints)?;
        *self.task = Some(task);
        Ok(())
    }
}

impl<'a, M: Members + Memory + Places> Work<'a, M> {
    #[inline]
    pub(crate) fn tasks(&self) -> Tasks<'a, M> {
        Tasks {
            control: &self.ring.control.tasks,
            members: self.ring.members,
            max_attempts: self.max_attempts,
            longest: usize::try_from(self.ring.limits.bytes).unwrap_or(usize::MAX),
        }
    }

    /// Puts the tasks of dead members back: until the deadline, the next call does the rest.
    pub(crate) fn reclaim(&self, deadline: Deadline) {
        let Some((produced, _)) = self.ring.counts() else { return };
        let consumed = || self.ring.counts().map(|(_, consumed)| consumed);
        let first = Slot::from_bits(self.hints.reclaimed.load(atomic::Ordering::Relaxed));
        let (any, next) = self.tasks().reclaim(first, consumed, produced, deadline);
        self.hints.reclaimed.store(next.to_bits(), atomic::Ordering::Relaxed);
        if any {
            self.came_back();
        }
    }

    /// The task that this member works on is done.
    #[inline]
    pub(crate) fn ack(&self, slot: Slot) {
        self.tasks().ack(slot);
        self.ended();
    }

    /// Tasks that this member has detached are done.
    pub(crate) fn ack_detached(&self, slots: &[Slot]) {
        slots.iter().for_each(|&slot| _ = self.tasks().ack_detached(slot));
        self.ended();
    }

    /// The task that this member works on goes back, to the end.
    pub(crate) fn nack(&self, slot: Slot) {
        self.tasks().nack(slot, self.end());
        self.came_back();
    }

    /// It cannot be decoded.
    pub(crate) fn dead_letter(&self, slot: Slot) {
        self.tasks().dead_letter(slot);
        self.ended();
    }

    /// What becomes of a dead letter that this member has taken.
    pub(crate) fn end_letter(&self, slot: Slot, end: LetterEnd) {
        self.tasks().end_letter(slot, end);
        self.came_back();
    }

    /// The number of the next item that is put.
    pub(crate) fn end(&self) -> u64 {
        self.ring.counts().map_or(0, |(produced, _)| produced)
    }

    fn came_back(&self) {
        self.ring.notify_consumer();
        // It may have become a dead letter, and have been the last one.
        self.ended();
    }

    /// To be called when a task may have ended: if it was the last one, those are woken who join;
    /// and if no other can come, those who wait for one.
    #[inline]
    fn ended(&self) {
        let all_done = self.ring.control.tasks.all_done();
        // Whoever joins has a heavy one before it sleeps.
        self.ring.control.fences().light();
        let is_end = self.is_closed || self.ring.control.is_shut_down();
        if is_end || all_done.has_sleepers() {
            self.notify_if_last(is_end);
        }
    }

    #[cold]
    fn notify_if_last(&self, is_end: bool) {
        // If two end the last two tasks, one of them sees that both have ended.
        let passed = self.ring.control.fences().full();
        if self.is_all_done() {
            self.ring.control.tasks.all_done().notify_all(passed);
            if is_end {
                self.ring.wake_consumers();
            }
        }
    }

    /// What must be the same before and after a look at the slots.
    fn still(&self) -> Option<Still> {
        let returned = self.ring.control.tasks.returned.load(Ordering::Acquire);
        let (produced, consumed) = self.ring.counts()?;
        Some(Still { returned, produced, consumed })
    }

    /// Whether all tasks were done, at one moment during the call. (Of a queue whose items are thrown
    /// away, those in work.) False also if something was put, got or brought back during the call.
    pub(crate) fn is_all_done(&self) -> bool {
        let is_discarding = self.ring.is_discarding();
        let Some(still) = self.still() else { return false };
        if still.produced != still.consumed && !is_discarding {
            return false;
        }
        let busy = Slot::from_bits(self.hints.busy.load(atomic::Ordering::Relaxed));
        match self.tasks().find_unfinished(busy, still.consumed, is_discarding) {
            Some(found) => {
                if found != busy {
                    self.hints.busy.store(found.to_bits(), atomic::Ordering::Relaxed);
                }
                false
            }
            None => self.still() == Some(still),
        }
    }

    /// How many tasks are not done: exact at one moment during the call. Of a queue whose items are
    /// thrown away, those in work.
    pub(crate) fn unfinished(&self) -> usize {
        if self.ring.is_discarding() {
            return self.count(|_, tally| tally.in_work, |_| u64::MAX);
        }
        let add = |items: usize, Tally { ready, returning, in_work }| {
            items.saturating_add(ready + returning + in_work)
        };
        self.count(add, |consumed| consumed)
    }

    /// How many tasks can be got.
    pub(crate) fn len(&self) -> usize {
        if self.ring.is_discarding() {
            return 0;
        }
        let add =
            |items: usize, Tally { ready, returning, .. }| items.saturating_add(ready + returning);
        self.count(add, |consumed| consumed)
    }

    /// Counts items and tasks: exact at one moment during the call. Tasks in work count if their
    /// number is below what `covered` makes of the consumers' count.
    fn count(&self, add: impl Fn(usize, Tally) -> usize, covered: impl Fn(u64) -> u64) -> usize {
        /// One attempt is nearly always enough, unless tasks are put and got all the time.
        const FREE: u32 = if cfg!(loom) { 1 } else { 4 };
        /// Attempts with the ring held still. Only a task that is just coming back makes them fail.
        const HELD: u32 = if cfg!(loom) { 1 } else { 64 };
        let attempt = || {
            let Some(still) = self.still() else { return (1, true) };
            let tally = self.tasks().tally(covered(still.consumed));
            let is_exact = tally.returning == 0 && self.still() == Some(still);
            let items = still.produced.wrapping_sub(still.consumed).min(self.ring.limits.capacity);
            (add(usize::try_from(items).unwrap_or(usize::MAX), tally), is_exact)
        };
        for _ in 0..FREE {
            if let (count, true) = attempt() {
                return count;
            }
        }
        let (mut last, backoff) = (0, Backoff::new());
        for round in 0..HELD {
            let ((count, is_exact), was_still) = self.ring.while_still(attempt);
            if is_exact {
                return count;
            }
            last = count;
            if !was_still && round > 1 {
                break;
            }
            backoff.snooze();
        }
        // A member was stopped while it brought a task back: there is one.
        last.max(1)
    }

    /// Waits until all tasks are done. `looked` is called after each look. False: not in time.
    pub(crate) fn join(&self, deadline: Deadline, mut looked: impl FnMut()) -> bool {
        let all_done = self.ring.control.tasks.all_done();
        let waited = all_done.wait_asymmetric(
            self.ring.control.fences(),
            PAUSE,
            deadline,
            RECHECK,
            |poll| {
                if poll == Poll::CheckLiveness {
                    self.reclaim(deadline);
                    looked();
                }
                self.is_all_done().then_some(())
            },
        );
        waited.outcome.is_some()
    }

    /// Takes the next task that was not delivered before, if there is one, and none has come back.
    #[inline]
    pub(crate) fn take_fresh(
        &self,
        getting: &mut Getting<'_>,
        deadline: Deadline,
    ) -> Result<bool, EngineError> {
        if self.may_have_returned() {
            return Ok(false);
        }
        match self.take_item(getting, deadline) {
            Ok(()) => Ok(getting.task.is_some()),
            Err(error) if is_short_of_slots(error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the next task, if there is one. `check` is called when there is none, and may say that
    /// none will come.
    pub(crate) fn attempt(
        &self,
        getting: &mut Getting<'_>,
        poll: Poll,
        deadline: Deadline,
        check: impl FnOnce(Poll) -> Result<(), EngineError>,
    ) -> Option<Result<(), EngineError>> {
        match self.take(getting, poll, deadline) {
            Ok(()) if getting.task.is_none() => check(poll).err().map(Err),
            result => Some(result),
        }
    }

    /// Takes the next task, if there is one.
    pub(crate) fn take(
        &self,
        getting: &mut Getting<'_>,
        poll: Poll,
        deadline: Deadline,
    ) -> Result<(), EngineError> {
        if poll == Poll::CheckLiveness {
            self.reclaim(deadline);
        }
        let short = self.hints.short.load(atomic::Ordering::Relaxed);
        if short > 0 {
            self.hints.short.store(short - 1, atomic::Ordering::Relaxed);
        }
        // What has come back, if its turn has come; and whatever has, if there is nothing else.
        self.take_returned(getting, poll, short > 0)?;
        if getting.task.is_none() {
            match self.take_item(getting, deadline) {
                Err(error) if is_short_of_slots(error) => {
                    return self.take_instead(getting, error, deadline);
                }
                result => result?,
            }
        }
        if getting.task.is_none() {
            self.take_returned(getting, poll, true)?;
        }
        Ok(())
    }

    /// For want of a slot, takes a task that has one: whatever has come back, or comes back now. It
    /// would never come otherwise if nobody else had a task: its turn is behind the item that needs a
    /// slot.
    #[cold]
    fn take_instead(
        &self,
        getting: &mut Getting<'_>,
        error: EngineError,
        deadline: Deadline,
    ) -> Result<(), EngineError> {
        self.take_returned(getting, Poll::CheckLiveness, true)?;
        if getting.task.is_none() {
            self.reclaim(deadline);
            self.take_returned(getting, Poll::CheckLiveness, true)?;
        }
        if getting.task.is_none() {
            return Err(error);
        }
        self.hints.short.store(SHORT, atomic::Ordering::Relaxed);
        Ok(())
    }

    #[inline]
    fn take_item(
        &self,
        Getting { thread, buffer, lane, task }: &mut Getting<'_>,
        deadline: Deadline,
    ) -> Result<(), EngineError> {
        let (tasks, slot_hints) = (self.tasks(), &self.hints.slot_hints);
        let mut sink = TaskSink { buffer, tasks, thread: *thread, slot_hints, task };
        self.ring.try_get(&mut sink, *lane, || deadline)?;
        // The notification that woke this one may have been meant for that.
        if task.is_some() && self.may_have_returned() {
            self.ring.notify_consumer();
        }
        Ok(())
    }

    #[inline]
    fn may_have_returned(&self) -> bool {
        let returned = self.ring.control.tasks.returned.load(Ordering::Acquire);
        returned != self.hints.returned.load(atomic::Ordering::Relaxed)
    }

    fn take_returned(
        &self,
        getting: &mut Getting<'_>,
        poll: Poll,
        is_any_due: bool,
    ) -> Result<(), EngineError> {
        if poll == Poll::Retry && !self.may_have_returned() {
            return Ok(());
        }
        self.scan_returned(getting, is_any_due)
    }

    #[cold]
    fn scan_returned(
        &self,
        getting: &mut Getting<'_>,
        is_any_due: bool,
    ) -> Result<(), EngineError> {
        if self.ring.is_discarding() {
            return Err(EngineError::Closed);
        }
        let due = if is_any_due {
            u64::MAX
        } else {
            self.ring.counts().map_or(0, |(_, consumed)| consumed)
        };
        // While another thread has the batch, this one does without: it never waits here.
        let (mut shared, mut own) = (self.hints.batch.try_lock(), Batch::default());
        let batch = shared.as_deref_mut().unwrap_or(&mut own);
        let task = self.tasks().take_returned(batch, due, getting.thread, getting.buffer)?;
        if let Some(returned) = batch.exhausted() {
            self.hints.returned.store(returned, atomic::Ordering::Relaxed);
        } else if task.is_some() {
            self.ring.notify_consumer();
        }
        if let Some(Delivered { slot, .. }) = task
            && self.ring.is_discarding()
        {
            // It may have been seized behind the back of one who joins, and has seen no task in work.
            self.nack(slot);
            return Err(EngineError::Closed);
        }
        getting.task = task;
        Ok(())
    }
}

/// Whether a task was not taken because it would have needed a slot, or the memory of one.
fn is_short_of_slots(error: EngineError) -> bool {
    matches!(error, EngineError::TooManyTasks | EngineError::OutOfMemory)
}
