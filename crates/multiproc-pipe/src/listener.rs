//! Connections between programs that know an address: `Listener` and `connect`.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use multiproc_shm::{CheckedFd, above_stdio};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::PollFlags;
use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::{Errno, ioctl_fionbio, retry_on_intr};
use rustix::net::sockopt::{
    Timeout, set_socket_timeout, socket_acceptconn, socket_domain, socket_type,
};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, getsockname, listen,
    socket_with,
};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::address::Address;
use crate::connection::Connection;
use crate::message;
use crate::stream::{Stream, wait_for};
use crate::wait::Source;
use multiproc_message::{Bytes, Descriptor};
use multiproc_shm::Deadline;

/// How many may wait to be accepted. The kernel cuts it down to its own limit (net.core.somaxconn).
const BACKLOG: u16 = 4096;

/// How long a listener waits for its turn to replace what a dead one has left. Anybody who may read
/// the directory could hold its lock for ever.
const TURN: Duration = Duration::from_secs(5);

/// Who is at the other end of a connection, as the kernel knows it: see [`Connection::peer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The process id. It may be another process's by now. 0: this process cannot see that one (it is
    /// in another pid namespace).
    pub pid: u32,
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
}

impl Credentials {
    fn of(socket: &impl AsFd) -> io::Result<Self> {
        let peer = getsockopt(&socket.as_fd(), PeerCredentials)?;
        let pid = u32::try_from(peer.pid()).unwrap_or(0);
        Ok(Self { pid, uid: peer.uid(), gid: peer.gid() })
    }
}

impl<S, R> Connection<S, R> {
    /// Who was at the other end when the connection was made: the process that called
    /// [`connect`], or that bound the [`Listener`]; with [`duplex`](crate::duplex) the one that called
    /// that.
    ///
    /// The end may have moved to another process since.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (left, _right) = multiproc_pipe::duplex::<u8, u8>()?;
    /// assert_eq!(left.peer()?.pid, std::process::id());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the connection was made of a descriptor that is no socket.
    pub fn peer(&self) -> io::Result<Credentials> {
        self.stream.check()?;
        Credentials::of(&self.stream)
    }
}

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Guests {
    Users(Vec<u32>),
    Everyone,
}

impl Guests {
    fn only_us() -> Self {
        Self::Users(vec![rustix::process::geteuid().as_raw()])
    }

    fn includes(&self, uid: u32) -> bool {
        match self {
            Self::Users(users) => users.contains(&uid),
            Self::Everyone => true,
        }
    }
}

/// Sets up a [`Listener`]. Made by [`Listener::builder`].
#[derive(Debug, Clone)]
#[must_use = "it listens when `bind` is called"]
pub struct ListenerBuilder {
    guests: Guests,
    is_private: bool,
}

impl ListenerBuilder {
    /// Lets processes of this user in, too.
    pub fn allow_user(mut self, uid: u32) -> Self {
        if let Guests::Users(users) = &mut self.guests {
            users.push(uid);
        }
        self.is_private = false;
        self
    }

    /// Lets everyone in who can reach the address.
    pub fn allow_everyone(mut self) -> Self {
        self.guests = Guests::Everyone;
        self.is_private = false;
        self
    }

    /// Listens at this address: see [`Listener::bind`].
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
        // The file gets its mode from the socket: it never has another, not for a moment.
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
                // From here on, it is removed again if something fails.
                let file = OwnedFile::at(path)?;
                if !self.is_private {
                    // The umask has taken some of it away.
                    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
                }
                Some(file)
            }
        };
        listen(&socket, BACKLOG.into())?;
        let socket = CheckedFd::adopt(socket);
        Ok(Listener { file, socket, address, guests: self.guests })
    }
}

/// Binds to a path, and first removes what a dead listener has left there.
///
/// The kernel lets one of two win that bind at once, if there is nothing there. To remove something, one
/// must be sure that it is still what was found to be dead: so that is done under a lock of the
/// directory. One that binds without the lock meanwhile makes our own bind fail, and nothing else.
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

