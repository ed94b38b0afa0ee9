//! The tasks of a joinable queue: between a process and the memory they stay in.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use multiproc_message::{self as message, DecodeError};
use multiproc_shm::Deadline;
use multiproc_shm::RECHECK;
use multiproc_shm::event_count::Poll;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::joinable::{Getting, Work};
use crate::engine::letters::LetterEnd;
use crate::engine::overflow::millis;
use crate::engine::ring::Ring;
use crate::engine::slot::Slot;
use crate::engine::slots::Delivered;
use crate::error::{GetError, JoinTasksTimeoutError, PutError};
use crate::fd_lane::{self, IncomingFds};
use crate::inner::{Core, GetFailure, MOMENT, PATIENCE, ScratchBuffer, Wait};
use crate::memory::Store;
use crate::queue::{Producer, Queue};

/// Tells the threads of this process apart.
fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static THIS: Cell<u64> = const { Cell::new(0) };
    }
    if THIS.get() == 0 {
        THIS.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    THIS.get()
}

impl<T> Core<T> {
    /// The queue's tasks, as this process sees them.
    #[inline]
    pub(crate) fn work(&self) -> Work<'_, Store> {
        Work {
            ring: self.ring(),
            max_attempts: self.store.tasks.map_or(1, |tasks| tasks.max_attempts),
            hints: &self.hints,
            is_closed: self.is_closed(),
        }
    }

    /// How many tasks can be got.
    pub(crate) fn tasks_len(&self) -> usize {
        self.work().len()
    }

    /// Whether there will be tasks to get although none is left to be put: what others have may come
    /// back.
    pub(crate) fn may_tasks_come_back(&self) -> bool {
        let work = self.work();
        self.store.tasks.is_some()
            && !work.ring.is_discarding()
            && work.tasks().may_come_back(this_thread())
    }

    /// Puts the tasks of the dead back, if this is a queue of tasks.
    pub(crate) fn reclaim(&self) {
        if self.store.tasks.is_some() {
            self.work().reclaim(Deadline::after(MOMENT));
        }
    }

    /// Takes the next task.
    ///
    /// The caller has counted the reference that the task keeps: an atomic instruction just behind
    /// the queue's lock would wait for all that was written under it.
    #[inline]
    pub(crate) fn get_task<E>(
        self: Arc<Self>,
        until: Wait,
        missed: impl FnOnce(GetFailure) -> E,
    ) -> Result<Task<T>, E>
    where
        T: DeserializeOwned,
    {
        let mut buffer = ScratchBuffer::empty();
        let Some(end) = &self.consumer else { unreachable!("only handles that get are asked to") };
        let mut lane = IncomingFds { end, descriptors: Vec::new() };
        let thread = this_thread();
        let mut getting = Getting::new(thread, &mut buffer, &mut lane);
        let result = self.get_task_bytes(&mut getting, until);
        let Some(task) = getting.task else {
            self.discard(MOMENT);
            return Err(missed(result.err().unwrap_or(GetFailure::NotNow)));
        };
        match message::decode_as::<T, GetError>(&buffer, lane.descriptors) {
            Ok(item) => Ok(Task { core: self, item: Some(item), task, thread: PhantomData }),
            Err(error) => {
                self.work().bury(task.slot);
                Err(missed(error.into()))
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
        // Who always finds something looks for the dead, too.
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
        // A task that is there needs no look for dead members.
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

    /// Whether a recheck interval has passed since this was last so.
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

    /// How many tasks are not done: exact at one moment during the call.
    pub(crate) fn unfinished(&self) -> usize {
        self.work().unfinished()
    }

    /// Waits until all tasks are done.
    pub(crate) fn join(&self, deadline: Deadline) -> Result<(), JoinTasksTimeoutError> {
        let work = self.work();
        if work.tasks().is_in_task(this_thread()) {
            return Err(JoinTasksTimeoutError::InTask);
        }
        if !work.join(deadline, || self.ring_doorbell()) {
            return Err(JoinTasksTimeoutError::Timeout);
        }
        self.trim_tasks(&work.ring);
        Ok(())
    }

    /// This process does not finish a task, which goes back.
    pub(crate) fn put_task_back(&self, slot: Slot) {
        self.work().put_back(slot);
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

    /// Gives the memory of finished tasks back, in pieces: others may want the lock.
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

    /// Discards the tasks that nobody gets any more, and gives their memory back. Those in work, and
    /// dead letters, stay as long as a process is left that can use them.
    pub(crate) fn discard_tasks(&self, ring: &Ring<'_, Store>) {
        if self.store.tasks.is_some() {
            // Those of dead workers come back first.
            self.reclaim();
            self.work().tasks().discard(ring.control.is_orphaned());
            self.trim_all_tasks(ring);
        }
    }
}

/// A task that was got from a [`JoinableQueue`](crate::JoinableQueue), with its item (by `Deref`).
///
/// It stays in the queue's shared memory until it ends:
///
/// - [`task_done`](Self::task_done) says that it is done;
/// - dropped without that (on an early return, in a panic), it goes back, and is delivered again, at
///   the end, with [`attempt`](Self::attempt) one higher;
/// - if its process dies, it goes back within a second, in the same way.
///
/// So what a task does may happen more than once, in part or wholly; its [`id`](Self::id) stays the
/// same. After the queue's `max_attempts` it becomes a [`DeadLetter`]; so does one with descriptors
/// (handles) at once, since they have gone with whoever got them.
///
/// It belongs to the thread that got it, as the guard of a lock does. To pass the item on,
/// take it [apart](Self::into_parts): the receipt goes along.
pub struct Task<T> {
    core: Arc<Core<T>>,
    /// Taken when it ends.
    item: Option<T>,
    task: Delivered,
    thread: PhantomData<*const ()>,
}

impl<T> Task<T> {
    /// The task is done. When this returns, it is never delivered again.
    #[inline]
    pub fn task_done(mut self) {
        self.core.work().done(self.task.slot);
        self.item = None;
    }

    /// Puts the task back, to be delivered again, now and not when it is dropped.
    pub fn put_back(self) {}

    /// Puts a result into another queue, and ends the task.
    ///
    /// The result is put first. A process that is killed just between the two leaves a result *and*
    /// a task that is delivered again; so whoever gets results may get two of one task, and can tell
    /// by the task's [`id`](Self::id), if the value has it. The other way round, a result could be
    /// lost, and both at once is not possible, since the two queues are in different memory.
    ///
    /// # Errors
    ///
    /// If the result cannot be put: with the task, which is not ended, and the value.
    pub fn finish_with<U>(self, results: &impl Puts<U>, value: U) -> Result<(), FinishError<T, U>> {
        match results.put(value) {
            Ok(()) => {
                self.task_done();
                Ok(())
            }
            Err(error) => Err(FinishError { task: self, error }),
        }
    }

    /// Takes the item out, and counts the task: the queue's
    /// [`task_done`](crate::JoinableQueue::task_done) must be called once for it, in this process, on any
    /// thread, with any handle.
    ///
    /// A call does not say which task it is about, so it completes none on its own: the detached tasks of
    /// a process are completed together, once there were as many calls as there are detached tasks. If
    /// the process dies before (or drops its last handle of the queue), all of them are delivered
    /// again. A process whose detached tasks always overlap never gets there: it keeps their slots, in
    /// the end until getting fails with `TooManyTasks`, and `join` waits. [`into_parts`](Self::into_parts)
    /// has no such limits: a [`Receipt`](crate::Receipt) completes one task at once.
    #[must_use]
    pub fn detach(self) -> T {
        let (core, item, task) = self.dismantle();
        core.detach(task.slot);
        item
    }

    /// The parts, of which the task's end is the caller's affair.
    pub(crate) fn dismantle(mut self) -> (Arc<Core<T>>, T, Delivered) {
        match self.item.take() {
            Some(item) => (Arc::clone(&self.core), item, self.task),
            None => unreachable!("taken only when it ends"),
        }
    }

    /// How often it was delivered, this time included: 1 at first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.task.attempt
    }

    /// Tells it from all other tasks of its queue, and is the same each time it is delivered.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.task.number
    }
}

impl<T> Deref for Task<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.item.as_ref().unwrap_or_else(|| unreachable!("taken only when it ends"))
    }
}

