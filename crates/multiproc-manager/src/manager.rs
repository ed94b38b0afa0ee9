//! The handle of a manager: what clients hold.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multiproc_pipe::Address;
use multiproc_process::{Child, Process};
use multiproc_queue::{JoinableQueue, Queue};
use multiproc_sync::{Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::builder::{ManagerBuilder, sweep};
use crate::client::{Link, PATIENCE, Peers};
use crate::error::ManagerError;
use crate::item_type::ItemType;
use crate::name::Name;
use crate::object::{Object, ObjectInfo, ObjectKind, Spec};
use crate::protocol::{self, Refusal, Reply, Request};

/// How long it may take to end, when it was told to.
pub(crate) const END: Duration = Duration::from_secs(1);

/// The place where programs find queues, locks and the rest by name.
///
/// A manager is a process of its own. The first who asks for a name has the object made, the others
/// open the same one: children of one program, or programs that were started apart, and know nothing
/// but the manager's address.
///
/// The manager hands objects out, and that is all. They are in shared memory, so a manager's queue is
/// as fast as any other, and it goes on working when the manager dies.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{Manager, Process};
///
/// let manager = Manager::start()?;
/// let jobs = manager.queue::<String>("jobs", 10)?;
/// let address = manager.address().to_string(); // "@…": another program could have it as an argument
///
/// let worker = Process::spawn(
///     |address: String| {
///         let manager = Manager::connect(&*address).unwrap();
///         let jobs = manager.queue::<String>("jobs", 10).unwrap();
///         jobs.put("from the worker".to_owned()).unwrap();
///     },
///     address,
/// )?;
/// worker.join()?;
/// assert_eq!(jobs.get()?, "from the worker");
/// assert_eq!(manager.list()?[0].name, "jobs");
/// # Ok(())
/// # }
/// ```
///
/// # Names
///
/// A name has 1 to 255 bytes, which can be printed. It keeps its object until the name is
/// [removed](Self::remove), also when nobody has it open; and what is in it. Who asks for a name with
/// another kind, item type, or number than it was made with, gets an error that says both.
///
/// Item types are compared by their name, as the compiler has it, and by their shape: which fields and
/// variants, of which kinds. So a program that was built from an older version of the same source is
/// told so. (There is no shape of types that contain themselves, that hold handles, or whose
/// `Deserialize` asks the data what comes: those are compared by name alone. Programs of different
/// sources share the types of a library, or those of std: `(String, u32)`.)
///
/// `None` in place of a name makes an object without one, in this process: nobody can find it, so the
/// manager has nothing to do with it. It can be handed on as any handle, and ends with the last one.
///
/// As the manager itself has all of its objects open, consumers of its queues never see the end of all
/// producers: [`shutdown`](Queue::shutdown) of a queue is for that.
///
/// # When a process dies
///
/// If the manager dies, by whatever cause, what was opened goes on working, for everybody who has it open.
/// Whoever then wants to open something gets [`ManagerGone`](ManagerError::ManagerGone). Nothing is left
/// behind that would keep another one from starting at the same address; a handle that has said
/// `ManagerGone` finds that one. It has none of the old objects, though: open them all anew.
///
/// If a client dies, the others see what the pages of the objects say. A client that is stopped, sends
/// nonsense or nothing at all, holds up nobody.
///
/// # The handle
///
/// It can be cloned, and sent to other processes: what arrives connects to the same address, when
/// it is first used. When the last handle in the process that *started* the manager is dropped, the
/// manager ends. Those who only connected leave it alone.
///
/// Each operation that asks the manager takes one round trip, and 10 seconds at most: if the manager is
/// stopped, that is [`NoAnswer`](ManagerError::NoAnswer).
#[derive(Clone)]
pub struct Manager {
    this: Arc<Handle>,
}

struct Handle {
    address: Address,
    peers: Peers,
    /// None: not connected (any more).
    link: Mutex<Option<Link>>,
    /// The manager, if it is a child of this process.
    process: Option<Process>,
}

impl Manager {
    /// Starts a manager, as a daemon child of this process: it is named `Manager-1` and so on, and is
    /// seen in [`active_children`](multiproc_process::active_children).
    ///
    /// It listens when this returns, and ends when the last handle in this process is dropped; or
    /// within a second of this process's death.
    ///
    /// # Errors
    ///
    /// [`Spawn`](ManagerError::Spawn), if its process cannot be started, [`Died`](ManagerError::Died)
    /// if that ends at once.
    pub fn start() -> Result<Self, ManagerError> {
        Self::builder().start()
    }

    /// Connects to a manager that runs, at its [`address`](Self::address).
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// // `multiproc-manager serve @office` runs in another terminal.
    /// let manager = Manager::connect("@office")?;
    /// let printing = manager.lock("printer")?;
    /// let guard = printing.lock().expect("nobody died while printing");
    /// # drop(guard);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ManagerGone`](ManagerError::ManagerGone), if there is none;
    /// [`NotAllowed`](ManagerError::NotAllowed), if it is another user's;
    /// [`NotAManager`](ManagerError::NotAManager), if somebody else listens there;
    /// [`Version`](ManagerError::Version), [`TooManyClients`](ManagerError::TooManyClients),
    /// [`NoAnswer`](ManagerError::NoAnswer).
    pub fn connect(address: impl Into<Address>) -> Result<Self, ManagerError> {
        Self::builder().address(address).connect()
    }

    /// Sets up a manager: where it listens, for whom, and how much it takes on.
    pub fn builder() -> ManagerBuilder {
        ManagerBuilder::new()
    }

    pub(crate) fn over(
        address: Address,
        peers: Peers,
        link: Option<Link>,
        process: Option<Process>,
    ) -> Self {
        Self { this: Arc::new(Handle { address, peers, link: Mutex::new(link), process }) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.this.address
    }

    /// Its process, if this process has started it.
    #[must_use]
    pub fn process(&self) -> Option<&Child> {
        self.this.process.as_deref()
    }

    /// Opens the [`Queue`] of this name; makes one that holds `capacity` items, if there is none.
    /// `None` as the capacity: any number, of 8 GiB together.
    ///
    /// # Errors
    ///
    /// [`ManagerGone`](ManagerError::ManagerGone), if there is no manager any more;
    /// [`KindMismatch`](ManagerError::KindMismatch), [`TypeMismatch`](ManagerError::TypeMismatch),
    /// [`CapacityMismatch`](ManagerError::CapacityMismatch), if the name is of something else;
    /// [`InvalidName`](ManagerError::InvalidName);
    /// [`TooManyObjects`](ManagerError::TooManyObjects); [`Failed`](ManagerError::Failed), if it cannot be
    /// made, because the capacity is 0, say, or be opened, because 1024 processes have it open.
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

    /// Opens the [`JoinableQueue`] of this name; makes one that holds `capacity` tasks, if there is
    /// none.
    ///
    /// # Errors
    ///
    /// As [`queue`](Self::queue).
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

    /// What there is, in the order in which it was made.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = multiproc::Manager::start()?;
    /// let jobs = manager.queue::<u32>("jobs", 5)?;
    /// jobs.put(1)?;
    /// let [info] = &manager.list()?[..] else { panic!() };
    /// assert_eq!((&*info.name, info.capacity, info.length), ("jobs", Some(5), 1));
    /// assert_eq!((info.item_type.as_deref(), info.members), (Some("u32"), 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ManagerGone`](ManagerError::ManagerGone), if there is no manager any more.
    pub fn list(&self) -> Result<Vec<ObjectInfo>, ManagerError> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let (objects, next) = match self.ask::<()>(Request::List { after })? {
                Reply::Listed { objects, next } => (objects, next),
                _ => return Err(ManagerError::NotAManager),
            };
            all.extend(objects);
            match next {
                // Whatever it says, it comes to an end.
                Some(next) if next > after => after = next,
                _ => return Ok(all),
            }
        }
    }

    /// Forgets a name. Who has the object open keeps it; who asks for the name gets a new one.
    ///
    /// # Errors
    ///
    /// [`NoSuchName`](ManagerError::NoSuchName), if there is none;
    /// [`ManagerGone`](ManagerError::ManagerGone), if there is no manager any more.
    pub fn remove(&self, name: &str) -> Result<(), ManagerError> {
        let invalid = |reason| ManagerError::InvalidName { name: name.to_owned(), reason };
        protocol::reason_against(name).map_or(Ok(()), |reason| Err(invalid(reason)))?;
        match self.ask::<()>(Request::Remove { name: name.to_owned() })? {
            Reply::Done => Ok(()),
            Reply::Refused(Refusal::NoSuchName) => Err(ManagerError::NoSuchName(name.to_owned())),
            _ => Err(ManagerError::NotAManager),
        }
    }

    /// Ends the manager, for everybody. What is open goes on working; another one can listen at the
    /// address when this returns.
    ///
    /// # Errors
    ///
    /// [`ManagerGone`](ManagerError::ManagerGone), if there was no manager any more.
    pub fn shutdown(&self) -> Result<(), ManagerError> {
        match self.ask::<()>(Request::Shutdown)? {
            Reply::Done => {}
            _ => return Err(ManagerError::NotAManager),
        }
        *self.link() = None;
        if let Some(process) = &self.this.process {
            end(process);
        }
        Ok(())
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
                let reason = "the manager refuses it".to_owned();
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

    fn ask<T>(&self, request: Request) -> Result<Reply<T>, ManagerError> {
        self.ask_within(request, PATIENCE)
    }

    /// One at a time: the others of this process wait, no longer than it takes to give up.
    fn ask_within<T>(
        &self,
        request: Request,
        patience: Duration,
    ) -> Result<Reply<T>, ManagerError> {
        let Handle { address, peers, .. } = &*self.this;
        let mut place = self.link();
        let link = match place.take() {
            Some(link) => link,
            None => Link::connect(address, peers, patience)?,
        };
        let (link, reply) = link.ask(request, patience);
        *place = link;
        reply
    }

    fn link(&self) -> std::sync::MutexGuard<'_, Option<Link>> {
        self.this.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

macro_rules! opens {
    ($(
        $(#[$doc:meta])*
        $method:ident $kind:ident ($($number:ident)?)
    )*) => {
        /// Objects that hold no items.
        impl Manager {$(
            $(#[$doc])*
            ///
            /// # Errors
            ///
            /// As [`queue`](Self::queue).
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
    /// Opens the [`Lock`] of this name; makes one, if there is none.
    lock Lock()
    /// Opens the [`RLock`] of this name; makes one, if there is none.
    rlock RLock()
    /// Opens the [`Semaphore`] of this name; makes one with this value, if there is none.
    semaphore Semaphore(value)
    /// Opens the [`BoundedSemaphore`] of this name; makes one with so many permits, if there is none.
    bounded_semaphore BoundedSemaphore(permits)
    /// Opens the [`Event`] of this name; makes one, if there is none.
    event Event()
    /// Opens the [`Condition`] of this name; makes one, if there is none.
    condition Condition()
    /// Opens the [`Barrier`] of this name; makes one for so many parties, if there is none.
    barrier Barrier(parties)
}

/// Tells the process of a manager to end, and waits for that.
fn end(process: &Process) {
    if process.wait_timeout(END).is_none() {
        // It is stopped, perhaps.
        let _ = process.kill();
        process.wait();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(process) = self.process.as_ref().filter(|it| it.is_ours()) else { return };
        // Its end, by SIGTERM, is an orderly one.
        let _ = process.terminate();
        end(process);
        sweep(&self.address);
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("address", &format_args!("{}", self.address()))
            .field("process", &self.this.process)
            .finish()
    }
}

/// What travels of a handle. A relative path means something else elsewhere.
#[derive(Serialize, Deserialize)]
struct Wire {
    address: Address,
    peers: Peers,
}

impl Serialize for Manager {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let path = self.address().as_path().and_then(|path| std::path::absolute(path).ok());
        let address = path.map_or_else(|| self.address().clone(), Address::path);
        Wire { address, peers: self.this.peers.clone() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Manager {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { address, peers } = Wire::deserialize(deserializer)?;
        Ok(Self::over(address, peers, None, None))
    }
}
