//! Connections between programs that know an address: `Listener` and `connect`.

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
    allowed: AllowedUsers,
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
        ListenerBuilder { allowed: AllowedUsers::only_this_one(), is_private: true }
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
        Ok(Self { file: None, socket, address, allowed: AllowedUsers::only_this_one() })
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
    pub fn accept<S, R>(&self) -> io::Result<Connection<S, R>>
    where
        S: Deserialize<'static>,
        R: Deserialize<'static>,
    {
        self.accept_until(Deadline::NEVER)
    }

    /// Accepts a connection if somebody is waiting for that, without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is nobody; else as [`accept`](Self::accept).
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
    /// `TimedOut` if there was none in time; else as [`accept`](Self::accept).
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
        // A client that sends none does not hold up this call: the connection waits for it.
        connection.greet_until(Deadline::after(Duration::ZERO))?;
        Ok(connection)
    }

    /// Accepts a connection that begins without a hello, and has messages in the native format.
    ///
    /// # Errors
    ///
    /// `TimedOut` if there was none in time; else as [`accept`](Self::accept).
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
    allowed: AllowedUsers,
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