/// What is changed is this process's item: if the task goes back, it goes as it was put.
impl<T> DerefMut for Task<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.item.as_mut().unwrap_or_else(|| unreachable!("taken only when it ends"))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if self.item.take().is_some() {
            self.core.put_task_back(self.task.slot);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id())
            .field("attempt", &self.attempt())
            .field("item", &**self)
            .finish()
    }
}

/// What results can be put into: see [`Task::finish_with`].
pub trait Puts<T> {
    /// Puts an item, waiting for room as long as it takes.
    ///
    /// # Errors
    ///
    /// If it cannot be put.
    fn put(&self, item: T) -> Result<(), PutError<T>>;
}

macro_rules! puts_results {
    ($($name:ident)*) => {$(
        impl<T: Serialize> Puts<T> for $name<T> {
            fn put(&self, item: T) -> Result<(), PutError<T>> {
                self.put(item)
            }
        }
    )*};
}

use crate::joinable::JoinableQueue;
puts_results!(Queue Producer JoinableQueue);

/// [`Task::finish_with`] could not put the result. The task has not ended.
pub struct FinishError<T, U> {
    /// The task: drop it, and it goes back.
    pub task: Task<T>,
    /// Why the result was not put, with the result.
    pub error: PutError<U>,
}

impl<T, U> fmt::Debug for FinishError<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FinishError {{ task: {}, error: {:?} }}", self.task.id(), self.error)
    }
}

