//! The identity of the other side, and the users that are allowed.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};

use crate::connection::Connection;

/// The process at the other end of a connection, as reported by the kernel: see
/// [`Connection::peer`].
#[doc(alias = "SO_PEERCRED")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The process id, which may have been reused by now. 0 if the process is in another pid
    /// namespace and not visible.
    pub pid: u32,
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
}

impl Credentials {
    pub(super) fn of(socket: &impl AsFd) -> io::Result<Self> {
        let peer = getsockopt(&socket.as_fd(), PeerCredentials)?;
        let pid = u32::try_from(peer.pid()).unwrap_or(0);
        Ok(Self { pid, uid: peer.uid(), gid: peer.gid() })
    }
}

impl<S, R> Connection<S, R> {
    /// Returns the process that was at the other end when the connection was created: the one that
    /// called [`connect`](crate::connect), bound the [`Listener`](crate::Listener) or called
    /// [`duplex`](crate::duplex).
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
    /// If the connection was created from a descriptor that is not a socket.
    pub fn peer(&self) -> io::Result<Credentials> {
        self.stream.check()?;
        Credentials::of(&self.stream)
    }
}

/// The users whose processes may be at the other end of a connection.
///
/// Of a [`Listener`](crate::Listener), the processes that may connect: see
/// [`ListenerBuilder::allow`](crate::ListenerBuilder::allow).
///
/// ```
/// use multiproc_pipe::AllowedUsers;
///
/// let mut allowed = AllowedUsers::only_this_one();
/// allowed.add(1000);
/// assert!(allowed.includes(1000));
/// assert!(AllowedUsers::Everyone.includes(1001));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllowedUsers {
    /// The users with these effective user ids.
    Users(Vec<u32>),
    /// Every user.
    Everyone,
}

impl AllowedUsers {
    /// Returns the effective user of this process, and no other.
    #[must_use]
    pub fn only_this_one() -> Self {
        Self::Users(vec![rustix::process::geteuid().as_raw()])
    }

    /// Adds a user.
    pub fn add(&mut self, uid: u32) {
        if let Self::Users(users) = self {
            users.push(uid);
        }
    }

    /// Returns whether a user is among them.
    #[must_use]
    pub fn includes(&self, uid: u32) -> bool {
        match self {
            Self::Users(users) => users.contains(&uid),
            Self::Everyone => true,
        }
    }
}
