//! Binding a listener to an address, and the file of its path.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use multiproc_shm::{CheckedFd, Deadline, above_stdio};
use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

use super::Listener;
use super::credentials::AllowedUsers;
use crate::address::Address;

/// The number of clients that may wait to be accepted. The kernel limits it to net.core.somaxconn.
pub(super) const BACKLOG: u16 = 4096;

/// How long a listener waits for the lock under which it replaces the file of a dead one. A process
/// that may read the directory could hold the lock indefinitely.
const TURN: Duration = Duration::from_secs(5);

/// Configures a [`Listener`]. Created by [`Listener::builder`].
#[derive(Debug, Clone)]
#[must_use = "it listens when `bind` is called"]
pub struct ListenerBuilder {
    pub(super) allowed: AllowedUsers,
    pub(super) is_private: bool,
}

impl ListenerBuilder {
    /// Also allows processes of this user to connect.
    ///
    /// ```
    /// use multiproc_pipe::Listener;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let address = format!("@multiproc-user-{}", std::process::id());
    /// let _listener = Listener::builder().allow_user(1000).allow_user(1001).bind(&address)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn allow_user(mut self, uid: u32) -> Self {
        self.allowed.add(uid);
        self.is_private = false;
        self
    }

    /// Allows every process that can reach the address to connect.
    ///
    /// ```
    /// use multiproc_pipe::Listener;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let address = format!("@multiproc-everyone-{}", std::process::id());
    /// let _listener = Listener::builder().allow_everyone().bind(&address)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn allow_everyone(mut self) -> Self {
        self.allowed = AllowedUsers::Everyone;
        self.is_private = false;
        self
    }

    /// Allows these users to connect, in place of those so far.
    ///
    /// ```
    /// use multiproc_pipe::{AllowedUsers, Listener};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let users = AllowedUsers::Users(vec![0, 1000]);
    /// let address = format!("@multiproc-allow-{}", std::process::id());
    /// let _listener = Listener::builder().allow(users).bind(&address)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn allow(mut self, users: AllowedUsers) -> Self {
        self.is_private = users == AllowedUsers::only_this_one();
        self.allowed = users;
        self
    }

    /// Binds the listener to this address: see [`Listener::bind`].
    ///
    /// # Errors
    ///
    /// As [`Listener::bind`].
    pub fn bind(self, address: impl Into<Address>) -> io::Result<Listener> {
        self.bind_to(address.into())
    }

    fn bind_to(self, address: Address) -> io::Result<Listener> {
        let to = address.to_socket_address()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = new_socket(SocketType::STREAM, flags)?;
        let mode = if self.is_private { 0o600 } else { 0o666 };
        // The file gets its mode from the socket, so it never has another one.
        fchmod(&socket, Mode::from_raw_mode(mode))?;
        let file = match address.as_path() {
            None => {
                bind(&socket, &to).map_err(|error| match error {
                    Errno::ADDRINUSE => in_use(&address),
                    error => describe("listen at", &address, error.into()),
                })?;
                None
            }
            Some(path) => {
                bind_path(&socket, &to, path)?;
                // From here on, the file is removed if something fails.
                let file = OwnedFile::at(path)?;
                if !self.is_private {
                    // The umask has removed some permissions.
                    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
                }
                Some(file)
            }
        };
        listen(&socket, BACKLOG.into())?;
        let socket = CheckedFd::adopt(socket);
        Ok(Listener { file, socket, address, allowed: self.allowed })
    }
}

/// Binds to a path, and first removes the file of a dead listener.
///
/// If two processes bind at the same time and there is no file, the kernel lets one of them
/// succeed. The file of a dead listener must not be replaced between check and removal, so both
/// happen under a lock of the directory. A process that binds without the lock meanwhile makes our
/// bind fail, and nothing else.
fn bind_path(socket: &OwnedFd, to: &SocketAddrUnix, path: &Path) -> io::Result<()> {
    let address = Address::path(path);
    let failed = |error: io::Error| describe("listen at", &address, error);
    let try_bind = || match bind(socket, to) {
        Ok(()) => Ok(true),
        Err(Errno::ADDRINUSE) => Ok(false),
        Err(error) => Err(failed(error.into())),
    };
    if try_bind()? {
        return Ok(());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Dropping it unlocks it.
    let directory = File::open(directory).map(OwnedFd::from).and_then(above_stdio);
    let _turn = lock(directory.map_err(failed)?).map_err(failed)?;
    loop {
        if try_bind()? {
            return Ok(());
        }
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {}
            Ok(_) => {
                let text = format!(
                    "expected {address} to be free or the socket of a dead listener, got a file that \
                     is no socket, and is left as it is"
                );
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        }
        if is_alive(to).map_err(failed)? {
            return Err(in_use(&address));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
}

/// Returns `true` if any socket is bound to this path. A datagram socket tries to connect: a stream
/// socket, also one that does not listen yet, refuses it because of the type, without noticing.
fn is_alive(to: &SocketAddrUnix) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = new_socket(SocketType::DGRAM, flags)?;
    match rustix::net::connect(&probe, to) {
        Ok(()) | Err(Errno::PROTOTYPE | Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn lock(directory: OwnedFd) -> io::Result<OwnedFd> {
    let deadline = Deadline::after(TURN);
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(Errno::WOULDBLOCK) if deadline.is_past() => {
                let text = "another process holds a lock (flock) on its directory, which replacing the socket \
                            of a dead listener needs";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(1)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn new_socket(kind: SocketType, flags: SocketFlags) -> io::Result<OwnedFd> {
    above_stdio(socket_with(AddressFamily::UNIX, kind, flags, None)?)
}

fn in_use(address: &Address) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, format!("another listener has the address {address}"))
}

pub(super) fn describe(what: &str, address: &Address, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {address}: {error}"))
}

/// The file of a listener. It is removed when this is dropped, by the process that has the
/// listener, and only if it is still the same file.
///
/// It is dropped before the socket, so the inode number cannot be reused meanwhile, and no other
/// process takes the socket for that of a dead listener.
pub(super) struct OwnedFile {
    pub(super) path: PathBuf,
    pub(super) device: u64,
    pub(super) inode: u64,
    /// A copy made by a bare fork must not remove anything.
    pid: u32,
    /// Whether the listener was sent to another process, and the file with it.
    pub(super) moved: Arc<AtomicBool>,
}

impl OwnedFile {
    fn at(path: &Path) -> io::Result<Self> {
        // An absolute path is found also after the process has changed its directory.
        let path = std::path::absolute(path)?;
        let found = fs::symlink_metadata(&path)?;
        Ok(Self::new(path, found.dev(), found.ino()))
    }

    pub(super) fn new(path: PathBuf, device: u64, inode: u64) -> Self {
        Self { path, device, inode, pid: std::process::id(), moved: Arc::default() }
    }
}

impl Drop for OwnedFile {
    fn drop(&mut self) {
        let is_ours = || {
            fs::symlink_metadata(&self.path).is_ok_and(|found| {
                found.file_type().is_socket()
                    && (found.dev(), found.ino()) == (self.device, self.inode)
            })
        };
        let is_here = !self.moved.load(Ordering::Relaxed) && self.pid == std::process::id();
        if is_here && is_ours() {
            // If this fails, the next listener replaces the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}
