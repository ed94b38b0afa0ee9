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
use crate::error::{FromPutMany, PutError, PutManyError, TryPutManyError};
use crate::inner::Inner;
use crate::joinable::JoinableQueue;
use crate::queue::{Producer, Queue};
use crate::task_ends::TaskProducer;

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

    /// Puts several results into another queue, and then completes the task.
    ///
    /// The results are put as by [`put_many`](Queue::put_many): in steps of up to 128. As with
    /// [`finish_with`](Self::finish_with), a process that is killed on the way leaves some or all
    /// of the results *and* a task that is delivered again.
    ///
    /// # Errors
    ///
    /// If a result cannot be put. The error contains the task, which has not ended, and the results
    /// that were not put.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::{JoinableQueue, Queue};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (lines, words) = (JoinableQueue::unbounded()?, Queue::unbounded()?);
    /// lines.put("rise and shine".to_owned())?;
    /// let task = lines.get()?;
    /// let found: Vec<_> = task.split(' ').map(str::to_owned).collect();
    /// task.finish_with_many(&words, found)?;
    /// assert_eq!((words.len(), lines.unfinished()), (3, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn finish_with_many<U>(
        self,
        results: &impl Puts<U>,
        values: impl IntoIterator<Item = U>,
    ) -> Result<(), FinishManyError<T, U>> {
        match results.put_all(&mut values.into_iter()) {
            Ok(()) => {
                self.task_done();
                Ok(())
            }
            Err(error) => Err(FinishManyError { task: self, error }),
        }
    }

    /// Completes the task, and returns its item.
    ///
    /// When this returns, the task is never delivered again. If this process dies before the work
    /// is done, the work is lost: to keep the task until then, use the task itself, or
    /// [`into_parts`](Self::into_parts).
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = JoinableQueue::bounded(1)?;
    /// queue.put("job".to_owned())?;
    /// let item: String = queue.get()?.into_inner();
    /// assert_eq!((&*item, queue.unfinished()), ("job", 0));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "to discard the item, call `task_done`"]
    pub fn into_inner(mut self) -> T {
        self.inner.work().ack(self.task.slot);
        self.item.take().unwrap_or_else(|| unreachable!("taken only when it ends"))
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

impl<T: Serialize> Task<T> {
    /// Puts new tasks into the task's own queue and completes the task, in one step.
    ///
    /// This is the operation for work that creates more work, as a crawler does. A process that is
    /// killed at any instruction of it has either done both, or neither: then the task is delivered
    /// again, and none of the children is in the queue. So no child is lost, and none is put twice.
    /// `join` does not return in between, and `unfinished` is never 0.
    ///
    /// The call never waits for room, because workers that wait for room in the queue that they
    /// alone empty would wait for each other. All children must fit at once; a queue for such work
    /// is best unbounded. The handle that the task was got from need not be able to put: the
    /// children are put even if no producer is left, so that such a queue ends when all tasks are
    /// done.
    ///
    /// Without children, this is [`task_done`](Self::task_done).
    ///
    /// # Errors
    ///
    /// [`Full`](crate::TryPutError::Full) if there is no room for all children, and otherwise as
    /// [`try_put`](Queue::try_put). Children with descriptors (handles) cannot be encoded here. The
    /// error contains the task, which has not ended, and all children. Its reason is that of the
    /// first child, whichever child failed.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let jobs = JoinableQueue::unbounded()?;
    /// jobs.put(8_u32)?;
    /// let mut ones = 0;
    /// while jobs.unfinished() > 0 {
    ///     let task = jobs.get()?;
    ///     match *task {
    ///         1 => {
    ///             ones += 1;
    ///             task.task_done();
    ///         }
    ///         n => task.finish_and_put([n / 2, n - n / 2])?,
    ///     }
    /// }
    /// assert_eq!(ones, 8);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "replace_with")]
    #[doc(alias = "split")]
    #[doc(alias = "fork")]
    pub fn finish_and_put(
        mut self,
        children: impl IntoIterator<Item = T>,
    ) -> Result<(), FinishAndPutError<T>> {
        let mut children: Vec<T> = children.into_iter().collect();
        if children.is_empty() {
            self.task_done();
            return Ok(());
        }
        match self.inner.finish_and_put(self.task.slot, &children) {
            Ok(()) => {
                self.item = None;
                Ok(())
            }
            Err(failure) => {
                let first = children.remove(0);
                let error = TryPutManyError::of(0, first, failure, children);
                Err(FinishAndPutError { task: self, error })
            }
        }
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

    /// Puts all items of an iterator, in order, and waits for room if necessary.
    ///
    /// It has another name than the handles' `put_many`, so that calls of that are not ambiguous.
    ///
    /// # Errors
    ///
    /// If an item cannot be put. The error contains those that were taken and not put.
    fn put_all(&self, items: &mut dyn Iterator<Item = T>) -> Result<(), PutManyError<T>> {
        items.enumerate().try_for_each(|(put, item)| {
            self.put(item).map_err(|error| PutManyError { put, error, rest: Vec::new() })
        })
    }
}

macro_rules! puts_results {
    ($($name:ident)*) => {$(
        impl<T: Serialize> Puts<T> for $name<T> {
            fn put(&self, item: T) -> Result<(), PutError<T>> {
                // Not the method of the handle: that requires `Deserialize`.
                (**self).put(item)
            }

            fn put_all(&self, items: &mut dyn Iterator<Item = T>) -> Result<(), PutManyError<T>> {
                (**self).put_many(items)
            }
        }
    )*};
}

puts_results!(Queue Producer JoinableQueue TaskProducer);

/// Defines the error of an operation that puts something and then completes the task.
macro_rules! finish_error {
    ($(#[$doc:meta])* $name:ident<T $(, $item:ident)?>($error:ty), $what:literal) => {
        $(#[$doc])*
        ///
        /// It contains the task, so it stays on the thread that has the task. An error type that
        /// requires `Send`, such as `Box<dyn Error + Send + Sync>`, accepts the owned form:
        /// [`into_owned`](Self::into_owned).
        pub struct $name<T $(, $item)?> {
            /// The task. If it is dropped, it is put back.
            pub task: Task<T>,
            /// The reason, with what was not put.
            pub error: $error,
        }

        impl<T $(, $item)?> $name<T $(, $item)?> {
            /// Puts the task back, and returns the reason without what was not put.
            ///
            /// ```
            /// use multiproc_queue::{FinishError, JoinableQueue, Queue};
            /// use std::error::Error;
            ///
            /// fn work(
            ///     jobs: &JoinableQueue<u32>,
            ///     results: &Queue<u32>,
            /// ) -> Result<(), Box<dyn Error + Send + Sync>> {
            ///     let task = jobs.get()?;
            ///     let square = *task * *task;
            ///     task.finish_with(results, square).map_err(FinishError::into_owned)?;
            ///     Ok(())
            /// }
            ///
            /// # fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
            /// let (jobs, results) = (JoinableQueue::unbounded()?, Queue::unbounded()?);
            /// jobs.put(4)?;
            /// work(&jobs, &results)?;
            /// assert_eq!(results.get()?, 16);
            /// # Ok(())
            /// # }
            /// ```
            #[must_use = "it is an error"]
            pub fn into_owned(self) -> NotFinished {
                NotFinished {
                    id: self.task.id(),
                    attempt: self.task.attempt(),
                    what: $what,
                    reason: self.error.to_string(),
                }
            }
        }

        impl<T $(, $item)?> From<$name<T $(, $item)?>> for NotFinished {
            fn from(error: $name<T $(, $item)?>) -> Self {
                error.into_owned()
            }
        }

        debug_is_display!($name<T $(, $item)?>);

        impl<T $(, $item)?> fmt::Display for $name<T $(, $item)?> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}, and the task has not ended: {}", $what, self.error)
            }
        }

        impl<T $(, $item)?> Error for $name<T $(, $item)?> {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                self.error.source()
            }
        }
    };
}

