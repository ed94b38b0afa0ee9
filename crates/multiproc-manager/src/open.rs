//! Opening objects by name.

use multiproc_queue::{JoinableQueue, Queue};
use multiproc_sync::{Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore};
use serde::de::DeserializeOwned;

use crate::error::ManagerError;
use crate::item_type::ItemType;
use crate::manager::Manager;
use crate::name::Name;
use crate::object::{Object, ObjectKind, Spec};
use crate::protocol::{self, Refusal, Reply, Request};

/// Queues.
impl Manager {
    /// Opens the [`Queue`] of this name. If there is none, creates one that holds `capacity` items.
    /// With a capacity of `None`, the number of items is not limited, and their total size is
    /// limited to 8 GiB.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{Manager, ManagerError};
    ///
    /// let manager = Manager::start()?;
    /// let jobs = manager.queue::<u32>("jobs", 10)?;
    /// jobs.put(1)?;
    /// let same = manager.queue::<u32>("jobs", 10)?;
    /// assert_eq!(same.get()?, 1);
    /// let error = manager.queue::<String>("jobs", 10).unwrap_err();
    /// assert!(matches!(error, ManagerError::TypeMismatch { .. }));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ManagerGone`](ManagerError::ManagerGone) if the manager has ended, and
    ///   [`NoAnswer`](ManagerError::NoAnswer) if it does not answer within 10 seconds.
    /// - [`KindMismatch`](ManagerError::KindMismatch), [`TypeMismatch`](ManagerError::TypeMismatch)
    ///   or [`CapacityMismatch`](ManagerError::CapacityMismatch) if the object of this name
    ///   differs.
    /// - [`InvalidName`](ManagerError::InvalidName) if the name is not valid.
    /// - [`TooManyObjects`](ManagerError::TooManyObjects) if the manager's limit is reached.
    /// - [`Failed`](ManagerError::Failed) if the object cannot be created (its capacity is 0, for
    ///   example) or cannot be opened (1024 processes have it open).
    #[doc(alias = "Queue")]
    pub fn queue<T: DeserializeOwned>(
        &self,
        name: impl Name,
        capacity: impl Into<Option<usize>>,
    ) -> Result<Queue<T>, ManagerError> {
        let item = Some(ItemType::of::<T>());
        match self.open(&name, ObjectKind::Queue, item, capacity.into())? {
            Object::Queue(queue) => Ok(queue),
            _ => Err(ManagerError::NotAManager),
        }
    }

    /// Opens the [`JoinableQueue`] of this name. If there is none, creates one that holds
    /// `capacity` tasks.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// let tasks = manager.joinable_queue::<u32>("tasks", 10)?;
    /// tasks.put(1)?;
    /// tasks.get()?.task_done();
    /// tasks.join()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same as for [`queue`](Self::queue).
    #[doc(alias = "JoinableQueue")]
    pub fn joinable_queue<T: DeserializeOwned>(
        &self,
        name: impl Name,
        capacity: impl Into<Option<usize>>,
    ) -> Result<JoinableQueue<T>, ManagerError> {
        let item = Some(ItemType::of::<T>());
        match self.open(&name, ObjectKind::JoinableQueue, item, capacity.into())? {
            Object::JoinableQueue(queue) => Ok(queue),
            _ => Err(ManagerError::NotAManager),
        }
    }

