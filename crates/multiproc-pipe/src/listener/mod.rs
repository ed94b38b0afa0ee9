//! Connections between separate programs by an address: `Listener` and `connect`.

mod bind;
mod connect;
mod credentials;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use multiproc_message::{Bytes, Descriptor};
use multiproc_shm::{CheckedFd, Deadline, above_stdio};
use rustix::event::PollFlags;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, getsockname,
};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::bind::{BACKLOG, OwnedFile};
use crate::address::Address;
use crate::connection::Connection;
use crate::message;
use crate::stream::{Stream, wait_for};
use crate::wait::Source;

pub use self::bind::ListenerBuilder;
pub use self::connect::{connect, connect_timeout, connect_without_hello};
pub use self::credentials::{AllowedUsers, Credentials};

/// Accepts connections of processes that [`connect`] to its address.
///
/// Only processes of the same user are accepted, whatever the permissions of a path. The
/// [builder](Self::builder) can allow more. The kernel reports the user.
///
/// The file of a path is created by the listener and removed when it is dropped. If its process is
/// killed, the file stays, and the next listener replaces it. A file that is not a socket, or whose
/// listener lives, is never touched.
///
/// Both sides first send a hello with their types and version: see
/// [`HandshakeError`](crate::HandshakeError). Messages are in the format of postcard.
///
/// A listener can be sent to another process, as an argument or in a message, together with its
/// file. Several threads may accept at the same time.
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
#[doc(alias = "AF_UNIX")]
#[doc(alias = "UnixListener")]
pub struct Listener {
    // Dropped in this order: see `OwnedFile`.
    file: Option<OwnedFile>,
    socket: CheckedFd,
    address: Address,
    allowed: AllowedUsers,
}

impl Listener {
    /// Binds a listener to an [`Address`].
    ///
    /// The file of a path is accessible to its owner only, unless other users are allowed.
    ///
    /// # Errors
    ///
    /// - `AddrInUse` if another listener has the address.
    /// - `AlreadyExists` if there is a file that is not a socket.
    /// - `InvalidInput` if the address is empty or too long.
    /// - Any error of the operating system.
    ///
    /// ```
    /// use multiproc_pipe::Listener;
    /// use std::io::ErrorKind;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // A path is a file; a name after `@` is not.
    /// let path = std::env::temp_dir().join(format!("multiproc-bind-{}", std::process::id()));
    /// let listener = Listener::bind(&path)?;
    /// assert_eq!(listener.local_address().as_path(), Some(&*path));
    /// assert_eq!(Listener::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
    /// drop(listener);
    /// assert!(!path.exists());
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind(address: impl Into<Address>) -> io::Result<Self> {
        Self::builder().bind(address)
    }

