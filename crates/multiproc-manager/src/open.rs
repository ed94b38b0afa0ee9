//! Opening objects by name.

use bytemuck::{Pod, bytes_of};
use multiproc_queue::{JoinableQueue, Queue};
use multiproc_sync::{
    Atomic, Barrier, BoundedSemaphore, Condition, Event, Lock, Mutex, RLock, Semaphore, Shared,
};
use serde::de::DeserializeOwned;

use crate::error::ManagerError;
use crate::managed::ManagedObject;
use crate::managed::private::Object;
use crate::manager::Manager;
use crate::name::Name;
use crate::protocol::{self, Refusal, Reply, Request};
use crate::queue_builder::ManagedQueueBuilder;
use crate::spec::{LONGEST_VALUE, Number, Spec};

/// Existing objects.
impl Manager {
    /// Opens the object of this name, which must exist. Its capacity, limits and values may be any.
    ///
    /// The type states the kind of the object, and the type of what is in it: see
    /// [`ManagedObject`]. A [`Producer`](multiproc_queue::Producer) or a
    /// [`Consumer`](multiproc_queue::Consumer) is one end of a queue.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{Atomic, Consumer, Manager, ManagerError, Queue};
    ///
    /// let manager = Manager::start()?;
    /// let jobs = manager.queue::<String>("jobs", 10)?;
    /// let _hits = manager.atomic("hits", 0)?;
    ///
    /// let same = manager.open::<Queue<String>>("jobs")?;
    /// assert!(same.is_same(&jobs));
    /// let consumer: Consumer<String> = manager.open("jobs")?;
    /// jobs.put("shine".to_owned())?;
    /// assert_eq!(consumer.get()?, "shine");
    /// manager.open::<Atomic>("hits")?.fetch_add(1);
    ///
    /// match manager.open::<Queue<String>>("job") {
    ///     Err(ManagerError::NoSuchObject { existing, .. }) => assert_eq!(existing, ["jobs"]),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`NoSuchObject`](ManagerError::NoSuchObject) if there is no object of this name. It
    ///   contains the names of the same kind.
    /// - [`KindMismatch`](ManagerError::KindMismatch) or
    ///   [`TypeMismatch`](ManagerError::TypeMismatch) if the object differs.
    /// - [`ManagerGone`](ManagerError::ManagerGone) if the manager has ended, and
    ///   [`NoAnswer`](ManagerError::NoAnswer) if it does not answer within 10 seconds.
    /// - [`InvalidName`](ManagerError::InvalidName) if the name is not valid.
    /// - [`Failed`](ManagerError::Failed) if the object cannot be opened (1024 processes have it
    ///   open, for example).
    #[doc(alias = "open_existing")]
    #[doc(alias = "get")]
    pub fn open<O: ManagedObject>(&self, name: &str) -> Result<O, ManagerError> {
        self.request::<O>(name, Spec::any(O::kind(), O::item()), false)
    }

    /// Opens the object of this name, and creates it if there is none. Without a name, creates one
    /// in this process.
    pub(crate) fn open_or_create<O: Object>(
        &self,
        name: Option<&str>,
        spec: Spec,
    ) -> Result<O, ManagerError> {
        match name {
            Some(name) => self.request::<O>(name, spec, true),
            None => O::create(None, &spec)
                .map(O::of_sent)
                .map_err(|error| ManagerError::Failed { name: None, reason: error.to_string() }),
        }
    }

    fn request<O: Object>(&self, name: &str, spec: Spec, creates: bool) -> Result<O, ManagerError> {
        let name = name.to_owned();
        if let Some(reason) = protocol::reason_against(&name) {
            return Err(ManagerError::InvalidName { name, reason });
        }
        if let Some(size) = spec.value.as_ref().map(Vec::len).filter(|&size| size > LONGEST_VALUE) {
            let reason = format!(
                "its value has {size} bytes, and that of a mutex with a name at most \
                 {LONGEST_VALUE}; use a shared table and a lock"
            );
            return Err(ManagerError::Failed { name: Some(name), reason });
        }
        let asked = spec.clone();
        let reply = self.ask::<O::Sent>(Request::Open { name: name.clone(), spec, creates });
        let refusal = match reply {
            Ok(Reply::Opened(sent)) => return Ok(O::of_sent(sent)),
            Ok(Reply::Refused(refusal)) => refusal,
            Ok(_) => return Err(ManagerError::NotAManager),
            Err(ManagerError::Failed { reason, .. }) => Refusal::Failed(reason),
            Err(error) => return Err(error),
        };
        Err(refused(refusal, name, asked))
    }
}

