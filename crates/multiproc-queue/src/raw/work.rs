//! Ring and slots together: what a joinable queue does.
//!
//! Where a count of both must be exact, it is made while the ring keeps still: a task goes from the
//! ring into a slot and never back, and meanwhile changes only there.

use multiproc_shm::Deadline;
use multiproc_shm::RECHECK;
use multiproc_shm::event_count::{Look, PAUSE};
use multiproc_shm::members::Members;
use multiproc_shm::primitives::{AtomicU32, Ordering};

use super::blocks::Memory;
use super::frame::Header;
use super::ring::{Fault, Incoming, Ring, Sink};
use super::tasks::{Delivered, LetterEnd, Places, Slot, Tasks};

/// A joinable queue, as one of its handles sees it.
pub(crate) struct Work<'a, M> {
    pub(crate) ring: Ring<'a, M>,
    pub(crate) max_attempts: u32,
    /// How often a task had come back, when last none was there.
    pub(crate) returned: &'a AtomicU32,
    /// The place of the slot that it took last.
    pub(crate) favourite: &'a AtomicU32,
    /// Whether this handle puts no more. As long as one does, the queue does not end by itself.
    pub(crate) is_closed: bool,
}

/// Who gets a task, and where it goes.
pub(crate) struct Getting<'a> {
    pub(crate) thread: u64,
    pub(crate) buffer: &'a mut Vec<u8>,
    pub(crate) lane: &'a mut dyn Incoming,
    /// What was got. It stays here until the end: each result that it went through would copy it.
    pub(crate) task: Option<Delivered>,
}