/// Whether any socket is bound to this path. A datagram socket asks: a stream socket, also one that does
/// not listen yet, refuses it as being of another type, and never hears of it.
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
                let text = "somebody holds a lock (flock) on its directory, which replacing the socket \
                            of a dead listener needs";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(1)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn new_socket(kind: SocketType, flags: SocketFlags) -> io::Result<OwnedFd> {
    above_stdio(socket_with(AddressFamily::UNIX, kind, flags, None)?)
}

fn in_use(address: &Address) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, format!("somebody listens at {address} already"))
}

fn describe(what: &str, address: &Address, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {address}: {error}"))
}

/// The file of a listener, which is removed when this is dropped: by the process that has the
/// listener, and if it is still the same file.
///
/// It is dropped before the socket. So the kernel keeps the file's inode number for this one, and nobody
/// takes the socket for a dead one's.
struct OwnedFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// A bare fork makes a copy of this, which must not remove anything.
    pid: u32,
    /// The listener was sent to another process, and the file with it.
    moved: Arc<AtomicBool>,
}

impl OwnedFile {
    fn at(path: &Path) -> io::Result<Self> {
        // From here the file is found later, too, when the process is in another directory.
        let path = std::path::absolute(path)?;
        let found = fs::symlink_metadata(&path)?;
        Ok(Self::new(path, found.dev(), found.ino()))
    }

