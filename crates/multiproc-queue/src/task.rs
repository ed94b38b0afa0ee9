//! A task of a joinable queue, owned by the thread that got it.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use multiproc_message::debug_is_display;
use serde::Serialize;

#[cfg(doc)]
use crate::dead_letter::DeadLetter;
use crate::engine::slots::Delivered;
use crate::error::PutError;
use crate::inner::Inner;
use crate::joinable::JoinableQueue;
use crate::queue::{Producer, Queue};

/// A task that was got from a [`JoinableQueue`]. It dereferences to its item.
///
/// It stays in the queue's shared memory until it ends:
///
/// - [`task_done`](Self::task_done) completes it.
/// - If it is dropped without that (on an early return, in a panic), it is put back. It is
///   delivered again, behind the queued tasks, with an [`attempt`](Self::attempt) that is one
///   higher.
/// - If its process dies, it is put back within a second, in the same way.
///
/// So the work of a task may be done more than once, in part or wholly. Its [`id`](Self::id) stays
/// the same. After the queue's `max_attempts` deliveries it becomes a [`DeadLetter`]. A task with
/// descriptors (handles) becomes one at once, since its descriptors are lost with the process that
/// got it.
///
/// A task belongs to the thread that got it, like the guard of a lock. To move the item to another
/// thread, separate the two with [`into_parts`](Self::into_parts): the receipt can be sent as well.
///
/// # Examples
///
/// ```
/// use multiproc_queue::JoinableQueue;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let jobs = JoinableQueue::unbounded()?;
/// jobs.put(20)?;
/// let mut task = jobs.get()?;
/// *task += 1; // changes the item of this process, not what would be delivered again
/// assert_eq!((*task, task.attempt()), (21, 1));
/// task.task_done();
/// assert_eq!(jobs.unfinished(), 0);
/// # Ok(())
/// # }
/// ```
pub struct Task<T> {
    inner: Arc<Inner<T>>,
    /// `None` once the task has ended.
    item: Option<T>,
    task: Delivered,
    thread: PhantomData<*const ()>,
}

impl<T> Task<T> {
    #[inline]
    pub(crate) fn new(inner: Arc<Inner<T>>, item: T, task: Delivered) -> Self {
        Self { inner, item: Some(item), task, thread: PhantomData }
    }

    /// Completes the task. When this returns, it is never delivered again.
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = JoinableQueue::bounded(1)?;
    /// queue.put("job".to_owned())?;
    /// queue.get()?.task_done();
    /// assert_eq!(queue.unfinished(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "ack")]
    #[inline]
    pub fn task_done(mut self) {
        self.inner.work().ack(self.task.slot);
        self.item = None;
    }

    /// Puts the task back, to be delivered again. Dropping it has the same effect.
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = JoinableQueue::bounded(1)?;
    /// queue.put("job".to_owned())?;
    /// queue.get()?.put_back();
    /// let again = queue.get()?;
    /// assert_eq!(again.attempt(), 2);
    /// again.task_done();
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "nack")]
    #[doc(alias = "reject")]
    pub fn put_back(self) {}

    /// Puts a result into another queue, and then completes the task.
    ///
    /// A process that is killed between the two steps leaves the result *and* a task that is
    /// delivered again. So a consumer of the results may get two results of one task. It can
    /// recognise them by the task's [`id`](Self::id), if the value contains it. In the other order,
    /// a result could be lost. Both steps at once are not possible, since the two queues are in
    /// different memory.
    ///
    /// Unlike the `put` of a handle, this does not check whether values of the type can be got.
    ///
    /// # Errors
    ///
    /// If the result cannot be put. The error contains the task, which has not ended, and the
    /// value.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::{JoinableQueue, Queue};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (jobs, results) = (JoinableQueue::unbounded()?, Queue::unbounded()?);
    /// jobs.put(6)?;
    /// let task = jobs.get()?;
    /// let result = (task.id(), *task * 7);
    /// task.finish_with(&results, result)?;
    /// assert_eq!(results.get()?, (0, 42));
    /// # Ok(())
    /// # }
    /// ```
    pub fn finish_with<U>(self, results: &impl Puts<U>, value: U) -> Result<(), FinishError<T, U>> {
        match results.put(value) {
            Ok(()) => {
                self.task_done();
                Ok(())
            }
            Err(error) => Err(FinishError { task: self, error }),
        }
    }

    /// Takes the item out, and leaves the task to be counted: the queue's
    /// [`task_done`](crate::JoinableQueue::task_done) must be called once for it, in this process,
    /// on any thread, with any handle.
    ///
    /// Such a call does not name a task, so it completes none on its own. The detached tasks of a
    /// process are completed together, once there were as many calls as there are detached tasks.
    /// If the process dies before that (or drops its last handle of the queue), all of them are
    /// delivered again. A process whose detached tasks always overlap never reaches that point. It
    /// keeps their slots, until getting fails with `TooManyTasks`, and `join` waits.
    /// [`into_parts`](Self::into_parts) has no such limits: a [`Receipt`](crate::Receipt) completes
    /// one task at once.
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = JoinableQueue::bounded(2)?;
    /// queue.put(1)?;
    /// queue.put(2)?;
    /// let (a, b) = (queue.get()?.detach(), queue.get()?.detach());
    /// queue.task_done()?; // one of two: completes none
    /// assert_eq!((a + b, queue.unfinished()), (3, 2));
    /// queue.task_done()?;
    /// assert_eq!(queue.unfinished(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn detach(self) -> T {
        let (inner, item, task) = self.dismantle();
        inner.detach(task.slot);
        item
    }

    /// Returns the parts. The caller must end the task.
    pub(crate) fn dismantle(mut self) -> (Arc<Inner<T>>, T, Delivered) {
        match self.item.take() {
            Some(item) => (Arc::clone(&self.inner), item, self.task),
            None => unreachable!("taken only when it ends"),
        }
    }

    /// Returns how often the task was delivered, including this time: 1 at first.
    #[doc(alias = "delivery_count")]
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.task.deliveries
    }

    /// Returns a number that identifies the task within its queue. It is the same at each delivery.
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

/// Changes affect the item of this process. If the task is delivered again, its item is as it was
/// put.
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

/// The queues that a result can be put into: see [`Task::finish_with`].
pub trait Puts<T> {
    /// Puts an item, and waits for room if necessary.
    ///
    /// # Errors
    ///
    /// If the item cannot be put.
    fn put(&self, item: T) -> Result<(), PutError<T>>;
}

macro_rules! puts_results {
    ($($name:ident)*) => {$(
        impl<T: Serialize> Puts<T> for $name<T> {
            fn put(&self, item: T) -> Result<(), PutError<T>> {
                // Not the method of the handle: that requires `Deserialize`.
                (**self).put(item)
            }
        }
    )*};
}

puts_results!(Queue Producer JoinableQueue);

/// The error of [`Task::finish_with`]: the result was not put, and the task has not ended.
pub struct FinishError<T, U> {
    /// The task. If it is dropped, it is put back.
    pub task: Task<T>,
    /// The reason, with the result.
    pub error: PutError<U>,
}

debug_is_display!(FinishError<T, U>);

impl<T, U> fmt::Display for FinishError<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the result of a task was not put, and the task has not ended: {}", self.error)
    }
}

impl<T, U> Error for FinishError<T, U> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
