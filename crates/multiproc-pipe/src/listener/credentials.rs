//! Who is at the other end, and who may be.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};

use crate::connection::Connection;

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
    pub(super) fn of(socket: &impl AsFd) -> io::Result<Self> {
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
pub(super) enum Guests {
    Users(Vec<u32>),
    Everyone,
}

impl Guests {
    pub(super) fn only_us() -> Self {
        Self::Users(vec![rustix::process::geteuid().as_raw()])
    }

    pub(super) fn includes(&self, uid: u32) -> bool {
        match self {
            Self::Users(users) => users.contains(&uid),
            Self::Everyone => true,
        }
    }
}
