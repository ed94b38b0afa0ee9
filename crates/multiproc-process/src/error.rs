//! What can go wrong with a process.

use std::{fmt, io};

use multiproc_pipe::EncodeError;
use thiserror::Error;

use crate::executable;
use crate::process::Process;
use crate::status::{SignalName, core_dump};

/// A process was not started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// [`init`](crate::init) was not called: a child of this program would not know what to do, and
    /// start the program anew.
    #[error(
        "a process cannot be started yet: call `multiproc::init()` first, as the first statement of \
         `main`: `let _runtime = multiproc::init();` (in a test program: put \
         `multiproc::enable_in_tests!();` at its top level)"
    )]
    NotInitialized,
    /// The function, or this library itself, is not in the executable of this process, but in a library
    /// that it has loaded: the child would be that executable started anew, where the library need not
    /// be. Or the program was started through the loader (`ld.so PROGRAM`), which is the executable
    /// then. The message says which of them it is.
    #[error(
        "a process cannot be started from here: a child is the executable of this process \
         (/proc/self/exe), started anew, {}",
        executable::what_is_outside()
    )]
    NotInExecutable,
    /// The program has more rights than the user who started it: it is a set-user-ID or set-group-ID
    /// program, has file capabilities, or a security module changed its domain (`AT_SECURE`, see
    /// getauxval(3)). A child would get these rights as well, and so must not let its environment and
    /// its standard input decide what it runs.
    #[error(
        "a process cannot be started from a program that has more rights than the user who started \
         it (set-user-ID, set-group-ID or file capabilities); let a program without these rights \
         start processes, or grant the rights by other means (sudo, a service manager, ambient \
         capabilities)"
    )]
    Privileged,
    /// The arguments could not be turned into a message; or the type of the arguments or of the result
    /// is one that can be sent and not received.
    #[error("a process was not started: {0}")]
    Encode(#[source] EncodeError),
    /// The operating system refused.
    #[error("a process could not be started: {0}")]
    Io(#[from] io::Error),
}

impl From<SpawnError> for io::Error {
    fn from(error: SpawnError) -> Self {
        match error {
            SpawnError::Io(error) => error,
            other => Self::other(other),
        }
    }
}

/// A process gave no result.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Its function panicked, or the `Deserialize` of its arguments, or the `Serialize` of its result.
    #[error("the process gave no result: it panicked at {location}: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
        /// Where: file, line and column.
        location: String,
        /// The way there, if `RUST_BACKTRACE` (or `RUST_LIB_BACKTRACE`) switches it on, as
        /// [`Backtrace::capture`](std::backtrace::Backtrace::capture) has it.
        backtrace: Option<String>,
    },
    /// It ended by itself with this exit code: before its function returned; or after that, if the code
    /// is not 0.
    #[error("the process gave no result: it exited with code {}{}", .0, before_return(*.0))]
    Exited(i32),
    /// It was killed by this signal, before or after its function returned, and left a core dump or not.
    /// 9 is SIGKILL, see signal(7).
    #[error("the process gave no result: it was killed by {}{}", SignalName(*.0), core_dump(*.1))]
    Signaled(i32, bool),
    /// Its function was not called: the arguments could not be decoded in the child.
    #[error("the process gave no result: its arguments did not arrive: {0}")]
    ArgumentsLost(String),
    /// Its function returned, but the result could not be sent, or not be decoded here.
    #[error("the process gave no result: the result was lost: {0}")]
    ResultLost(String),
    /// It ended without a result, and somebody else in this process collected its status.
    #[error(
        "the process gave no result: it ended, and its status was collected by somebody else in this \
         process (a wait for any child, or SIGCHLD set to be ignored)"
    )]
    Unknown,
}

fn before_return(code: i32) -> &'static str {
    if code == 0 { " before its function returned" } else { "" }
}

/// [`Process::join_timeout`] gave no result.
#[derive(Error)]
#[non_exhaustive]
pub enum JoinTimeoutError<R> {
    /// The process is still alive. Here it is.
    #[error("{} (pid {}) has not ended in time", .0.name(), .0.pid())]
    Timeout(Process<R>),
    /// It has ended, and gave no result.
    #[error(transparent)]
    Failed(JoinError),
}

impl<R> JoinTimeoutError<R> {
    /// Whether the process is still alive.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }

    /// The process, if it is still alive.
    #[must_use]
    pub fn into_process(self) -> Option<Process<R>> {
        match self {
            Self::Timeout(process) => Some(process),
            Self::Failed(_) => None,
        }
    }
}

impl<R> fmt::Debug for JoinTimeoutError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(process) => f.debug_tuple("Timeout").field(process).finish(),
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}
