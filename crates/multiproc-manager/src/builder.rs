//! The settings of a manager, and how a manager starts.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use multiproc_pipe::{Address, AllowedUsers, Listener};
use multiproc_process::Process;

use crate::client::{Link, PATIENCE};
use crate::error::ManagerError;
use crate::manager::{END, Manager};
use crate::server::{self, Ends, Limits};

/// How long the process of a manager may take to start, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Configures a [`Manager`]. Created by [`Manager::builder`].
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::Manager;
///
/// let address = format!("@jobs-{}", std::process::id());
/// let manager = Manager::builder().address(&address).max_clients(100).start()?;
/// assert_eq!(manager.address().to_string(), address);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "it does nothing until `start`, `connect` or `serve` is called"]
pub struct ManagerBuilder {
    address: Option<Address>,
    allowed: AllowedUsers,
    limits: Limits,
}

impl ManagerBuilder {
    pub(crate) fn new() -> Self {
        Self {
            address: None,
            allowed: AllowedUsers::only_this_one(),
            limits: Limits { objects: 1024, clients: 4096 },
        }
    }

    /// Sets the address of the manager: a path, or an abstract name, which begins with `@`; see
    /// [`Address`]. The default is an abstract name that no other manager has.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let path = std::env::temp_dir().join(format!("shop-{}", std::process::id()));
    /// let manager = Manager::builder().address(&path).start()?;
    /// assert_eq!(manager.address().as_path(), Some(&*path));
    /// # Ok(())
    /// # }
    /// ```
    pub fn address(mut self, address: impl Into<Address>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Allows another user. A manager accepts connections from processes of this user; a client
    /// that [connects](Self::connect) accepts a manager of this user. By default, both must be of
    /// the same user, or the manager of root.
    ///
    /// The kernel reports the user of the other side. A process that may connect may use, change
    /// and remove all objects of the manager, and shut it down.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::builder().allow_user(1000).start()?;
    /// // A process of user 1000 would call `Manager::builder().allow_user(…).connect()`
    /// // with the user of this process.
    /// let _ = manager.address();
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "SO_PEERCRED")]
    #[doc(alias = "authkey")]
    pub fn allow_user(mut self, uid: u32) -> Self {
        self.allowed.add(uid);
        self
    }

    /// Allows all users who can reach the address. A path is reached by its permissions, and an
    /// abstract name by all users of the network namespace.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::builder().allow_everyone().start()?;
    /// assert!(manager.list()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn allow_everyone(mut self) -> Self {
        self.allowed = AllowedUsers::Everyone;
        self
    }

    /// Sets the maximum number of objects. The default is 1024. In the manager's process, a queue
    /// takes three descriptors, and any other object one.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{Manager, ManagerError};
    ///
    /// let manager = Manager::builder().max_objects(1).start()?;
    /// let _lock = manager.lock("one")?;
    /// let error = manager.lock("other").unwrap_err();
    /// assert!(matches!(error, ManagerError::TooManyObjects(1)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_objects(mut self, objects: usize) -> Self {
        self.limits.objects = objects;
        self
    }

    /// Sets the maximum number of connected clients. The default is 4096. Each takes one
    /// descriptor. The manager raises its own limit of descriptors (`ulimit -n`) as far as it may.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{Manager, ManagerError};
    ///
    /// let manager = Manager::builder().max_clients(1).start()?;
    /// let error = Manager::connect(manager.address()).unwrap_err();
    /// assert!(matches!(error, ManagerError::TooManyClients(1)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_clients(mut self, clients: u32) -> Self {
        self.limits.clients = clients;
        self
    }

    /// Starts a manager, as a daemon child of this process. See [`Manager::start`].
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let folder = std::env::temp_dir().join(format!("jobs-{}", std::process::id()));
    /// let manager = Manager::builder().address(&folder).max_objects(10).start()?;
    /// assert!(manager.list()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`Manager::start`], and
    ///
    /// - [`AddressInUse`](ManagerError::AddressInUse) if another process listens at the address,
    /// - [`Io`](ManagerError::Io) if the path is a file that is not a socket, or the address is not
    ///   valid.
    pub fn start(self) -> Result<Manager, ManagerError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let address = self.address.clone().unwrap_or_else(free_address);
        // It listens from here on, so that no client can connect too early.
        let listener = self.listen(&address)?;
        let name = format!("Manager-{}", COUNT.fetch_add(1, Ordering::Relaxed) + 1);
        let process =
            Process::builder().name(name).daemon(true).spawn(be_manager, (listener, self.limits));
        let process = process.map_err(|error| {
            sweep(&address);
            ManagerError::Spawn(error)
        })?;
        // Only the child holds the listener now. If the child dies, this returns an error.
        match Link::connect(&address, &self.allowed, START) {
            Ok(link) => Ok(Manager::over(address, self.allowed, Some(link), Some(process))),
            Err(error) => {
                let died = process.wait_timeout(END);
                let _ = process.kill();
                process.wait();
                sweep(&address);
                Err(died.map_or(error, ManagerError::Died))
            }
        }
    }

    /// Connects to a manager. See [`Manager::connect`].
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// let other = Manager::builder().address(manager.address()).connect()?;
    /// assert!(other.process().is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`Manager::connect`], and [`ManagerGone`](ManagerError::ManagerGone) if no
    /// [`address`](Self::address) was set.
    pub fn connect(self) -> Result<Manager, ManagerError> {
        let address = self.address.ok_or(ManagerError::ManagerGone)?;
        let link = Link::connect(&address, &self.allowed, PATIENCE)?;
        Ok(Manager::over(address, self.allowed, Some(link), None))
    }

    /// Listens at the address and serves in the calling thread, until a client [shuts it
    /// down](Manager::shutdown), or this process receives SIGTERM or SIGINT. For programs that are
    /// managers, such as `multiproc manager serve`.
    ///
    /// From then on, those signals do not end this process.
    ///
    /// `ready` is called with the address when the manager listens.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Manager;
    ///
    /// Manager::builder().address("@jobs").serve(|address| println!("listening at {address}"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same as for [`start`](Self::start).
    #[doc(alias = "serve_forever")]
    pub fn serve(self, ready: impl FnOnce(&Address)) -> Result<(), ManagerError> {
        let address = self.address.clone().unwrap_or_else(free_address);
        let listener = self.listen(&address)?;
        server::serve(listener, self.limits, &Ends::OnInterrupt, || ready(&address))
            .map_err(ManagerError::Io)
    }

    fn listen(&self, address: &Address) -> Result<Listener, ManagerError> {
        let builder = Listener::builder().allow(self.allowed.clone());
        builder.bind(address).map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => ManagerError::AddressInUse(address.clone()),
            _ => ManagerError::Io(error),
        })
    }
}

/// The function of a manager's process.
fn be_manager((listener, limits): (Listener, Limits)) {
    if let Err(error) = server::serve(listener, limits, &Ends::WithParent, || {}) {
        eprintln!("multiproc: a manager cannot serve: {error}");
        std::process::exit(1);
    }
}

/// Returns an abstract name that no other process uses.
fn free_address() -> Address {
    // The keys of a hasher are random.
    let random = RandomState::new().build_hasher().finish();
    Address::abstract_name(format!("multiproc-manager-{}-{random:016x}", std::process::id()))
}

/// Removes the file that a killed manager has left, if there is one.
pub(crate) fn sweep(address: &Address) {
    if address.as_path().is_some_and(|path| path.symlink_metadata().is_ok()) {
        // A listener replaces only the socket of a dead one, and removes its own file.
        drop(Listener::bind(address));
    }
}
