//! What can go wrong with a process.

use std::error::Error;
use std::{fmt, io};

use multiproc_pipe::EncodeError;

use crate::executable;
use crate::process::Process;
use crate::status::SignalName;

/// A process was not started.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpawnError {
    /// [`init`](crate::init) was not called: a child of this program would not know what to do, and
    /// start the program anew.
    NotInitialized,
    /// The function, or this library itself, is not in the executable of this process, but in a library
    /// that it has loaded: the child would be that executable started anew, where the library need not
    /// be. Or the program was started through the loader (`ld.so PROGRAM`), which is the executable
    /// then. The message says which of them it is.
    NotInExecutable,
    /// The program has more rights than the user who started it: it is a set-user-ID or set-group-ID
    /// program, has file capabilities, or a security module changed its domain (`AT_SECURE`, see
    /// getauxval(3)). A child would get these rights as well, and so must not let its environment and
    /// its standard input decide what it runs.
    Privileged,
    /// The arguments could not be turned into a message; or the type of the arguments or of the result
    /// is one that can be sent and not received.
    Encode(EncodeError),
    /// The operating system refused.
    Io(io::Error),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInitialized => f.write_str(
                "a process cannot be started yet: call `multiproc::init()` first, as the first \
                 statement of `main`: `let _runtime = multiproc::init();` (in a test program: put \
                 `multiproc::enable_in_tests!();` at its top level)",
            ),
            Self::NotInExecutable => write!(
                f,
                "a process cannot be started from here: a child is the executable of this process \
                 (/proc/self/exe), started anew, {}",
                executable::what_is_outside()
            ),
            Self::Privileged => f.write_str(
                "a process cannot be started from a program that has more rights than the user who \
                 started it (set-user-ID, set-group-ID or file capabilities); let a program without \
                 these rights start processes, or grant the rights by other means (sudo, a service \
                 manager, ambient capabilities)",
            ),
            Self::Encode(error) => write!(f, "a process was not started: {error}"),
            Self::Io(error) => write!(f, "a process could not be started: {error}"),
        }
    }
}

impl Error for SpawnError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotInitialized | Self::NotInExecutable | Self::Privileged => None,
            Self::Encode(error) => Some(error),
            Self::Io(error) => Some(error),
        }
    }
}

impl From<io::Error> for SpawnError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinError {
    /// Its function panicked, or the `Deserialize` of its arguments, or the `Serialize` of its result.
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
    Exited(i32),
    /// It was killed by this signal, before or after its function returned, and left a core dump or not.
    /// 9 is SIGKILL, see signal(7).
    Signaled(i32, bool),
    /// Its function was not called: the arguments could not be decoded in the child.
    ArgumentsLost(String),
    /// Its function returned, but the result could not be sent, or not be decoded here.
    ResultLost(String),
    /// It ended without a result, and somebody else in this process collected its status.
    Unknown,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the process gave no result: ")?;
        match self {
            Self::Panicked { message, location, .. } => {
                write!(f, "it panicked at {location}: {message}")
            }
            Self::Exited(0) => f.write_str("it exited with code 0 before its function returned"),
            Self::Exited(code) => write!(f, "it exited with code {code}"),
            Self::Signaled(signal, core_dumped) => {
                let dump = if *core_dumped { ", core dumped" } else { "" };
                write!(f, "it was killed by {}{dump}", SignalName(*signal))
            }
            Self::ArgumentsLost(reason) => {
                write!(f, "its arguments did not arrive: {reason}")
            }
            Self::ResultLost(reason) => write!(f, "the result was lost: {reason}"),
            Self::Unknown => f.write_str(
                "it ended, and its status was collected by somebody else in this process (a wait \
                 for any child, or SIGCHLD set to be ignored)",
            ),
        }
    }
}

impl Error for JoinError {}

/// [`Process::join_timeout`] gave no result.
#[non_exhaustive]
pub enum JoinTimeoutError<R> {
    /// The process is still alive. Here it is.
    Timeout(Process<R>),
    /// It has ended, and gave no result.
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

impl<R> fmt::Display for JoinTimeoutError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(process) => {
                write!(f, "{} (pid {}) has not ended in time", process.name(), process.pid())
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<R> Error for JoinTimeoutError<R> {}