    fn new(path: PathBuf, device: u64, inode: u64) -> Self {
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
            // If it fails, the file stays, and the next listener replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Waits at an address for others who [`connect`].
///
/// Only processes of the same user get in, whatever the permissions of a path; the
/// [builder](Self::builder) can let in more. The kernel vouches for who they are.
///
/// The file of a path is made for this, and removed when the listener is dropped. If its process is
/// killed, the file stays, and the next listener there replaces it. A file that is no socket, or
/// whose listener lives, is never touched.
///
/// A listener can be sent to another process: as an argument, or in a message. The file goes with it.
/// Several threads may accept at the same time.
///
/// ```
/// use multiproc_pipe::{Connection, Listener, connect};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let address = format!("@multiproc-example-{}", std::process::id());
/// let listener = Listener::bind(&address)?;
/// let asks = std::thread::spawn(move || {
///     let server: Connection<u32, String> = connect(&address).unwrap();
///     server.send(7).unwrap();
///     server.recv().unwrap()
/// });
/// let client = listener.accept::<String, u32>()?;
/// client.send(format!("{} from {}", client.recv()?, client.peer()?.uid))?;
/// # assert!(asks.join().unwrap().starts_with("7 from "));
/// # Ok(())
/// # }
/// ```
pub struct Listener {
    // Dropped in this order: see `OwnedFile`.
    file: Option<OwnedFile>,
    socket: CheckedFd,
    address: Address,
    guests: Guests,
}

impl Listener {
    /// Listens at this address: see [`Address`] for what may be one.
    ///
    /// At a path, the file gets permissions for its owner alone, if others are not let in.
    ///
    /// # Errors
    ///
    /// `AddrInUse`, if somebody listens there; `AlreadyExists`, if there is a file that is no socket;
    /// `InvalidInput`, if the address is too long or empty; or as the operating system says.
    pub fn bind(address: impl Into<Address>) -> io::Result<Self> {
        Self::builder().bind(address)
    }

    /// Sets up a listener: who else may connect.
    ///
    /// ```
    /// use multiproc_pipe::Listener;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let address = format!("@multiproc-builder-{}", std::process::id());
    /// let _listener = Listener::builder().allow_user(1000).bind(&address)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ListenerBuilder {
        ListenerBuilder { guests: Guests::only_us(), is_private: true }
    }

    /// Makes a listener of a Unix stream socket that listens already: from systemd, say. It lets in
    /// processes of the same user, and leaves the socket's file alone.
    ///
    /// The socket is made non-blocking, for whoever else shares it, too.
    ///
    /// # Errors
    ///
    /// If it is no such socket.
    pub fn from_fd(socket: OwnedFd) -> io::Result<Self> {
        let is_fit = socket_domain(&socket) == Ok(AddressFamily::UNIX)
            && socket_type(&socket) == Ok(SocketType::STREAM)
            && socket_acceptconn(&socket) == Ok(true);
        if !is_fit {
            let text = "expected a Unix stream socket that listens, got another descriptor";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        ioctl_fionbio(&socket, true)?;
        let address = SocketAddrUnix::try_from(getsockname(&socket)?)?;
        let address = Address::of(&address).unwrap_or_else(|| Address::abstract_name(""));
        let socket = CheckedFd::adopt(socket);
        Ok(Self { file: None, socket, address, guests: Guests::only_us() })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> &Address {
        &self.address
    }

    /// Accepts the next connection, waiting for it as long as it takes. It sends `S` and receives
    /// `R`; the other side has them the other way round.
    ///
    /// One who may not connect is turned away without a word, and sees `Disconnected`; this goes on
    /// waiting. One who has connected and died counts: the connection then says `Disconnected`.
    ///
    /// # Errors
    ///
    /// If the process or the system has no descriptors or memory left. The listener can be used again:
    /// who wants to connect goes on waiting.
    pub fn accept<S, R>(&self) -> io::Result<Connection<S, R>> {
        self.accept_until(Deadline::NEVER)
    }

    /// Accepts a connection if somebody is waiting for that, without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is nobody; else as [`accept`](Self::accept).
    pub fn try_accept<S, R>(&self) -> io::Result<Connection<S, R>> {
        self.accept_until(Deadline::after(Duration::ZERO)).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => io::ErrorKind::WouldBlock.into(),
            _ => error,
        })
    }

    /// Accepts the next connection, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `TimedOut` if there was none in time; else as [`accept`](Self::accept).
    pub fn accept_timeout<S, R>(&self, timeout: Duration) -> io::Result<Connection<S, R>> {
        self.accept_until(Deadline::after(timeout))
    }

    fn accept_until<S, R>(&self, deadline: Deadline) -> io::Result<Connection<S, R>> {
        let mut refused = 0;
        loop {
            match accept_with(self.socket.get()?, SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    let socket = above_stdio(socket)?;
                    if self.guests.includes(Credentials::of(&socket)?.uid) {
                        return Ok(Connection::over(Stream::socket(socket)));
                    }
                    // Those who were there first are all looked at; more could come for ever.
                    refused += 1;
                    if refused > BACKLOG && deadline.is_past() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(Errno::AGAIN) => {
                    if !wait_for(self, PollFlags::IN, deadline)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The connections that come, one after the other. It does not end by itself.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = multiproc_pipe::Listener::bind("@counter")?;
    /// for client in listener.incoming::<u64, ()>() {
    ///     let client = client?;
    ///     std::thread::spawn(move || (0..10).try_for_each(|number| client.send(number)));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn incoming<S, R>(&self) -> Incoming<'_, S, R> {
        Incoming { listener: self, types: PhantomData }
    }
}

/// The connections that come. Made by [`Listener::incoming`].
#[derive(Debug)]
#[must_use = "it accepts when it is asked for an item"]
pub struct Incoming<'a, S, R> {
    listener: &'a Listener,
    types: PhantomData<fn(S) -> R>,
}

impl<S, R> Iterator for Incoming<'_, S, R> {
    type Item = io::Result<Connection<S, R>>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept())
    }
}

