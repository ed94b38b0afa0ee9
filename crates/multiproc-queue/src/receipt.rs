//! Tasks that are completed apart from their items, with a receipt each.

use std::fmt;
use std::sync::Arc;

use crate::engine::slot::Slot;
use crate::engine::slots::Delivered;
use crate::inner::Inner;
use crate::task::Task;

/// Completes one task, on any thread of the process that got it: see [`Task::into_parts`].
///
/// - [`task_done`](Self::task_done) completes exactly this task.
/// - If it is dropped without that, the task is put back, as when a [`Task`] is dropped.
/// - If the process dies, the task is delivered again.
///
/// `join` waits for a task with a receipt whichever thread has the receipt, including the calling
/// one. At the end of a queue, `get` does not wait for the receipts of its own process: a task that
/// one of them puts back after that can still be got.
///
/// # Examples
///
/// ```
/// use multiproc_queue::JoinableQueue;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let jobs = JoinableQueue::unbounded()?;
/// jobs.put("render".to_owned())?;
/// let (item, receipt) = jobs.get()?.into_parts();
/// assert_eq!((&*item, receipt.attempt()), ("render", 1));
/// receipt.task_done();
/// jobs.join()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a receipt puts its task back"]
pub struct Receipt {
    queue: Arc<dyn Completes>,
    task: Delivered,
    is_done: bool,
}

/// A queue of any item type, as receipts need it.
trait Completes: Send + Sync {
    fn task_done(&self, slot: Slot);
    fn put_back(&self, slot: Slot);
}

impl<T> Completes for Inner<T> {
    fn task_done(&self, slot: Slot) {
        self.work().ack_detached(&[slot]);
    }

    fn put_back(&self, slot: Slot) {
        self.put_task_back(slot);
    }
}

impl Receipt {
    /// Creates the receipt of a task that was detached.
    pub(crate) fn of<T: 'static>(queue: Arc<Inner<T>>, task: Delivered) -> Self {
        Self { queue, task, is_done: false }
    }

    /// Completes the task. When this returns, it is never delivered again.
    #[doc(alias = "ack")]
    pub fn task_done(mut self) {
        self.is_done = true;
        self.queue.task_done(self.task.slot);
    }

    /// Puts the task back, to be delivered again. Dropping the receipt has the same effect.
    #[doc(alias = "nack")]
    #[doc(alias = "reject")]
    pub fn put_back(self) {}

    /// Returns how often the task was delivered, including this time: 1 at first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.task.deliveries
    }

    /// Returns the task's [`id`](Task::id).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.task.number
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.is_done {
            self.queue.put_back(self.task.slot);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("id", &self.id())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

impl<T: 'static> Task<T> {
    /// Separates the item from the task. The [`Receipt`] completes the task or puts it back, on any
    /// thread of this process.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_queue::JoinableQueue;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let jobs = JoinableQueue::unbounded()?;
    /// jobs.put_many(["shine".to_owned(), "rise".to_owned()])?;
    /// let (shine, first) = jobs.get()?.into_parts();
    /// let (rise, second) = jobs.get()?.into_parts();
    ///
    /// let thread = std::thread::spawn(move || {
    ///     assert_eq!(rise, "rise");
    ///     second.task_done(); // this task, not the older one
    /// });
    /// thread.join().unwrap();
    /// drop(first);
    /// let task = jobs.get()?;
    /// assert_eq!((&*task, task.attempt()), (&shine, 2));
    /// task.task_done();
    /// jobs.join()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_parts(self) -> (T, Receipt) {
        let (inner, item, task) = self.dismantle();
        inner.work().tasks().detach(task.slot);
        (item, Receipt::of(inner, task))
    }
}