impl<T, U> fmt::Display for FinishError<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the result of a task was not put, and the task has not ended: {}", self.error)
    }
}

impl<T, U> Error for FinishError<T, U> {}

/// Why a task is not delivered any more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeathReason {
    /// It was delivered as often as the queue's `max_attempts` says.
    Attempts,
    /// It had descriptors, and they have gone with whoever got it.
    DescriptorsLost,
    /// It is no value of the expected type.
    Undecodable(DecodeError),
}

/// A task that is not delivered any more; see
/// [`JoinableQueue::dead_letters`](crate::JoinableQueue::dead_letters).
///
/// While this exists, nobody else sees it. Dropped, it is a dead letter as before.
pub struct DeadLetter<T> {
    core: Arc<Core<T>>,
    item: Option<T>,
    task: Delivered,
    reason: DeathReason,
    /// What becomes of it when it is dropped.
    end: LetterEnd,
}

/// How many bytes of dead letters are enough for one call.
const HELD: usize = 64 << 20;

impl<T: DeserializeOwned> DeadLetter<T> {
    /// The first ones, from the oldest on, and not much more than [`HELD`] bytes of them.
    pub(crate) fn first(core: &Arc<Core<T>>) -> Result<Vec<Self>, GetError> {
        let work = core.work();
        let tasks = work.tasks();
        let mut letters = Vec::new();
        let mut total = 0;
        for slot in tasks.letters() {
            if total >= HELD {
                break;
            }
            let mut bytes = ScratchBuffer::empty();
            let found = tasks.take_letter(slot, &mut bytes);
            let found = found.map_err(GetFailure::from).map_err(as_get_error)?;
            let Some((task, had_descriptors)) = found else { continue };
            // From here on, it is laid back whatever happens.
            let mut letter = Self {
                core: Arc::clone(core),
                item: None,
                task,
                reason: DeathReason::Attempts,
                end: LetterEnd::LayBack,
            };
            match message::decode(&bytes, Vec::new()) {
                Ok(item) => letter.item = Some(item),
                Err(_) if had_descriptors => letter.reason = DeathReason::DescriptorsLost,
                Err(error) => letter.reason = DeathReason::Undecodable(error),
            }
            total += bytes.len();
            letters.push(letter);
        }
        Ok(letters)
    }
}

fn as_get_error(missed: GetFailure) -> GetError {
    match missed {
        GetFailure::For(error) => *error,
        GetFailure::NotNow | GetFailure::Stalled => unreachable!("nobody waits"),
    }
}

impl<T> DeadLetter<T> {
    /// The item; `None`, if it cannot be decoded: see [`reason`](Self::reason).
    #[must_use]
    pub fn item(&self) -> Option<&T> {
        self.item.as_ref()
    }

    /// Why it is not delivered any more.
    #[must_use]
    pub fn reason(&self) -> &DeathReason {
        &self.reason
    }

    /// The task's [`id`](Task::id).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.task.number
    }

    /// How often it was delivered.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.task.attempt
    }

    /// Takes it out of the queue, for good.
    #[must_use = "to throw it away, say `drop(letter.take())`"]
    pub fn take(mut self) -> Option<T> {
        self.end = LetterEnd::Discard;
        self.item.take()
    }

    /// Delivers it again, at the end, as if it had never been delivered. It counts as unfinished
    /// again. (If its descriptors are lost, it cannot be decoded, and will be a dead letter again.)
    pub fn put_again(mut self) {
        self.end = LetterEnd::Revive { due: self.core.work().end() };
    }
}

impl<T> Drop for DeadLetter<T> {
    fn drop(&mut self) {
        self.core.work().end_letter(self.task.slot, self.end);
        self.core.ring_doorbell();
    }
}

impl<T: fmt::Debug> fmt::Debug for DeadLetter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("id", &self.id())
            .field("attempts", &self.attempts())
            .field("reason", &self.reason)
            .field("item", &self.item)
            .finish()
    }
}