/// Connects to a [`Listener`]: the connection sends `S` and receives `R`.
///
/// If it has been accepted cannot be seen from here: one that is turned away says `Disconnected` when it
/// is used. It blocks while more are waiting to be accepted than the listener's backlog holds.
///
/// # Errors
///
/// `NotFound`, if there is no such path; `ConnectionRefused`, if nobody listens there (any more);
/// `PermissionDenied`, if the path's permissions say so; `InvalidInput`, if the address is too long or
/// empty.
pub fn connect<S, R>(address: impl Into<Address>) -> io::Result<Connection<S, R>> {
    connect_until(&address.into(), Deadline::NEVER)
}

/// Connects to a [`Listener`], and waits for at most `timeout` while too many others are waiting. It
/// does not wait for a listener to appear.
///
/// # Errors
///
/// `TimedOut` if there was no place in time; else as [`connect`].
pub fn connect_timeout<S, R>(
    address: impl Into<Address>,
    timeout: Duration,
) -> io::Result<Connection<S, R>> {
    connect_until(&address.into(), Deadline::after(timeout))
}

fn connect_until<S, R>(address: &Address, deadline: Deadline) -> io::Result<Connection<S, R>> {
    let to = address.to_socket_address()?;
    let socket = new_socket(SocketType::STREAM, SocketFlags::CLOEXEC)?;
    let connected = retry_on_intr(|| {
        // The kernel bounds connect by the time for sending. Zero would mean for ever.
        let left = deadline.remaining().map(|left| left.max(Duration::from_micros(1)));
        set_socket_timeout(&socket, Timeout::Send, left)?;
        rustix::net::connect(&socket, &to)
    });
    match connected {
        Ok(()) => {
            set_socket_timeout(&socket, Timeout::Send, None)?;
            Ok(Connection::over(Stream::socket(socket)))
        }
        Err(Errno::AGAIN) => {
            let text = format!("cannot connect to {address}: too many are waiting already");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
        Err(error) => Err(describe("connect to", address, error.into())),
    }
}

/// The file of its path stays: removing it is then the caller's affair.
impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        if let Some(file) = &listener.file {
            file.moved.store(true, Ordering::Relaxed);
        }
        listener.socket.into_inner()
    }
}

/// Readable when somebody wants to connect: one who is turned away later, perhaps.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.unchecked()
    }
}

/// Ready when somebody wants to connect. That may be one who is turned away: after
/// [`wait`](crate::wait), use [`try_accept`](Listener::try_accept).
impl Source for Listener {
    fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
        add(self.as_fd());
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("fd", &self.as_fd().as_raw_fd())
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A listener on its way.
#[derive(Serialize, Deserialize)]
struct WireEnd {
    socket: Descriptor,
    guests: Guests,
    /// Its absolute path, and which file that is: device and inode.
    file: Option<(Bytes, u64, u64)>,
}

impl Serialize for Listener {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let socket = self
            .socket
            .get()
            .and_then(|socket| socket.try_clone_to_owned())
            .map_err(|error| Z::Error::custom(format!("a listener cannot be sent: {error}")))?;
        let file = self.file.as_ref().map(|file| {
            message::tell_when_sent(&file.moved);
            let path = file.path.clone().into_os_string().into_vec();
            (Bytes(path), file.device, file.inode)
        });
        WireEnd { socket: Descriptor(socket), guests: self.guests.clone(), file }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Listener {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let WireEnd { socket, guests, file } = WireEnd::deserialize(deserializer)?;
        let refuse = |why: &dyn fmt::Display| D::Error::custom(why);
        let mut listener = Self::from_fd(socket.into()).map_err(|error| refuse(&error))?;
        listener.guests = guests;
        if let Some((Bytes(path), device, inode)) = file {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(&path));
            // The sender must not make us remove another file: the kernel knows the name.
            let bound = listener.address.as_path().map(|bound| {
                bound.components().filter(|part| *part != Component::CurDir).collect::<PathBuf>()
            });
            if !bound.is_some_and(|bound| path.is_absolute() && path.ends_with(bound)) {
                return Err(refuse(&"a listener came with a file that is not its own"));
            }
            listener.file = Some(OwnedFile::new(path, device, inode));
        }
        Ok(listener)
    }
}