/// An item on its way into a slot.
struct TaskSink<'a, M> {
    buffer: &'a mut Vec<u8>,
    tasks: Tasks<'a, M>,
    thread: u64,
    favourite: &'a AtomicU32,
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
    fn ended(&mut self, header: &Header) -> Result<(), Fault> {
        let had_descriptors = header.tag != 0;
        let before = self.favourite.load(Ordering::Relaxed);
        let favourite = before as usize;
        let (number, thread) = (header.number, self.thread);
        let task = self.tasks.take(number, self.buffer, had_descriptors, thread, favourite)?;
        let place = u32::try_from(task.slot.place).unwrap_or(0);
        if place != before {
            self.favourite.store(place, Ordering::Relaxed);
        }
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
        }
    }

    /// Puts the tasks of the dead back.
    pub(crate) fn reclaim(&self) {
        let Some((produced, _)) = self.ring.counts() else { return };
        let consumed = || self.ring.counts().map(|(_, consumed)| consumed);
        if self.tasks().reclaim(consumed, produced) {
            self.came_back();
        }
    }

    /// The task that this member works on is done.
    #[inline]
    pub(crate) fn done(&self, slot: Slot) {
        self.tasks().done(slot);
        self.ended();
    }

    /// One that this member has detached is done. False: there is none.
    pub(crate) fn detached_done(&self) -> bool {
        let is_done = self.tasks().detached_done();
        self.ended();
        is_done
    }

    /// The task that this member works on goes back, to the end.
    pub(crate) fn put_back(&self, slot: Slot) {
        self.tasks().put_back(slot, self.end());
        self.came_back();
    }

    /// It cannot be decoded.
    pub(crate) fn bury(&self, slot: Slot) {
        self.tasks().bury(slot);
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
        if self.unfinished() == 0 {
            self.ring.control.tasks.all_done().notify_all(passed);
            if is_end {
                self.ring.wake_consumers();
            }
        }
    }

    /// How many tasks are not done: exact at one moment during the call. Of a queue whose items are
    /// thrown away, those in work.
    pub(crate) fn unfinished(&self) -> usize {
        if self.ring.is_thrown_away() {
            return self.tasks().in_work(u64::MAX);
        }
        let (items, tasks) = self.ring.while_still(|consumed| self.tasks().unfinished(consumed));
        usize::try_from(items).unwrap_or(usize::MAX).saturating_add(tasks)
    }

    /// How many tasks can be got.
    pub(crate) fn len(&self) -> usize {
        if self.ring.is_thrown_away() {
            return 0;
        }
        let (items, tasks) = self.ring.while_still(|_| self.tasks().ready());
        usize::try_from(items).unwrap_or(usize::MAX).saturating_add(tasks)
    }

    /// Waits until all tasks are done. `looked` is called after each look. False: not in time.
    pub(crate) fn join(&self, deadline: Deadline, mut looked: impl FnMut()) -> bool {
        let all_done = self.ring.control.tasks.all_done();
        let waited =
            all_done.wait_heavily(self.ring.control.fences(), PAUSE, deadline, RECHECK, |look| {
                if look == Look::Recheck {
                    self.reclaim();
                    looked();
                }
                (self.unfinished() == 0).then_some(())
            });
        waited.outcome.is_some()
    }

    /// Takes the next task that was not delivered before, if there is one, and none has come back.
    #[inline]
    pub(crate) fn take_fresh(
        &self,
        getting: &mut Getting<'_>,
        deadline: Deadline,
    ) -> Result<bool, Fault> {
        if self.may_have_returned() {
            return Ok(false);
        }
        self.take_item(getting, deadline)?;
        Ok(getting.task.is_some())
    }

    /// Takes the next task, if there is one. `check` is called when there is none, and may say that
    /// none will come.
    pub(crate) fn attempt(
        &self,
        getting: &mut Getting<'_>,
        look: Look,
        deadline: Deadline,
        check: impl FnOnce(Look) -> Result<(), Fault>,
    ) -> Option<Result<(), Fault>> {
        if look == Look::Recheck {
            self.reclaim();
        }
        // What has come back, if its turn has come; and whatever has, if there is nothing else.
        let mut result = self.take_returned(getting, look, false);
        if result.is_ok() && getting.task.is_none() {
            result = self.take_item(getting, deadline);
        }
        if result.is_ok() && getting.task.is_none() {
            result = self.take_returned(getting, look, true);
        }
        if result.is_ok() && getting.task.is_none() {
            return check(look).err().map(Err);
        }
        Some(result)
    }

    #[inline]
    fn take_item(
        &self,
        Getting { thread, buffer, lane, task }: &mut Getting<'_>,
        deadline: Deadline,
    ) -> Result<(), Fault> {
        let (tasks, favourite) = (self.tasks(), self.favourite);
        let mut sink = TaskSink { buffer, tasks, thread: *thread, favourite, task };
        self.ring.try_get(&mut sink, *lane, || deadline)?;
        // The notification that woke this one may have been meant for that.
        if task.is_some() && self.may_have_returned() && self.tasks().ready() > 0 {
            self.ring.notify_consumer();
        }
        Ok(())
    }

    #[inline]
    fn may_have_returned(&self) -> bool {
        let returned = self.ring.control.tasks.returned.load(Ordering::Acquire);
        returned != self.returned.load(Ordering::Relaxed)
    }

    fn take_returned(
        &self,
        getting: &mut Getting<'_>,
        look: Look,
        is_empty: bool,
    ) -> Result<(), Fault> {
        let returned = self.ring.control.tasks.returned.load(Ordering::Acquire);
        // Whoever put one back may have died before it said so.
        if look == Look::Again && returned == self.returned.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.look_for_returned(getting, returned, is_empty)
    }

    #[cold]
    fn look_for_returned(
        &self,
        Getting { thread, buffer, task, .. }: &mut Getting<'_>,
        returned: u32,
        is_empty: bool,
    ) -> Result<(), Fault> {
        let tasks = self.tasks();
        if self.ring.is_thrown_away() {
            return Err(Fault::Closed);
        }
        let consumed = if is_empty {
            u64::MAX
        } else {
            self.ring.counts().map_or(0, |(_, consumed)| consumed)
        };
        *task = tasks.take_returned(consumed, *thread, buffer)?;
        if tasks.ready() == 0 {
            self.returned.store(returned, Ordering::Relaxed);
        } else if task.is_some() {
            self.ring.notify_consumer();
        }
        Ok(())
    }
}