    fn open<T>(
        &self,
        name: &impl Name,
        kind: ObjectKind,
        item: Option<ItemType>,
        capacity: Option<usize>,
    ) -> Result<Object<T>, ManagerError> {
        let spec = Spec { kind, item, capacity };
        let Some(name) = name.text() else {
            return Object::make(None, &spec)
                .map_err(|error| ManagerError::Failed { name: None, reason: error.to_string() });
        };
        let named = || name.to_owned();
        if let Some(reason) = protocol::reason_against(name) {
            return Err(ManagerError::InvalidName { name: named(), reason });
        }
        let asked = spec.item.as_ref().map_or_else(String::new, |item| item.name.clone());
        let reply =
            self.ask(Request::Open { name: named(), spec }).map_err(|error| match error {
                ManagerError::Failed { reason, .. } => {
                    ManagerError::Failed { name: Some(named()), reason }
                }
                error => error,
            })?;
        let refusal = match reply {
            Reply::Opened(object) => return Ok(object),
            Reply::Refused(refusal) => refusal,
            _ => return Err(ManagerError::NotAManager),
        };
        let name = named();
        Err(match refusal {
            Refusal::InvalidName => {
                let reason = "the manager has refused it".to_owned();
                ManagerError::InvalidName { name, reason }
            }
            Refusal::NoSuchName => ManagerError::NoSuchName(name),
            Refusal::KindIs(is) => ManagerError::KindMismatch { name, asked: kind, is },
            Refusal::TypeIs(is) => ManagerError::TypeMismatch { name, asked, is },
            Refusal::CapacityIs(is) => {
                ManagerError::CapacityMismatch { name, kind, asked: capacity, is }
            }
            Refusal::TooManyObjects(limit) => ManagerError::TooManyObjects(limit),
            Refusal::Failed(reason) => ManagerError::Failed { name: Some(name), reason },
        })
    }
}

macro_rules! opens {
    ($(
        $(#[$doc:meta])*
        $method:ident $kind:ident ($($number:ident)?)
    )*) => {
        /// Objects without items.
        impl Manager {$(
            $(#[$doc])*
            ///
            /// # Errors
            ///
            /// The same as for [`queue`](Self::queue).
            pub fn $method(
                &self,
                name: impl Name,
                $($number: u32,)?
            ) -> Result<$kind, ManagerError> {
                let number: Option<usize> = None;
                $(let number = number.or(usize::try_from($number).ok());)?
                match self.open::<()>(&name, ObjectKind::$kind, None, number)? {
                    Object::$kind(object) => Ok(object),
                    _ => Err(ManagerError::NotAManager),
                }
            }
        )*}
    };
}

opens! {
    /// Opens the [`Lock`] of this name. If there is none, creates one.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = multiproc::Manager::start()?;
    /// let printer = manager.lock("printer")?;
    /// let guard = printer.lock().expect("no holder has died");
    /// drop(guard);
    /// # Ok(())
    /// # }
    /// ```
    lock Lock()
    /// Opens the [`RLock`] of this name. If there is none, creates one.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = multiproc::Manager::start()?;
    /// let tree = manager.rlock("tree")?;
    /// let outer = tree.lock().expect("no holder has died");
    /// let inner = tree.lock().expect("no holder has died");
    /// drop((inner, outer));
    /// # Ok(())
    /// # }
    /// ```
    rlock RLock()
    /// Opens the [`Semaphore`] of this name. If there is none, creates one with this value.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = multiproc::Manager::start()?;
    /// let ready = manager.semaphore("ready", 0)?;
    /// ready.release(1)?;
    /// ready.acquire();
    /// # Ok(())
    /// # }
    /// ```
    semaphore Semaphore(value)
    /// Opens the [`BoundedSemaphore`] of this name. If there is none, creates one with this number
    /// of permits.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = multiproc::Manager::start()?;
    /// let slots = manager.bounded_semaphore("slots", 2)?;
    /// let permit = slots.acquire();
    /// assert_eq!(slots.available(), 1);
    /// drop(permit);
    /// # Ok(())
    /// # }
    /// ```
    bounded_semaphore BoundedSemaphore(permits)
    /// Opens the [`Event`] of this name. If there is none, creates one.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = multiproc::Manager::start()?;
    /// let started = manager.event("started")?;
    /// started.set();
    /// started.wait();
    /// # Ok(())
    /// # }
    /// ```
    event Event()
    /// Opens the [`Condition`] of this name. If there is none, creates one.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = multiproc::Manager::start()?;
    /// let changed = manager.condition("changed")?;
    /// let guard = changed.lock().expect("no holder has died");
    /// changed.notify_all();
    /// drop(guard);
    /// # Ok(())
    /// # }
    /// ```
    condition Condition()
    /// Opens the [`Barrier`] of this name. If there is none, creates one for this number of
    /// parties.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = multiproc::Manager::start()?;
    /// let barrier = manager.barrier("start", 1)?;
    /// barrier.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    barrier Barrier(parties)
}
