//! The tasks of a joinable queue: between a process and the memory they stay in.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use multiproc_pipe::{Deadline, DecodeError, message};
use multiproc_sync::RECHECK;
use multiproc_sync::raw::waiters::Look;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::core::{Core, Lent, Missed, PATIENCE, Until};
use crate::error::{GetError, JoinTasksTimeoutError, PutError};
use crate::lane::Unpacked;
use crate::queue::{Producer, Queue};
use crate::raw::frame::Header;
use crate::raw::ring::{Fault, Ring, Sink};
use crate::raw::tasks::{Delivered, Kind, LetterEnd, Tasks};
use crate::store::Store;

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

/// An item on its way into a slot.
struct TaskSink<'a> {
    buffer: &'a mut Vec<u8>,
    tasks: Tasks<'a, Store>,
    task: Option<Delivered>,
}

impl Sink for TaskSink<'_> {
    fn takes_more(&self) -> bool {
        false
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer
    }

    fn ended(&mut self, header: &Header) -> Result<(), Fault> {
        let had_descriptors = header.tag != 0;
        let task = self.tasks.take(header.number, self.buffer, had_descriptors, this_thread())?;
        self.task = Some(task);
        Ok(())
    }
}

impl<T> Core<T> {
    fn tasks(&self) -> Tasks<'_, Store> {
        Tasks {
            control: &self.store.region.control().tasks,
            members: &self.store,
            max_attempts: self.store.tasks.map_or(1, |tasks| tasks.max_attempts),
        }
    }

    /// How many tasks wait to be delivered again.
    pub(crate) fn ready_tasks(&self) -> usize {
        if self.store.tasks.is_none() || self.ring().is_thrown_away() {
            return 0;
        }
        self.tasks().count(|state| state.kind == Kind::Ready)
    }

    /// Whether there will be tasks to get although none is left to be put: what another process has
    /// may come back.
    pub(crate) fn may_tasks_come_back(&self, ring: &Ring<'_, Store>) -> bool {
        self.store.tasks.is_some()
            && !ring.is_thrown_away()
            && self.tasks().unfinished_elsewhere() > 0
    }

    /// Puts the tasks of the dead back.
    fn reclaim(&self, ring: &Ring<'_, Store>) {
        let Some((produced, _)) = ring.counts() else { return };
        let consumed = || ring.counts().map(|(_, consumed)| consumed);
        if self.tasks().reclaim(consumed, produced) {
            self.task_came_back(ring);
            self.task_ended();
        }
    }

    fn task_came_back(&self, ring: &Ring<'_, Store>) {
        ring.notify_consumer();
        self.ring_bell();
    }

    /// To be called when a task has ended.
    fn task_ended(&self) {
        let all_done = self.store.region.control().tasks.all_done();
        if all_done.has_sleepers() && self.unfinished() == 0 {
            all_done.notify_all();
        }
    }

    /// Takes the next task.
    pub(crate) fn get_task(&self, until: Until) -> Result<(T, Delivered), Missed>
    where
        T: DeserializeOwned,
    {
        let mut buffer = Lent::empty();
        let (task, descriptors) = self.get_task_bytes(&mut buffer, until)?;
        match message::decode(&buffer, descriptors) {
            Ok(item) => Ok((item, task)),
            Err(error) => {
                self.tasks().bury(task.slot);
                self.task_ended();
                Err(GetError::from(error).into())
            }
        }
    }

    fn get_task_bytes(
        &self,
        buffer: &mut Vec<u8>,
        until: Until,
    ) -> Result<(Delivered, Vec<OwnedFd>), Missed> {
        let ring = self.ring();
        let Some(end) = &self.consumer else { unreachable!("only handles that get are asked to") };
        let mut lane = Unpacked { end, descriptors: Vec::new() };
        let deadline = match until {
            Until::Now => Deadline::after(PATIENCE),
            Until::Deadline(deadline) => deadline,
        };
        let mut sink = TaskSink { buffer, tasks: self.tasks(), task: None };
        let mut attempt = |look| self.attempt_task(&ring, &mut sink, &mut lane, look, deadline);
        let task = match attempt(Look::Again) {
            Some(result) => Some(result),
            None if matches!(until, Until::Now) => attempt(Look::Recheck),
            None => ring.wait_for_item(deadline, attempt),
        };
        match task {
            Some(Ok(task)) => Ok((task, lane.descriptors)),
            Some(Err(fault)) => Err(fault.into()),
            None => Err(Missed::NotNow),
        }
    }

    fn attempt_task(
        &self,
        ring: &Ring<'_, Store>,
        sink: &mut TaskSink<'_>,
        lane: &mut Unpacked<'_>,
        look: Look,
        deadline: Deadline,
    ) -> Option<Result<Delivered, Fault>> {
        if look == Look::Recheck {
            self.reclaim(ring);
        }
        // What has come back, if its turn has come; and whatever has, if there is nothing else.
        let mut task = self.take_returned(ring, sink, false);
        if let Ok(None) = task {
            task = match ring.try_get(sink, lane, || deadline) {
                Ok(0) => self.take_returned(ring, sink, true),
                Ok(_) => Ok(sink.task.take()),
                Err(fault) => Err(fault),
            };
        }
        match task {
            Ok(Some(task)) => Some(Ok(task)),
            Ok(None) => self.check_producers(ring, look, || deadline).err().map(Err),
            Err(fault) => Some(Err(fault)),
        }
    }

    fn take_returned(
        &self,
        ring: &Ring<'_, Store>,
        sink: &mut TaskSink<'_>,
        is_empty: bool,
    ) -> Result<Option<Delivered>, Fault> {
        let tasks = self.tasks();
        let returned = tasks.control.returned.load(Ordering::Acquire);
        if returned == self.returned.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if ring.is_thrown_away() {
            return Err(Fault::Closed);
        }
        let consumed = if is_empty { Some(u64::MAX) } else { ring.counts().map(|counts| counts.1) };
        let Some(consumed) = consumed else { return Ok(None) };
        let task = tasks.take_returned(consumed, this_thread(), sink.buffer)?;
        if task.is_none() && is_empty {
            self.returned.store(returned, Ordering::Relaxed);
        } else if task.is_some() && self.ready_tasks() > 0 {
            ring.notify_consumer();
        }
        Ok(task)
    }

    /// How many tasks are not done: exact at one moment during the call.
    pub(crate) fn unfinished(&self) -> usize {
        let ring = self.ring();
        if ring.is_thrown_away() {
            return self.tasks().count(|state| state.owner.is_some());
        }
        let (items, tasks) = ring.while_still(|| self.tasks().unfinished());
        usize::try_from(items).unwrap_or(usize::MAX).saturating_add(tasks)
    }

    /// Waits until all tasks are done.
    pub(crate) fn join(&self, deadline: Deadline) -> Result<(), JoinTasksTimeoutError> {
        let tasks = self.tasks();
        if tasks.is_in_task(this_thread()) {
            return Err(JoinTasksTimeoutError::InTask);
        }
        let waited = tasks.control.all_done().wait_until(deadline, RECHECK, |look| {
            if look == Look::Recheck {
                self.reclaim(&self.ring());
            }
            (self.unfinished() == 0).then_some(())
        });
        waited.outcome.ok_or(JoinTasksTimeoutError::Timeout)
    }

    /// The process has finished one of the tasks that it detached.
    pub(crate) fn detached_done(&self) -> bool {
        let tasks = self.tasks();
        // Another thread may be quicker: then there may be another one.
        while let Some(slot) = tasks.first_detached() {
            if tasks.done(slot) {
                self.task_ended();
                return true;
            }
        }
        false
    }

    pub(crate) fn redelivered(&self) -> u64 {
        self.tasks().control.redelivered.load(Ordering::Relaxed)
    }

    pub(crate) fn died(&self) -> u64 {
        self.tasks().control.died.load(Ordering::Relaxed)
    }

    pub(crate) fn dead(&self) -> usize {
        self.tasks().dead()
    }

    /// Gives the memory of finished tasks back.
    pub(crate) fn trim_tasks(&self, ring: &Ring<'_, Store>) {
        if self.store.tasks.is_some() {
            ring.as_consumer(|| self.tasks().trim());
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
/// [`detach`](Self::detach) it.
pub struct Task<T> {
    core: Arc<Core<T>>,
    /// Taken when it ends.
    item: Option<T>,
    task: Delivered,
    thread: PhantomData<*const ()>,
}

impl<T> Task<T> {
    pub(crate) fn new(core: &Arc<Core<T>>, (item, task): (T, Delivered)) -> Self {
        Self { core: Arc::clone(core), item: Some(item), task, thread: PhantomData }
    }

    /// The task is done. When this returns, it is never delivered again.
    pub fn task_done(mut self) {
        self.end();
    }

    fn end(&mut self) -> Option<T> {
        let item = self.item.take();
        self.core.tasks().done(self.task.slot);
        self.core.task_ended();
        item
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

    /// Takes the item out, and ends the task later: by one
    /// [`task_done`](crate::JoinableQueue::task_done) of the queue, in this process, on any thread.
    ///
    /// Until then, it goes back only if this process dies.
    #[must_use]
    pub fn detach(mut self) -> T {
        self.core.tasks().detach(self.task.slot);
        match self.item.take() {
            Some(item) => item,
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
            let ring = self.core.ring();
            let due = ring.counts().map_or(0, |(produced, _)| produced);
            self.core.tasks().put_back(self.task.slot, due);
            self.core.task_came_back(&ring);
            // It may have become a dead letter, and have been the last one.
            self.core.task_ended();
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

impl<T: DeserializeOwned> DeadLetter<T> {
    /// All there are, from the oldest on.
    pub(crate) fn all(core: &Arc<Core<T>>) -> Result<Vec<Self>, GetError> {
        let tasks = core.tasks();
        let mut letters: Vec<Self> = Vec::new();
        loop {
            let after = letters.last().map(|letter| letter.task.number);
            let mut bytes = Vec::new();
            let found = tasks.take_letter(after, &mut bytes);
            let Some((task, had_descriptors)) =
                found.map_err(Missed::from).map_err(as_get_error)?
            else {
                return Ok(letters);
            };
            let (item, reason) = match message::decode(&bytes, Vec::new()) {
                Ok(item) => (Some(item), DeathReason::Attempts),
                Err(_) if had_descriptors => (None, DeathReason::DescriptorsLost),
                Err(error) => (None, DeathReason::Undecodable(error)),
            };
            letters.push(Self {
                core: Arc::clone(core),
                item,
                task,
                reason,
                end: LetterEnd::LayBack,
            });
        }
    }
}

fn as_get_error(missed: Missed) -> GetError {
    match missed {
        Missed::For(error) => *error,
        Missed::NotNow | Missed::Stalled => unreachable!("nobody waits"),
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
        let due = self.core.ring().counts().map_or(0, |(produced, _)| produced);
        self.end = LetterEnd::Revive { due };
    }
}

impl<T> Drop for DeadLetter<T> {
    fn drop(&mut self) {
        self.core.tasks().end_letter(self.task.slot, self.end);
        if let LetterEnd::Revive { .. } = self.end {
            self.core.task_came_back(&self.core.ring());
        }
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
