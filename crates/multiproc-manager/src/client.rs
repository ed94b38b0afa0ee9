//! The client's side of the connection to a manager.

use std::time::Duration;

use multiproc_pipe::{
    Address, AllowedUsers, Connection, RecvTimeoutError, SendTimeoutError, connect_without_hello,
};
use serde::de::DeserializeOwned;

use crate::error::ManagerError;
use crate::protocol::{self, Request, VERSION, Verdict};

/// How long a client waits for an answer. A manager needs microseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a manager that has accepted this client.
pub(crate) struct Link(Connection<Request, ()>);

impl Link {
    pub(crate) fn connect(
        address: &Address,
        allowed: &AllowedUsers,
        patience: Duration,
    ) -> Result<Self, ManagerError> {
        let user = rustix::process::geteuid().as_raw();
        let connection = connect_without_hello::<Request, ()>(address, patience)
            .map_err(|error| ManagerError::at(address, error))?;
        // The user reported by the kernel: any process can listen at an address.
        let manager = connection.peer().map_err(ManagerError::Io)?.uid;
        // A manager of root is always trusted: root can do anything to this process anyway.
        if manager != user && manager != 0 && !allowed.includes(manager) {
            return Err(ManagerError::NotAllowed { manager, user });
        }
        // If it fails, the answer states the reason. It may have been sent before the greeting.
        let _ = connection.send_bytes_timeout(&protocol::greeting(VERSION), patience);
        let answer = connection.recv_bytes_timeout(patience).map_err(|error| match error {
            // A listener closes a connection that is not allowed without an answer.
            RecvTimeoutError::Disconnected if manager != user && user != 0 => {
                ManagerError::NotAllowed { manager, user }
            }
            error => received(error),
        })?;
        match protocol::verdict_of(&answer) {
            None => Err(ManagerError::NotAManager),
            Some((VERSION, Some(Verdict::Welcome))) => {
                Ok(Self(connection.in_format(protocol::FORMAT)))
            }
            Some((VERSION, Some(Verdict::TooMany(limit)))) => {
                Err(ManagerError::TooManyClients(limit))
            }
            Some((VERSION, _)) => Err(ManagerError::NotAManager),
            Some((theirs, _)) => Err(ManagerError::Version { ours: VERSION, theirs }),
        }
    }

    /// Sends a request and waits for the answer. Returns the link if it can be used again.
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
            // A complete message that cannot be decoded, or holds a handle that cannot be opened
            // here.
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
        // It died while it was sending, or it is not a manager.
        _ => ManagerError::NotAManager,
    }
}
