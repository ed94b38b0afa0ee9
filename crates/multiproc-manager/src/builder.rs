//! What can be set about a manager, and how one starts.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use multiproc_pipe::{Address, Listener};
use multiproc_process::Process;

use crate::client::{Link, PATIENCE, Peers};
use crate::error::ManagerError;
use crate::manager::{END, Manager};
use crate::server::{self, Ends, Limits};

/// How long the process of a manager may take to start, on a machine that is busy.
const START: Duration = Duration::from_secs(60);

/// Sets up a [`Manager`]. Made by [`Manager::builder`].
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
    peers: Peers,
    limits: Limits,
}

impl ManagerBuilder {
    pub(crate) fn new() -> Self {
        Self {
            address: None,
            peers: Peers::Users(Vec::new()),
            limits: Limits { objects: 1024, clients: 4096 },
        }
    }

    /// Where it listens: a path, or an abstract name, which begins with `@`; see
    /// [`Address`]. Without it, an abstract name that no other manager has.
    pub fn address(mut self, address: impl Into<Address>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Lets processes of this user connect, too; or, of one that [connects](Self::connect), allows
    /// that the manager is this user's. Without it, both are of the same user (or the manager is root's).
    ///
    /// The kernel vouches for who it is. Whoever may connect may use, change and remove everything
    /// that the manager has, and shut it down.
    pub fn allow_user(mut self, uid: u32) -> Self {
        if let Peers::Users(users) = &mut self.peers {
            users.push(uid);
        }
        self
    }

    /// The same for everyone who can reach the address.
    pub fn allow_everyone(mut self) -> Self {
        self.peers = Peers::Everyone;
        self
    }

    /// How many objects it may have. Without it, 1024. (A queue takes three descriptors in the
    /// manager's process, anything else one.)
    pub fn max_objects(mut self, objects: usize) -> Self {
        self.limits.objects = objects;
        self
    }

    /// How many clients may be connected at a time. Without it, 4096. (Each takes a descriptor. The
    /// manager raises its own limit, `ulimit -n`, as far as it may.)
    pub fn max_clients(mut self, clients: u32) -> Self {
        self.limits.clients = clients;
        self
    }

    /// Starts a manager, as a daemon child of this process: see [`Manager::start`].
    ///
    /// # Errors
    ///
    /// As [`Manager::start`]; [`AddressInUse`](ManagerError::AddressInUse), if somebody listens at the
    /// address; [`Io`](ManagerError::Io), if there is a file that is no socket, or the address cannot
    /// be one.
    pub fn start(self) -> Result<Manager, ManagerError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let address = self.address.clone().unwrap_or_else(free_address);
        // It listens from here on, so that nobody who knows the address comes too early.
        let listener = self.listen(&address)?;
        let name = format!("Manager-{}", COUNT.fetch_add(1, Ordering::Relaxed) + 1);
        let process =
            Process::builder().name(name).daemon(true).spawn(be_manager, (listener, self.limits));
        let process = process.map_err(|error| {
            sweep(&address);
            ManagerError::Spawn(error)
        })?;
        // The listener is the child's alone now: if that one dies, this says so.
        match Link::connect(&address, &self.peers, START) {
            Ok(link) => Ok(Manager::over(address, self.peers, Some(link), Some(process))),
            Err(error) => {
                let died = process.wait_timeout(END);
                let _ = process.kill();
                process.wait();
                sweep(&address);
                Err(died.map_or(error, ManagerError::Died))
            }
        }
    }

    /// Connects to a manager: see [`Manager::connect`].
    ///
    /// # Errors
    ///
    /// As [`Manager::connect`]; and [`ManagerGone`](ManagerError::ManagerGone) if no
    /// [`address`](Self::address) was given.
    pub fn connect(self) -> Result<Manager, ManagerError> {
        let address = self.address.ok_or(ManagerError::ManagerGone)?;
        let link = Link::connect(&address, &self.peers, PATIENCE)?;
        Ok(Manager::over(address, self.peers, Some(link), None))
    }

    /// Is the manager: listens at the address, and serves in this thread until a client
    /// [shuts it down](Manager::shutdown), or this process gets SIGTERM or SIGINT. For programs that
    /// are managers, as `multiproc-manager`.
    ///
    /// From then on this process does not end by those signals.
    ///
    /// `ready` is called with the address when it listens.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn serve(self, ready: impl FnOnce(&Address)) -> Result<(), ManagerError> {
        let address = self.address.clone().unwrap_or_else(free_address);
        let listener = self.listen(&address)?;
        server::serve(listener, self.limits, &Ends::OnInterrupt, || ready(&address))
            .map_err(ManagerError::Io)
    }

    fn listen(&self, address: &Address) -> Result<Listener, ManagerError> {
        let builder = match &self.peers {
            Peers::Everyone => Listener::builder().allow_everyone(),
            Peers::Users(users) => {
                users.iter().fold(Listener::builder(), |builder, &user| builder.allow_user(user))
            }
        };
        builder.bind(address).map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => ManagerError::AddressInUse(address.clone()),
            _ => ManagerError::Io(error),
        })
    }
}

/// What the process of a manager does.
fn be_manager((listener, limits): (Listener, Limits)) {
    if let Err(error) = server::serve(listener, limits, &Ends::WithParent, || {}) {
        eprintln!("multiproc: a manager cannot serve: {error}");
        std::process::exit(1);
    }
}

/// An abstract name that nobody else has.
fn free_address() -> Address {
    // The keys of a hasher are random.
    let random = RandomState::new().build_hasher().finish();
    Address::abstract_name(format!("multiproc-manager-{}-{random:016x}", std::process::id()))
}

/// Removes the file that a manager has left which was killed, if there is one.
pub(crate) fn sweep(address: &Address) {
    if address.as_path().is_some_and(|path| path.symlink_metadata().is_ok()) {
        // A listener replaces what a dead one has left, and nothing else; and removes its own file.
        drop(Listener::bind(address));
    }
}
