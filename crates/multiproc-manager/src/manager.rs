//! The handle of a manager.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multiproc_pipe::{Address, AllowedUsers};
use multiproc_process::{Child, Process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::builder::{ManagerBuilder, sweep};
use crate::client::{Link, PATIENCE};
use crate::diagnosis::Diagnosis;
use crate::error::ManagerError;
use crate::object::ObjectInfo;
use crate::protocol::{self, Refusal, Reply, Request};

/// How long a manager may take to end after it was told to.
pub(crate) const END: Duration = Duration::from_secs(1);

/// A server that hands out queues, locks and other objects by name.
///
/// A manager is a process of its own. When a client first requests a name, the manager creates the
/// object; later clients open the same one. Clients may be children of one program, or separately
/// started programs that know only the address of the manager.
///
/// No operation on an object goes through the manager. The objects are in shared memory, so a
/// manager's queue is as fast as any other, and stays usable after the manager has died.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{Manager, Process};
///
/// let manager = Manager::start()?;
/// let jobs = manager.queue::<String>("jobs", 10)?;
/// // "@…", which another program could have as an argument.
/// let address = manager.address().to_string();
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
/// A name has 1 to 255 printable bytes. It keeps its object, with its contents, until the name is
/// [removed](Self::remove), even while no process has the object open. Requesting a name with
/// another kind, item type or number than it was created with returns an error that names both.
///
/// Item types are compared by their name and by their schema: the fields and variants and their
/// kinds. So a program that was built from an older version of the same source is refused. Types
/// whose `Deserialize` asks for any type have no schema and are compared by name alone. Programs
/// built from different sources can share the types of a library, or those of std: `(String, u32)`.
///
/// `None` in place of a name creates an object without a name, in this process and without the
/// manager. It can be passed on like any handle, and exists until its last handle is dropped.
///
/// The manager has all of its objects open. Therefore consumers of its queues never see that all
/// producers are gone. Use [`shutdown`](multiproc_queue::Queue::shutdown) to end a queue.
///
/// # When a process dies
///
/// If the manager dies, opened objects stay usable for every process that has them open. Opening
/// another one returns [`ManagerGone`](ManagerError::ManagerGone). A new manager can start at the
/// same address. A handle that has returned `ManagerGone` connects to it when it is used again. The
/// new manager has none of the old objects, so open all of them again.
///
/// If a client dies, the effect on other clients is the one documented for each object. A client
/// that is stopped, or sends invalid data or nothing at all, blocks no other client.
///
/// # The handle
///
/// It can be cloned, and sent to other processes. A handle that was received connects to the same
/// address when it is first used. When the last handle in the process that *started* the manager is
/// dropped, the manager ends. Dropping a handle that was only connected does not end it.
///
/// Each operation that involves the manager takes one round trip, and at most 10 seconds. If the
/// manager is stopped, it then returns [`NoAnswer`](ManagerError::NoAnswer).
#[doc(alias = "SyncManager")]
#[doc(alias = "BaseManager")]
#[doc(alias = "server")]
#[derive(Clone)]
pub struct Manager {
    this: Arc<Handle>,
}

struct Handle {
    address: Address,
    allowed: AllowedUsers,
    /// `None` if not connected.
    link: Mutex<Option<Link>>,
    /// The process of the manager, if it is a child of this process.
    process: Option<Process>,
}

impl Manager {
    /// Starts a manager, as a daemon child of this process. Its process is named `Manager-1` and so
    /// on, and is listed by [`active_children`](multiproc_process::active_children).
    ///
    /// The manager listens when this returns. It ends when the last handle in this process is
    /// dropped, or within one second after this process died.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// let printer = manager.lock("printer")?;
    /// let guard = printer.lock().expect("no holder has died");
    /// drop(guard);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Spawn`](ManagerError::Spawn) if the process cannot be started.
    /// - [`Died`](ManagerError::Died) if it ends before it can serve.
    pub fn start() -> Result<Self, ManagerError> {
        Self::builder().start()
    }

    /// Connects to a running manager at its [`address`](Self::address).
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// // `multiproc manager serve @office` runs in another terminal.
    /// let manager = Manager::connect("@office")?;
    /// let printing = manager.lock("printer")?;
    /// let guard = printing.lock().expect("no process died while printing");
    /// # drop(guard);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ManagerGone`](ManagerError::ManagerGone) if no manager listens there.
    /// - [`NotAllowed`](ManagerError::NotAllowed) if it belongs to another user.
    /// - [`NotAManager`](ManagerError::NotAManager) if another kind of server listens there.
    /// - [`Version`](ManagerError::Version) if it uses another version of the protocol.
    /// - [`TooManyClients`](ManagerError::TooManyClients) if its limit is reached.
    /// - [`NoAnswer`](ManagerError::NoAnswer) if it does not answer within 10 seconds.
    pub fn connect(address: impl Into<Address>) -> Result<Self, ManagerError> {
        Self::builder().address(address).connect()
    }

    /// Returns what there is at an address, for a program that could not
    /// [connect](Self::connect): whether its path exists, whether a process listens there, and to
    /// which user it belongs. `Display` of it states what to do.
    ///
    /// ```
    /// use multiproc::{Diagnosis, Manager};
    ///
    /// let path = std::env::temp_dir().join("no-manager-here");
    /// if let Err(error) = Manager::connect(&path) {
    ///     let diagnosis = Manager::diagnose(&path);
    ///     assert_eq!(diagnosis, Diagnosis::NoSuchPath);
    ///     eprintln!("{}: {error}: {diagnosis}", path.display());
    /// }
    /// ```
    #[must_use]
    pub fn diagnose(address: impl Into<Address>) -> Diagnosis {
        Diagnosis::of(&address.into())
    }

    /// Returns a builder, which sets the address, the allowed users and the limits.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::builder().max_objects(10).start()?;
    /// assert!(manager.process().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ManagerBuilder {
        ManagerBuilder::new()
    }

    pub(crate) fn over(
        address: Address,
        allowed: AllowedUsers,
        link: Option<Link>,
        process: Option<Process>,
    ) -> Self {
        Self { this: Arc::new(Handle { address, allowed, link: Mutex::new(link), process }) }
    }

    /// Returns the address of the manager.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// let other = Manager::connect(manager.address())?;
    /// assert_eq!(other.address(), manager.address());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.this.address
    }

    /// Returns the process of the manager, if this process has started it.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// assert!(manager.process().is_some_and(|process| process.is_alive()));
    /// assert!(Manager::connect(manager.address())?.process().is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn process(&self) -> Option<&Child> {
        self.this.process.as_deref()
    }

    /// Returns a description of each object, in the order in which they were created.
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
    /// Returns [`ManagerGone`](ManagerError::ManagerGone) if the manager has ended.
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
                // The loop ends whatever the manager answers.
                Some(next) if next > after => after = next,
                _ => return Ok(all),
            }
        }
    }

    /// Removes a name. Processes that have the object open keep it. The next request for the name
    /// creates a new object.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// let old = manager.queue::<u32>("jobs", 10)?;
    /// old.put(1)?;
    /// manager.remove("jobs")?;
    /// let new = manager.queue::<u32>("jobs", 10)?;
    /// assert_eq!((old.len(), new.len()), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`NoSuchName`](ManagerError::NoSuchName) if there is no object of this name.
    /// - [`ManagerGone`](ManagerError::ManagerGone) if the manager has ended.
    pub fn remove(&self, name: &str) -> Result<(), ManagerError> {
        let invalid = |reason| ManagerError::InvalidName { name: name.to_owned(), reason };
        protocol::reason_against(name).map_or(Ok(()), |reason| Err(invalid(reason)))?;
        match self.ask::<()>(Request::Remove { name: name.to_owned() })? {
            Reply::Done => Ok(()),
            Reply::Refused(Refusal::NoSuchName) => Err(ManagerError::NoSuchName(name.to_owned())),
            _ => Err(ManagerError::NotAManager),
        }
    }

    /// Ends the manager, for all clients. Opened objects stay usable. When this returns, another
    /// manager can listen at the address.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// let event = manager.event("ready")?;
    /// manager.shutdown()?;
    /// assert!(manager.list().unwrap_err().is_manager_gone());
    /// event.set(); // objects stay usable
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ManagerGone`](ManagerError::ManagerGone) if the manager had ended before.
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

    pub(crate) fn ask<O: DeserializeOwned>(
        &self,
        request: Request,
    ) -> Result<Reply<O>, ManagerError> {
        self.ask_within(request, PATIENCE)
    }

    /// One request at a time: other threads of this process wait for it, at most until it times
    /// out.
    fn ask_within<O: DeserializeOwned>(
        &self,
        request: Request,
        patience: Duration,
    ) -> Result<Reply<O>, ManagerError> {
        let Handle { address, allowed, .. } = &*self.this;
        let mut place = self.link();
        let link = match place.take() {
            Some(link) => link,
            None => Link::connect(address, allowed, patience)?,
        };
        let (link, reply) = link.ask(request, patience);
        *place = link;
        reply
    }

    fn link(&self) -> std::sync::MutexGuard<'_, Option<Link>> {
        self.this.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the process of a manager that was told to end, and kills it after a grace period.
fn end(process: &Process) {
    if process.wait_timeout(END).is_none() {
        // It may be stopped.
        let _ = process.kill();
        process.wait();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(process) = self.process.as_ref().filter(|it| it.is_ours()) else { return };
        // A manager ends in order by SIGTERM.
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

/// The serialised form of a handle. A relative path would mean another file in another process.
#[derive(Serialize, Deserialize)]
struct Wire {
    address: Address,
    allowed: AllowedUsers,
}

impl Serialize for Manager {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let path = self.address().as_path().and_then(|path| std::path::absolute(path).ok());
        let address = path.map_or_else(|| self.address().clone(), Address::path);
        Wire { address, allowed: self.this.allowed.clone() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Manager {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { address, allowed } = Wire::deserialize(deserializer)?;
        Ok(Self::over(address, allowed, None, None))
    }
}
