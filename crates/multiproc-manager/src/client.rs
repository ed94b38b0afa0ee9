//! The client's side of the connection to a manager.

use std::time::Duration;

use multiproc_pipe::{
    Address, Connection, RecvTimeoutError, SendTimeoutError, connect_without_hello,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ManagerError;
use crate::protocol::{self, Request, VERSION, Verdict};

/// How long a client waits for an answer. A manager takes microseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Whose processes may be at the other end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Peers {
    /// This user's, and those of some others.
    Users(Vec<u32>),
    Everyone,
}

impl Peers {
    /// A manager of root's is no risk that root is not anyhow.
    fn include_manager(&self, manager: u32, user: u32) -> bool {
        manager == user
            || manager == 0
            || match self {
                Self::Users(users) => users.contains(&manager),
                Self::Everyone => true,
            }
    }
}

/// A connection to a manager that has said welcome.
pub(crate) struct Link(Connection<Request, ()>);

impl Link {
    pub(crate) fn connect(
        address: &Address,
        peers: &Peers,
        patience: Duration,
    ) -> Result<Self, ManagerError> {
        let user = rustix::process::geteuid().as_raw();
        let connection = connect_without_hello::<Request, ()>(address, patience)
            .map_err(|error| ManagerError::at(address, error))?;
        // Who listens there, as the kernel has it: an address could be anybody's.
        let manager = connection.peer().map_err(ManagerError::Io)?.uid;
        if !peers.include_manager(manager, user) {
            return Err(ManagerError::NotAllowed { manager, user });
        }
        // If it fails, the answer says why: it may have been given before the question.
        let _ = connection.send_bytes_timeout(&protocol::greeting(VERSION), patience);
        let answer = connection.recv_bytes_timeout(patience).map_err(|error| match error {
            // A listener turns others away without a word.
            RecvTimeoutError::Disconnected if manager != user && user != 0 => {
                ManagerError::NotAllowed { manager, user }
            }
            error => received(error),
        })?;
        match protocol::verdict_of(&answer) {
            None => Err(ManagerError::NotAManager),
            Some((VERSION, Some(Verdict::Welcome))) => Ok(Self(connection)),
            Some((VERSION, Some(Verdict::TooMany(limit)))) => {
                Err(ManagerError::TooManyClients(limit))
            }
            Some((VERSION, _)) => Err(ManagerError::NotAManager),
            Some((theirs, _)) => Err(ManagerError::Version { ours: VERSION, theirs }),
        }
    }

    /// Asks, and waits for the answer. The link comes back if it can be used again.
    pub(crate) fn ask<R: DeserializeOwned>(
        self,
        request: Request,
        patience: Duration,
    ) -> (Option<Self>, Result<R, ManagerError>) {
        let connection = self.0.retype::<Request, R>();
        if let Err(error) = connection.send_timeout(request, patience) {
            return (None, Err(sent(error)));
        }
        match connection.recv_timeout(patience) {
            Ok(reply) => (Some(Self(connection.retype())), Ok(reply)),
            // A whole message, which is not what was expected, or cannot be opened here.
            Err(RecvTimeoutError::Decode(error)) => {
                let error = ManagerError::Failed { name: None, reason: error.reason().to_owned() };
                (Some(Self(connection.retype())), Err(error))
            }
            Err(error) => (None, Err(received(error))),
        }
    }
}

fn sent(error: SendTimeoutError<Request>) -> ManagerError {
    match error {
        error if error.is_disconnected() => ManagerError::ManagerGone,
        SendTimeoutError::Io(_, error) => ManagerError::Io(error),
        _ => ManagerError::NoAnswer,
    }
}

fn received(error: RecvTimeoutError) -> ManagerError {
    match error {
        RecvTimeoutError::Disconnected => ManagerError::ManagerGone,
        RecvTimeoutError::Timeout => ManagerError::NoAnswer,
        RecvTimeoutError::Io(error) => ManagerError::Io(error),
        // Died in the middle of a message; or somebody else altogether.
        _ => ManagerError::NotAManager,
    }
}
