//! Builders for queues with a name.

use std::fmt;
use std::marker::PhantomData;

use multiproc_queue::JoinableQueue;
use serde::de::DeserializeOwned;

use crate::error::ManagerError;
use crate::managed::ManagedObject;
use crate::manager::Manager;
use crate::spec::{Number, Spec};

/// Opens a queue by name, or creates it with limits: see [`Manager::queue_builder`] and
/// [`Manager::joinable_queue_builder`].
///
/// A limit that is not set is not compared with that of a queue that exists. In a queue that is
/// created it has the default of [`QueueBuilder`](multiproc_queue::QueueBuilder) and
/// [`JoinableQueueBuilder`](multiproc_queue::JoinableQueueBuilder).
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::Manager;
///
/// let manager = Manager::start()?;
/// let builder = || manager.joinable_queue_builder::<String>("jobs");
/// let jobs = builder().capacity(100).max_bytes(1 << 20).max_attempts(3).build()?;
/// assert_eq!((jobs.capacity(), jobs.max_bytes(), jobs.max_attempts()), (Some(100), 1 << 20, 3));
/// assert!(builder().capacity(100).build()?.is_same(&jobs));
/// assert!(builder().max_attempts(4).build().unwrap_err().is_mismatch());
/// # Ok(())
/// # }
/// ```
#[must_use = "it does nothing until `build` is called"]
pub struct ManagedQueueBuilder<'a, Q> {
    manager: &'a Manager,
    name: Option<String>,
    spec: Spec,
    queue: PhantomData<fn() -> Q>,
}

impl<'a, Q: ManagedObject> ManagedQueueBuilder<'a, Q> {
    pub(crate) fn new(manager: &'a Manager, name: Option<&str>, spec: Spec) -> Self {
        Self { manager, name: name.map(str::to_owned), spec, queue: PhantomData }
    }

    /// Sets the maximum number of items, from 1 to 2^32. By default, only their bytes are limited.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// let jobs = manager.queue_builder::<u32>("jobs").capacity(5).build()?;
    /// assert_eq!(jobs.capacity(), Some(5));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "maxsize")]
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.spec.number = Number::Exactly(capacity);
        self
    }

    /// Sets the maximum number of bytes of all queued items together, which is also the maximum
    /// encoded size of one item. From 1 to 2^40. The default is 2^33 (8 GiB). See
    /// [`QueueBuilder::max_bytes`](multiproc_queue::QueueBuilder::max_bytes).
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// let texts = manager.queue_builder::<String>("texts").max_bytes(100).build()?;
    /// assert!(texts.put("x".repeat(1000)).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.spec.bytes = Some(max_bytes);
        self
    }

    /// Opens the queue, or creates it if there is none of its name.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{Manager, ManagerError};
    ///
    /// let manager = Manager::start()?;
    /// let _made = manager.queue_builder::<u32>("jobs").max_bytes(1000).build()?;
    /// let error = manager.queue_builder::<u32>("jobs").max_bytes(2000).build().unwrap_err();
    /// assert!(matches!(error, ManagerError::MaxBytesMismatch { asked: 2000, is: 1000, .. }));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same as for [`Manager::queue`], and
    /// [`MaxBytesMismatch`](ManagerError::MaxBytesMismatch) or
    /// [`MaxAttemptsMismatch`](ManagerError::MaxAttemptsMismatch) if the queue has another limit.
    pub fn build(self) -> Result<Q, ManagerError> {
        self.manager.open_or_create(self.name.as_deref(), self.spec)
    }
}

impl<T: DeserializeOwned> ManagedQueueBuilder<'_, JoinableQueue<T>> {
    /// Sets how often a task is delivered at most, from 1 on, before it becomes a dead letter. The
    /// default is 16.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// let tasks = manager.joinable_queue_builder::<u32>("tasks").max_attempts(1).build()?;
    /// tasks.put(7)?;
    /// drop(tasks.get()?); // not done
    /// assert_eq!(tasks.dead_letters()?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.spec.attempts = Some(max_attempts);
        self
    }
}

impl<Q> fmt::Debug for ManagedQueueBuilder<'_, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedQueueBuilder")
            .field("name", &self.name)
            .field("capacity", &self.spec.number.get())
            .field("max_bytes", &self.spec.bytes)
            .field("max_attempts", &self.spec.attempts)
            .finish_non_exhaustive()
    }
}