/// Returns the error for a request that was refused.
fn refused(refusal: Refusal, name: String, asked: Spec) -> ManagerError {
    let kind = asked.kind;
    match refusal {
        Refusal::InvalidName => {
            let reason = "the manager has refused it".to_owned();
            ManagerError::InvalidName { name, reason }
        }
        Refusal::NoSuchName => ManagerError::NoSuchName(name),
        Refusal::OnlyThese { names: existing, others } => {
            ManagerError::NoSuchObject { name, kind, existing, others }
        }
        Refusal::KindIs(is) => ManagerError::KindMismatch { name, asked: kind, is },
        Refusal::TypeIs(is) => {
            let asked = asked.item.map_or_else(String::new, |item| item.name);
            ManagerError::TypeMismatch { name, asked, is }
        }
        Refusal::NumberIs(is) => {
            let (asked, is) = (asked.number.get(), is.get());
            ManagerError::CapacityMismatch { name, kind, asked, is }
        }
        Refusal::BytesAre(is) => {
            let asked = asked.bytes.unwrap_or_default();
            ManagerError::MaxBytesMismatch { name, kind, asked, is }
        }
        Refusal::AttemptsAre(is) => {
            let asked = asked.attempts.unwrap_or_default();
            ManagerError::MaxAttemptsMismatch { name, asked, is }
        }
        Refusal::TooManyObjects(limit) => ManagerError::TooManyObjects(limit),
        Refusal::Failed(reason) => ManagerError::Failed { name: Some(name), reason },
    }
}

/// Queues.
impl Manager {
    /// Opens the [`Queue`] of this name. If there is none, creates one that holds `capacity` items.
    /// With a capacity of `None`, the number of items is not limited, and their total size is
    /// limited to 8 GiB. [`queue_builder`](Self::queue_builder) sets other limits.
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
    /// # The item type
    ///
    /// Item types of two programs match if they have the same schema: the same names of structs and
    /// enums, fields and variants in the same order, with the same kinds of values. The modules and
    /// crates in which they are defined do not matter. A struct or an enum is shown by its own name
    /// in [`list`](Self::list) and in errors. `#[serde(rename = "shop.Job")]` sets another one, in
    /// both programs.
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
        let number = Number::from(capacity.into());
        self.open_or_create(name.text(), Spec { number, ..spec_of::<Queue<T>>() })
    }

    /// Opens the [`JoinableQueue`] of this name. If there is none, creates one that holds
    /// `capacity` tasks. [`joinable_queue_builder`](Self::joinable_queue_builder) sets other
    /// limits.
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
        let number = Number::from(capacity.into());
        self.open_or_create(name.text(), Spec { number, ..spec_of::<JoinableQueue<T>>() })
    }

    /// Returns a builder that opens the [`Queue`] of this name, or creates it with other limits
    /// than a capacity.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{Manager, ManagerError};
    ///
    /// let manager = Manager::start()?;
    /// let frames = manager.queue_builder::<Vec<u8>>("frames").max_bytes(1 << 20).build()?;
    /// assert_eq!((frames.max_bytes(), frames.capacity()), (1 << 20, None));
    ///
    /// let error = manager.queue_builder::<Vec<u8>>("frames").max_bytes(9).build().unwrap_err();
    /// assert!(matches!(error, ManagerError::MaxBytesMismatch { asked: 9, is: 0x100000, .. }));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "max_bytes")]
    pub fn queue_builder<T: DeserializeOwned>(
        &self,
        name: impl Name,
    ) -> ManagedQueueBuilder<'_, Queue<T>> {
        ManagedQueueBuilder::new(self, name.text(), spec_of::<Queue<T>>())
    }

    /// Returns a builder that opens the [`JoinableQueue`] of this name, or creates it with other
    /// limits than a capacity.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// let tasks = manager.joinable_queue_builder::<u32>("tasks").max_attempts(3).build()?;
    /// assert_eq!(tasks.max_attempts(), 3);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "max_attempts")]
    pub fn joinable_queue_builder<T: DeserializeOwned>(
        &self,
        name: impl Name,
    ) -> ManagedQueueBuilder<'_, JoinableQueue<T>> {
        ManagedQueueBuilder::new(self, name.text(), spec_of::<JoinableQueue<T>>())
    }
}