finish_error! {
    /// The error of [`Task::finish_with`]: the result was not put, and the task has not ended.
    FinishError<T, U>(PutError<U>), "the result of a task was not put"
}
finish_error! {
    /// The error of [`Task::finish_with_many`]: not all results were put, and the task has not
    /// ended.
    FinishManyError<T, U>(PutManyError<U>), "not all results of a task were put"
}
finish_error! {
    /// The error of [`Task::finish_and_put`]: none of the children was put, and the task has not
    /// ended.
    FinishAndPutError<T>(TryPutManyError<T>), "the children of a task were not put"
}

/// The owned form of [`FinishError`], [`FinishManyError`] and [`FinishAndPutError`]: a task was not
/// completed, and was put back. It contains neither the task nor what was to be put.
#[derive(Clone, PartialEq, Eq)]
pub struct NotFinished {
    id: u64,
    attempt: u32,
    what: &'static str,
    reason: String,
}

impl NotFinished {
    /// Returns the task's [`id`](Task::id).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the task's [`attempt`](Task::attempt) that has failed.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

debug_is_display!(NotFinished);

impl fmt::Display for NotFinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, attempt, what, reason } = self;
        write!(f, "{what}, and task {id} was put back after attempt {attempt}: {reason}")
    }
}

impl Error for NotFinished {}
