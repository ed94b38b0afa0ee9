//! A joinable queue: its ring and its slots together.
//!
//! A count of both is exact if the ring did not change meanwhile and no task came back: see the
//! invariants of [`slots`](super::slots). There are three questions:
//!
//! - **Are all tasks done?** One attempt answers this. If anything changed meanwhile, the answer is
//!   no: a task that was put, got or put back meanwhile will be completed later, and the process
//!   that completes it asks again. (If that process dies before, the waiters ask again at their
//!   next recheck.)
//! - **Can anybody do them?** Where all handles that could get are gone, which is final, a join
//!   ends with the number of tasks that are left. What the dead workers had is put back before it
//!   is counted. Tasks that no process can get are discarded in the end, so their number is
//!   recorded before that.
//! - **How many tasks are there?** Attempts are made until one is exact. After a few, they are made
//!   under the locks of the ring.

use std::sync::{Mutex, atomic};
use std::time::Duration;

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
use super::worker::End;

/// A joinable queue, as one of its handles sees it.
pub(crate) struct Work<'a, M> {
    pub(crate) ring: Ring<'a, M>,
    pub(crate) max_attempts: u32,
    pub(crate) hints: &'a Hints,
    /// Whether this handle knows that no task can be put any more, although the queue was not shut
    /// down.
    pub(crate) have_puts_ended: bool,
}

/// What a handle last saw of the tasks. These are hints, in the memory of its process.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// The value of `Control::returned` when no task that came back was left.
    returned: atomic::AtomicU32,
    slot_hints: SlotHints,
    /// A slot in which an unfinished task was found last.
    busy: atomic::AtomicU64,
    batch: Mutex<Batch>,
    /// Where the next search for tasks of dead members begins.
    reclaimed: atomic::AtomicU64,
    /// How many more tasks that came back are taken before another slot is searched for.
    short: atomic::AtomicU32,
}

/// How a join has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// All tasks are done.
    Done,
    /// The deadline passed.
    TimedOut,
    /// This many tasks are left, and no handle that could get them.
    NoWorkers(usize),
}

/// How long a join waits until the last workers, whose handles are gone, are dead members as well.
/// The kernel closes the descriptors of a process one after the other.
/// (Models have no clock.)
const SETTLE: Duration = if cfg!(loom) { Duration::MAX } else { Duration::from_millis(200) };

/// How many tasks that came back are taken for each search of all slots that found no free one.
const SHORT: u32 = 64;

/// Numbers that stay the same while no task is put, got or put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Still {
    returned: u32,
    produced: u64,
    consumed: u64,
}

/// The thread that gets a task, and the destination.
pub(crate) struct Getting<'a> {
    pub(crate) thread: u64,
    pub(crate) buffer: &'a mut Vec<u8>,
    pub(crate) lane: &'a mut dyn Incoming,
    /// The task. It stays here until the end, because each result that it passed through would
    /// copy it.
    pub(crate) task: Option<Delivered>,
}

impl<'a> Getting<'a> {
    #[inline]
    pub(crate) fn new(thread: u64, buffer: &'a mut Vec<u8>, lane: &'a mut dyn Incoming) -> Self {
        Self { thread, buffer, lane, task: None }
    }
}

