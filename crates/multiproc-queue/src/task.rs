//! A task of a joinable queue, in the hands of the thread that got it.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::Serialize;

#[cfg(doc)]
use crate::dead_letter::DeadLetter;
use crate::engine::slots::Delivered;
use crate::error::PutError;
use crate::inner::Inner;
use crate::joinable::JoinableQueue;
use crate::queue::{Producer, Queue};

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
    inner: Arc<Inner<T>>,
    /// Taken when it ends.
    item: Option<T>,
    task: Delivered,
    thread: PhantomData<*const ()>,
}

impl<T> Task<T> {
    #[inline]
    pub(crate) fn new(inner: Arc<Inner<T>>, item: T, task: Delivered) -> Self {
        Self { inner, item: Some(item), task, thread: PhantomData }
    }

    /// The task is done. When this returns, it is never delivered again.
    #[inline]
    pub fn task_done(mut self) {
        self.inner.work().ack(self.task.slot);
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
    /// Unlike the `put` of a handle, this does not check whether values of the type can be got.
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
        let (inner, item, task) = self.dismantle();
        inner.detach(task.slot);
        item
    }

    /// The parts, of which the task's end is the caller's affair.
    pub(crate) fn dismantle(mut self) -> (Arc<Inner<T>>, T, Delivered) {
        match self.item.take() {
            Some(item) => (Arc::clone(&self.inner), item, self.task),
            None => unreachable!("taken only when it ends"),
        }
    }

    /// How often it was delivered, this time included: 1 at first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.task.deliveries
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
            self.inner.put_task_back(self.task.slot);
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
                // That of the shared part: `Deserialize`, which the handle's own asks for, is not known.
                (**self).put(item)
            }
        }
    )*};
}

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
