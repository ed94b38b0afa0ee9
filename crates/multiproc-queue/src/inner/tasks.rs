//! Getting tasks, ending them, and waiting for all of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use multiproc_message as message;
use multiproc_shm::event_count::Poll;
use multiproc_shm::{Deadline, RECHECK, thread_id};
use serde::de::DeserializeOwned;

use super::{GetFailure, Inner, MOMENT, PATIENCE, Wait};
use crate::engine::joinable::{Getting, Joined, Work};
use crate::engine::overflow::millis;
use crate::engine::ring::Ring;
use crate::engine::slot::Slot;
use crate::engine::worker::End;
use crate::error::{GetError, JoinTasksTimeoutError};
use crate::fd_lane::{self, IncomingFds};
use crate::memory::Store;
use crate::scratch::ScratchBuffer;
use crate::task::Task;
use crate::worker;

impl<T> Inner<T> {
    /// Returns the queue's tasks as this process sees them.
    #[inline]
    pub(crate) fn work(&self) -> Work<'_, Store> {
        Work {
            ring: self.ring(),
            max_attempts: self.store.tasks.map_or(1, |tasks| tasks.max_attempts),
            hints: &self.hints,
            have_puts_ended: self.have_puts_ended(),
        }
    }

    /// Returns the number of tasks that can be got.
    pub(crate) fn tasks_len(&self) -> usize {
        self.work().len()
    }

    /// Returns `true` if tasks may still become available although none can be put: those in
    /// progress elsewhere may come back.
    pub(crate) fn may_tasks_come_back(&self) -> bool {
        let work = self.work();
        self.store.tasks.is_some()
            && !work.ring.is_discarding()
            && work.tasks().may_come_back(thread_id())
    }

    /// Puts the tasks of dead members back, if this is a joinable queue.
    pub(crate) fn reclaim(&self) {
        if self.store.tasks.is_some() {
            self.work().reclaim(Deadline::after(MOMENT));
        }
    }

    /// Takes the next task.
    ///
    /// The caller has already counted the reference that the task keeps. An atomic instruction
    /// right after the queue's lock would wait for all stores that were made under it.
    #[inline]
    pub(crate) fn get_task<E: From<GetFailure>>(self: Arc<Self>, wait: Wait) -> Result<Task<T>, E>
    where
        T: DeserializeOwned,
    {
        let mut buffer = ScratchBuffer::empty();
        let Some(end) = &self.consumer else { unreachable!("only handles that get are asked to") };
        let mut lane = IncomingFds { end, descriptors: Vec::new() };
        let thread = thread_id();
        let mut getting = Getting::new(thread, &mut buffer, &mut lane);
        let result = self.get_task_bytes(&mut getting, wait);
        let Some(task) = getting.task else {
            self.discard(MOMENT);
            return Err(result.err().unwrap_or(GetFailure::NotNow).into());
        };
        match message::decode_as::<T, GetError>(&buffer, lane.descriptors) {
            Ok(item) => Ok(Task::new(self, item, task)),
            Err(error) => {
                self.work().dead_letter(task.slot);
                self.ring_doorbell();
                Err(GetFailure::from(error).into())
            }
        }
    }

    #[inline]
    fn get_task_bytes(&self, getting: &mut Getting<'_>, until: Wait) -> Result<(), GetFailure> {
        let work = self.work();
        let deadline = match until {
            Wait::Now => Deadline::after(PATIENCE),
            Wait::Deadline(deadline) => {
                work.ring.gets.keep();
                deadline
            }
        };
        // A consumer that always finds a task must search for those of dead members as well.
        let poll = if self.is_time_to_reclaim() { Poll::CheckLiveness } else { Poll::Retry };
        if poll == Poll::Retry && work.take_fresh(getting, deadline).map_err(GetFailure::from)? {
            return Ok(());
        }
        self.wait_for_task(&work, getting, until, deadline, poll)
    }

    #[cold]
    fn wait_for_task(
        &self,
        work: &Work<'_, Store>,
        getting: &mut Getting<'_>,
        until: Wait,
        deadline: Deadline,
        poll: Poll,
    ) -> Result<(), GetFailure> {
        // The first call of a handle comes here.
        worker::read_name();
        // An available task requires no search for dead members.
        if matches!((until, poll), (Wait::Now, Poll::Retry)) {
            work.take(getting, poll, deadline)?;
            if getting.task.is_some() {
                return Ok(());
            }
        }
        let mut attempt = |poll| {
            let check = |poll| self.check_producers(&work.ring, poll, || deadline);
            let result = work.attempt(getting, poll, deadline, check);
            if poll == Poll::CheckLiveness {
                self.ring_doorbell();
            }
            result
        };
        let result = if matches!(until, Wait::Now) {
            attempt(Poll::CheckLiveness)
        } else if poll == Poll::CheckLiveness
            && let Some(result) = attempt(poll)
        {
            Some(result)
        } else {
            work.ring.wait_for_item(deadline, attempt)
        };
        match result {
            Some(result) => result.map_err(GetFailure::from),
            None => Err(GetFailure::NotNow),
        }
    }

    /// Returns `true` if a recheck interval has passed since the last time it returned `true`.
    #[inline]
    fn is_time_to_reclaim(&self) -> bool {
        let now = millis(fd_lane::now());
        let is_time =
            now.wrapping_sub(self.reclaimed_at.load(Ordering::Relaxed)) >= millis(RECHECK);
        if is_time {
            self.reclaimed_at.store(now, Ordering::Relaxed);
        }
        is_time
    }

    /// Returns the number of tasks that are not done. It is exact at one moment during the call.
    pub(crate) fn unfinished(&self) -> usize {
        self.work().unfinished()
    }

    /// Waits until all tasks are done, or until no handle is left that could get them. A handle
    /// that can get itself waits until they are done.
    pub(crate) fn join(&self, deadline: Deadline) -> Result<(), JoinTasksTimeoutError> {
        let work = self.work();
        if work.tasks().is_in_task(thread_id()) {
            return Err(JoinTasksTimeoutError::InTask);
        }
        let can_be_got = || {
            let can_get = self.consumer.is_some() || self.store.region.is_claimed();
            can_get || self.is_first_worker_to_come()
        };
        let is_kept = || self.store.region.is_kept();
        match work.join(deadline, || self.ring_doorbell(), can_be_got, is_kept) {
            Joined::TimedOut => return Err(JoinTasksTimeoutError::Timeout),
            Joined::NoWorkers(left) => {
                self.discard(MOMENT);
                return Err(JoinTasksTimeoutError::NoWorkers { left });
            }
            Joined::Done => {}
        }
        self.trim_tasks(&work.ring);
        Ok(())
    }

    /// Returns `true` if a manager keeps the queue for processes to come, and none of them has got
    /// a task so far.
    fn is_first_worker_to_come(&self) -> bool {
        self.store.region.is_kept() && self.ring().counts().is_some_and(|(_, got)| got == 0)
    }

    /// Puts a task back that this process does not complete.
    pub(crate) fn put_task_back(&self, slot: Slot) {
        let end = if thread::panicking() { End::Panicked } else { End::PutBack };
        self.work().nack(slot, end);
        self.ring_doorbell();
    }

    pub(crate) fn redelivered(&self) -> u64 {
        self.work().tasks().control.redelivered.load(Ordering::Relaxed)
    }

    pub(crate) fn died(&self) -> u64 {
        self.work().tasks().control.died.load(Ordering::Relaxed)
    }

    pub(crate) fn dead(&self) -> usize {
        self.work().tasks().dead()
    }

    /// Returns `true` if there is a dead letter that was not returned through this handle. First
    /// puts the tasks of dead members back.
    pub(crate) fn has_new_letters(&self) -> bool {
        self.reclaim();
        let seen = self.letters_seen.load_full().unwrap_or_default();
        self.work().tasks().look(&seen).is_some()
    }

    /// Returns `true` once for each dead letter that `wait` has not reported for this handle.
    pub(crate) fn take_letter_report(&self) -> bool {
        if self.store.tasks.is_none() {
            return false;
        }
        let reported = self.letters_reported.load_full().unwrap_or_default();
        let now = self.work().tasks().look(&reported).map(Arc::new);
        let is_new = now.is_some();
        if is_new {
            self.letters_reported.store(now);
        }
        is_new
    }

    /// Records that these dead letters are returned. The generation was read before them.
    pub(crate) fn letters_returned(&self, generation: u32, numbers: &[u64]) {
        let (work, numbers) = (self.work(), || numbers.iter().copied());
        for place in [&self.letters_seen, &self.letters_reported] {
            let before = place.load_full().unwrap_or_default();
            place.store(Some(Arc::new(work.tasks().seen(&before, generation, numbers()))));
        }
    }

    /// Releases the memory of completed tasks, in pieces, since other processes may want the lock.
    pub(crate) fn trim_tasks(&self, ring: &Ring<'_, Store>) {
        let work = self.work();
        let now = fd_lane::now();
        if self.store.tasks.is_none() || !work.tasks().is_time_to_trim(now) {
            return;
        }
        self.trim_all_tasks(ring);
    }

    fn trim_all_tasks(&self, ring: &Ring<'_, Store>) {
        let (work, now) = (self.work(), fd_lane::now());
        for _ in 0..work.tasks().pieces() {
            let mut is_more = false;
            ring.as_consumer(|| is_more = work.tasks().trim(now));
            if !is_more {
                break;
            }
        }
    }

    /// Discards the tasks that no process can get any more, and releases their memory. Tasks in
    /// progress and dead letters are kept while a process exists that can use them.
    pub(crate) fn discard_tasks(&self, ring: &Ring<'_, Store>) {
        if self.store.tasks.is_some() {
            // First puts those of dead workers back.
            self.reclaim();
            self.work().tasks().discard(ring.control.is_orphaned());
            self.trim_all_tasks(ring);
        }
    }
}