/// A request for any object of this type.
fn spec_of<O: Object>() -> Spec {
    Spec::any(O::kind(), O::item())
}

/// Values.
impl Manager {
    /// Opens the [`Mutex`] of this name. If there is none, creates one with this value, of at most
    /// 16 KiB. The value of one that exists stays as it is.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = multiproc::Manager::start()?;
    /// let highest = manager.mutex("highest", 0u64)?;
    /// *highest.lock().expect("no holder has died") = 7;
    /// let same = manager.mutex("highest", 0u64)?;
    /// assert_eq!(*same.lock().expect("no holder has died"), 7);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Types of two programs match if their names (without paths), sizes and alignments are the
    /// same. Give the type the same fields in both programs: a `#[repr(C)]` struct.
    ///
    /// # Errors
    ///
    /// The same as for [`queue`](Self::queue), and [`Failed`](ManagerError::Failed) if the value is
    /// larger than 16 KiB.
    #[doc(alias = "Value")]
    pub fn mutex<T: Pod>(&self, name: impl Name, value: T) -> Result<Mutex<T>, ManagerError> {
        let value = Some(bytes_of(&value).to_vec());
        self.open_or_create(name.text(), Spec { value, ..spec_of::<Mutex<T>>() })
    }

    /// Opens the [`Shared`] table of this name. If there is none, creates one of `len` values whose
    /// bytes are all zero. The types of two programs are compared as for [`mutex`](Self::mutex).
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = multiproc::Manager::start()?;
    /// let counts = manager.shared::<u32>("counts", 1000)?;
    /// counts.set(7, 1);
    /// assert_eq!(manager.shared::<u32>("counts", 1000)?.get(7), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same as for [`queue`](Self::queue); the number of values is the capacity.
    ///
    /// # Panics
    ///
    /// Panics if `T` has size 0.
    #[doc(alias = "Array")]
    pub fn shared<T: Pod>(&self, name: impl Name, len: usize) -> Result<Shared<T>, ManagerError> {
        assert!(size_of::<T>() > 0, "values of size 0 cannot be shared");
        // More than the address space is refused by the manager.
        let bytes = Some(len.saturating_mul(size_of::<T>()));
        let number = Number::Exactly(len);
        self.open_or_create(name.text(), Spec { number, bytes, ..spec_of::<Shared<T>>() })
    }

    /// Opens the [`Atomic`] number of this name. If there is none, creates one with this value. The
    /// value of one that exists stays as it is.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = multiproc::Manager::start()?;
    /// let tickets = manager.atomic("tickets", 1)?;
    /// assert_eq!(tickets.fetch_add(1), 1);
    /// assert_eq!(manager.atomic("tickets", 1)?.load(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same as for [`queue`](Self::queue).
    #[doc(alias = "AtomicU64")]
    #[doc(alias = "Value")]
    #[doc(alias = "counter")]
    pub fn atomic(&self, name: impl Name, value: u64) -> Result<Atomic, ManagerError> {
        let value = Some(value.to_le_bytes().to_vec());
        self.open_or_create(name.text(), Spec { value, ..spec_of::<Atomic>() })
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
                let number = [$(Number::Exactly($number as usize),)? Number::Any][0];
                self.open_or_create(name.text(), Spec { number, ..spec_of::<$kind>() })
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