/// A sink that moves an item into a slot.
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

    /// Puts the tasks of dead members back, until the deadline. The next call does the rest.
    pub(crate) fn reclaim(&self, deadline: Deadline) {
        let Some((produced, _)) = self.ring.counts() else { return };
        let counts = || self.ring.counts();
        let first = Slot::from_bits(self.hints.reclaimed.load(atomic::Ordering::Relaxed));
        let (any, next) = self.tasks().reclaim(first, counts, produced, deadline);
        self.hints.reclaimed.store(next.to_bits(), atomic::Ordering::Relaxed);
        if any {
            self.came_back();
        }
    }

    /// Completes a task of this member.
    #[inline]
    pub(crate) fn ack(&self, slot: Slot) {
        self.tasks().ack(slot);
        self.ended();
    }

    /// Completes tasks that this member has detached.
    pub(crate) fn ack_detached(&self, slots: &[Slot]) {
        slots.iter().for_each(|&slot| _ = self.tasks().ack_detached(slot));
        self.ended();
    }

    /// Puts a task of this member back, behind the queued tasks.
    pub(crate) fn nack(&self, slot: Slot, end: End) {
        self.tasks().nack(slot, self.end(), end);
        self.came_back();
    }

    /// Makes a task a dead letter, because it cannot be decoded.
    pub(crate) fn dead_letter(&self, slot: Slot) {
        self.tasks().dead_letter(slot);
        self.ended();
    }

    /// Ends the examination of a dead letter that this member has taken.
    pub(crate) fn end_letter(&self, slot: Slot, end: LetterEnd) {
        self.tasks().end_letter(slot, end);
        self.came_back();
    }

    /// Returns the number of the next item that is put.
    pub(crate) fn end(&self) -> u64 {
        self.ring.counts().map_or(0, |(produced, _)| produced)
    }

    fn came_back(&self) {
        self.ring.notify_consumer();
        // It may have become a dead letter, and may have been the last unfinished task.
        self.ended();
    }

    /// Called when a task may have ended. If it was the last one, wakes the processes that join,
    /// and if no other task can come, those that wait for one.
    #[inline]
    pub(super) fn ended(&self) {
        let all_done = self.ring.control.tasks.all_done();
        // A joining process passes a heavy fence before it sleeps.
        self.ring.control.fences().light();
        let is_end = self.have_puts_ended || self.ring.control.is_shut_down();
        if is_end || all_done.has_sleepers() {
            self.notify_if_last(is_end);
        }
    }

    #[cold]
    fn notify_if_last(&self, is_end: bool) {
        // If two processes end the last two tasks, at least one of them sees that both have ended.
        let passed = self.ring.control.fences().full();
        if self.is_all_done() {
            self.ring.control.tasks.all_done().notify_all(passed);
            if is_end {
                self.ring.wake_consumers();
            }
        }
    }

    /// Returns the numbers that must be the same before and after a scan of the slots.
    fn still(&self) -> Option<Still> {
        let returned = self.ring.control.tasks.returned.load(Ordering::Acquire);
        let (produced, consumed) = self.ring.counts()?;
        Some(Still { returned, produced, consumed })
    }

    /// Returns `true` if all tasks were done at one moment during the call. (If the queue's items
    /// are discarded: all tasks in progress.) Also returns `false` if a task was put, got or put
    /// back during the call.
    pub(crate) fn is_all_done(&self) -> bool {
        if let Some(left) = self.left_behind() {
            return left == 0;
        }
        let is_discarding = self.ring.control.is_shut_down_now();
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

    /// Returns the number of tasks that are not done. It is exact at one moment during the call. If
    /// the queue's items are discarded, only tasks in progress count.
    pub(crate) fn unfinished(&self) -> usize {
        if let Some(left) = self.left_behind() {
            return left;
        }
        if self.ring.control.is_shut_down_now() {
            return self.in_work();
        }
        let add = |items: usize, Tally { ready, returning, in_work }| {
            items.saturating_add(ready + returning + in_work)
        };
        self.count(add, |consumed| consumed)
    }

    /// Returns the number of tasks in progress.
    fn in_work(&self) -> usize {
        self.count(|_, tally| tally.in_work, |_| u64::MAX)
    }

    /// Returns the number of tasks that were left when no consumer was, if they are discarded.
    fn left_behind(&self) -> Option<usize> {
        let control = self.ring.control;
        if control.is_orphaned() { control.left() } else { None }
    }

    /// Records the number of tasks that are left, after the last consumer is gone and before the
    /// tasks are discarded. Returns `false` if a later call must do it: a dead worker is still
    /// taken for alive, or a stopped process is in the middle of a put.
    pub(crate) fn record_left(&self, deadline: Deadline) -> bool {
        if self.ring.control.left().is_some() {
            return true;
        }
        self.reclaim(deadline);
        if self.ring.end_puts(deadline).is_err() || self.in_work() > 0 {
            return false;
        }
        self.ring.control.record_left(self.unfinished());
        true
    }

    /// Returns the number of tasks that can be got.
    pub(crate) fn len(&self) -> usize {
        if self.ring.is_discarding() {
            return 0;
        }
        let add =
            |items: usize, Tally { ready, returning, .. }| items.saturating_add(ready + returning);
        self.count(add, |consumed| consumed)
    }

    /// Counts items and tasks. The result is exact at one moment during the call. Tasks in progress
    /// count if their number is less than `covered` returns for the consumers' count.
    fn count(&self, add: impl Fn(usize, Tally) -> usize, covered: impl Fn(u64) -> u64) -> usize {
        /// One attempt is nearly always enough, unless tasks are put and got continually.
        const FREE: u32 = if cfg!(loom) { 1 } else { 4 };
        /// Attempts under the locks of the ring. They fail only if a task is just coming back.
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
        // A member was stopped while a task came back, so there is at least one.
        last.max(1)
    }

    /// Waits until all tasks are done, or no handle is left that could get one. `looked` is called
    /// after each search for dead members. `can_be_got` returns whether a handle is left that could
    /// get; once it has returned `false`, it stays so, unless `is_kept` returns `true`: a manager
    /// keeps the queue, so that other workers may come.
    pub(crate) fn join(
        &self,
        deadline: Deadline,
        mut looked: impl FnMut(),
        mut can_be_got: impl FnMut() -> bool,
        is_kept: impl Fn() -> bool,
    ) -> Joined {
        let closed_consumers = &self.ring.control.config.closed_consumers;
        let (mut closed_before, mut settled_by) = (None, None);
        let attempt = |poll| {
            if poll == Poll::CheckLiveness {
                self.reclaim(deadline);
                looked();
            }
            if self.is_all_done() {
                return Some(Joined::Done);
            }
            // Asks only at first, after a handle was closed, and at each recheck, because the
            // answer takes system calls. Acquired, so that the answer is not older than the count.
            let closed = Some(closed_consumers.load(Ordering::Acquire));
            if poll == Poll::Retry && closed == closed_before {
                return None;
            }
            closed_before = closed;
            if can_be_got() {
                return None;
            }
            let settled_by = settled_by.get_or_insert_with(|| Deadline::after(SETTLE));
            self.end_without_workers(settled_by.is_past(), is_kept())
        };
        let all_done = self.ring.control.tasks.all_done();
        let fences = self.ring.control.fences();
        let waited = all_done.wait_asymmetric(fences, PAUSE, deadline, RECHECK, attempt);
        waited.outcome.unwrap_or(Joined::TimedOut)
    }

    /// Returns how a join ends after the last handle that could get is gone, or `None` if a dead
    /// worker is still taken for alive: its task may become a dead letter, which is not left.
    #[cold]
    fn end_without_workers(&self, is_settled: bool, is_kept: bool) -> Option<Joined> {
        if !is_kept {
            // No put can follow, so that the number stays.
            self.ring.control.orphan();
        }
        // The workers are dead since the last search.
        self.reclaim(Deadline::NEVER);
        if !is_settled && self.in_work() > 0 {
            return None;
        }
        if !is_kept && self.ring.control.left().is_none() {
            // A stopped process may be in the middle of a put, which is not waited for.
            let _ = self.ring.end_puts(Deadline::after(SETTLE));
            self.ring.control.record_left(self.unfinished());
        }
        match self.unfinished() {
            0 => Some(Joined::Done),
            left => Some(Joined::NoWorkers(left)),
        }
    }

    /// Takes the next task that was not delivered before, if there is one and no task has come
    /// back.
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

    /// Takes the next task, if there is one.
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
        // A task that came back if it is due, and otherwise any, if there is no other task.
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

    /// Called if no slot is free: takes a task that already has one, since it came back or comes
    /// back now. If no other process has a task, such a task would never be taken otherwise: it is
    /// due after the item that needs a slot.
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
        // The notification that woke this thread may have been meant for that task.
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
        // While another thread uses the batch, this one works without it, and never waits here.
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
            // It may have been claimed unnoticed by a process that joins and has seen no task in
            // progress.
            self.nack(slot, End::PutBack);
            return Err(EngineError::Closed);
        }
        getting.task = task;
        Ok(())
    }
}

/// Returns `true` if a task was not taken because it needed a slot, or the memory of one.
fn is_short_of_slots(error: EngineError) -> bool {
    matches!(error, EngineError::TooManyTasks | EngineError::OutOfMemory)
}