    /// Returns a builder, to allow other users to connect.
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
        ListenerBuilder { allowed: AllowedUsers::only_this_one(), is_private: true }
    }

    /// Creates a listener from a Unix stream socket that already listens, for example from systemd.
    /// It accepts processes of the same user and leaves the socket's file alone.
    ///
    /// The socket becomes non-blocking, also for other processes that share it.
    ///
    /// # Errors
    ///
    /// If it is not such a socket.
    ///
    /// ```
    /// use multiproc_pipe::Listener;
    /// use std::os::fd::OwnedFd;
    /// use std::os::unix::net::UnixListener;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let path = std::env::temp_dir().join(format!("multiproc-from-fd-{}", std::process::id()));
    /// let socket = UnixListener::bind(&path)?;
    /// let listener = Listener::from_fd(OwnedFd::from(socket))?;
    /// assert_eq!(listener.local_address().as_path(), Some(&*path));
    /// # std::fs::remove_file(&path)
    /// # }
    /// ```
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
        Ok(Self { file: None, socket, address, allowed: AllowedUsers::only_this_one() })
    }

    /// Returns the address of the listener.
    ///
    /// ```
    /// use multiproc_pipe::Listener;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let address = format!("@multiproc-local-{}", std::process::id());
    /// let listener = Listener::bind(&address)?;
    /// assert_eq!(listener.local_address().to_string(), address);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn local_address(&self) -> &Address {
        &self.address
    }

    /// Accepts the next connection, waiting for it indefinitely. It sends `S` and receives `R`, and
    /// the other side vice versa.
    ///
    /// A client that is not allowed is disconnected, and the call continues to wait. A client that
    /// has died since is accepted, and the connection is then `Disconnected`.
    ///
    /// # Errors
    ///
    /// - `InvalidData` with a [`HandshakeError`](crate::HandshakeError) if the client has other
    ///   types or another version. Other clients are not affected.
    /// - If the process or the system has no descriptors or memory left. Clients keep waiting, and
    ///   the listener can be used again.
    ///
    /// ```
    /// use multiproc_pipe::{Listener, connect};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let address = format!("@multiproc-accept-{}", std::process::id());
    /// let listener = Listener::bind(&address)?;
    /// let client = connect::<u32, String>(&address)?; // sends numbers, receives text
    /// client.send(7)?;
    /// let server = listener.accept::<String, u32>()?; // the reverse
    /// let number = server.recv()?;
    /// server.send(format!("got {number}"))?;
    /// assert_eq!(client.recv()?, "got 7");
    /// # Ok(())
    /// # }
    /// ```
    pub fn accept<S, R>(&self) -> io::Result<Connection<S, R>>
    where
        S: Deserialize<'static>,
        R: Deserialize<'static>,
    {
        self.accept_until(Deadline::NEVER)
    }

    /// Accepts a connection if a client is waiting, without waiting itself.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if no client is waiting. Otherwise as [`accept`](Self::accept).
    ///
    /// ```
    /// use multiproc_pipe::{Listener, connect};
    /// use std::io::ErrorKind;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = Listener::bind(format!("@multiproc-try-{}", std::process::id()))?;
    /// let error = listener.try_accept::<(), ()>().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::WouldBlock);
    /// let _client = connect::<(), ()>(listener.local_address())?;
    /// listener.try_accept::<(), ()>()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_accept<S, R>(&self) -> io::Result<Connection<S, R>>
    where
        S: Deserialize<'static>,
        R: Deserialize<'static>,
    {
        self.accept_until(Deadline::after(Duration::ZERO)).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => io::ErrorKind::WouldBlock.into(),
            _ => error,
        })
    }

    /// Accepts the next connection, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `TimedOut` if no client connected before the timeout. Otherwise as [`accept`](Self::accept).
    ///
    /// ```
    /// use multiproc_pipe::Listener;
    /// use std::{io::ErrorKind, time::Duration};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let listener = Listener::bind(format!("@multiproc-timeout-{}", std::process::id()))?;
    /// let error = listener.accept_timeout::<(), ()>(Duration::from_millis(1)).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::TimedOut);
    /// # Ok(())
    /// # }
    /// ```
    pub fn accept_timeout<S, R>(&self, timeout: Duration) -> io::Result<Connection<S, R>>
    where
        S: Deserialize<'static>,
        R: Deserialize<'static>,
    {
        self.accept_until(Deadline::after(timeout))
    }

    fn accept_until<S, R>(&self, deadline: Deadline) -> io::Result<Connection<S, R>>
    where
        S: Deserialize<'static>,
        R: Deserialize<'static>,
    {
        let connection = Connection::greeting(self.accept_stream(deadline)?)?;
        // A client that sends none does not hold up this call: the first receiving call checks it.
        connection.greet_until(Deadline::after(Duration::ZERO))?;
        Ok(connection)
    }

    /// Accepts a connection without a hello and with messages in the native format.
    ///
    /// # Errors
    ///
    /// `TimedOut` if no client connected before the timeout. Otherwise as [`accept`](Self::accept).
    #[doc(hidden)] // for the manager, which has a hello of its own
    pub fn accept_without_hello<S, R>(
        &self,
        timeout: Option<Duration>,
    ) -> io::Result<Connection<S, R>> {
        let deadline = timeout.map_or(Deadline::NEVER, Deadline::after);
        self.accept_stream(deadline).map(Connection::over)
    }

    fn accept_stream(&self, deadline: Deadline) -> io::Result<Stream> {
        let mut refused = 0;
        loop {
            match accept_with(self.socket.get()?, SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    let socket = above_stdio(socket)?;
                    if self.allowed.includes(Credentials::of(&socket)?.uid) {
                        return Ok(Stream::socket(socket));
                    }
                    // All waiting clients are checked, but new ones could arrive indefinitely.
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

    /// Returns an iterator that accepts connections, and does not end by itself.
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

/// An iterator that accepts connections. Created by [`Listener::incoming`].
#[derive(Debug)]
#[must_use = "it accepts when it is asked for an item"]
pub struct Incoming<'a, S, R> {
    listener: &'a Listener,
    types: PhantomData<fn(S) -> R>,
}

impl<S, R> Iterator for Incoming<'_, S, R>
where
    S: Deserialize<'static>,
    R: Deserialize<'static>,
{
    type Item = io::Result<Connection<S, R>>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept())
    }
}

/// The file of its path stays, and removing it is then up to the caller.
impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        if let Some(file) = &listener.file {
            file.moved.store(true, Ordering::Relaxed);
        }
        listener.socket.into_inner()
    }
}

/// Readable when a client waits to be accepted, which may be one that is not allowed.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.unchecked()
    }
}

/// Ready when a client waits to be accepted. It may be one that is not allowed, so use
/// [`try_accept`](Listener::try_accept) after [`wait`](crate::wait).
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

/// A listener in a message.
#[derive(Serialize, Deserialize)]
struct WireEnd {
    socket: Descriptor,
    allowed: AllowedUsers,
    /// Its absolute path, and the device and inode of the file.
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
        WireEnd { socket: Descriptor(socket), allowed: self.allowed.clone(), file }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Listener {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let WireEnd { socket, allowed, file } = WireEnd::deserialize(deserializer)?;
        let refuse = |why: &dyn fmt::Display| D::Error::custom(why);
        let mut listener = Self::from_fd(socket.into()).map_err(|error| refuse(&error))?;
        listener.allowed = allowed;
        if let Some((Bytes(path), device, inode)) = file {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(&path));
            // The sender must not make us remove another file. The kernel reports the name.
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
