//! The errors of starting and joining a process.

use std::{fmt, io};

use multiproc_message::{EncodeError, debug_is_display};
use thiserror::Error;

use crate::executable;
use crate::process::Process;
use crate::remote_error::RemoteError;
use crate::status::{SignalName, core_dump};

/// The error of [`Process::spawn`]: the process was not started.
///
/// ```standalone_crate
/// use multiproc::{Process, SpawnError};
///
/// // Neither `init` nor `enable_in_tests!` was called.
/// let error = Process::spawn(|()| (), ()).unwrap_err();
/// assert!(matches!(error, SpawnError::NotInitialized));
/// ```
#[derive(Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// [`init`](crate::init) was not called. A child would not run its function but the whole
    /// program again.
    #[error(
        "cannot start a process: call `multiproc::init()` first, as the first statement of `main`: \
         `let _runtime = multiproc::init();` (in a test program, put \
         `multiproc::enable_in_tests!();` at its top level)"
    )]
    NotInitialized,
    /// The function, or this library, is not in the executable of this process but in a library
    /// that it has loaded. A child runs that executable, which need not load the library. Or the
    /// program was started through the loader (`ld.so PROGRAM`), which then is the executable. The
    /// message states which case it is.
    #[error(
        "cannot start a process from here: a child runs the executable of this process \
         (/proc/self/exe) again, {}",
        executable::what_is_outside()
    )]
    NotInExecutable,
    /// The program has more privileges than the user who started it: it is a set-user-ID or
    /// set-group-ID program, has file capabilities, or a security module changed its domain
    /// (`AT_SECURE`, see getauxval(3)). A child would have the same privileges, and so must not let
    /// its environment and its standard input decide which function it runs.
    #[error(
        "cannot start a process from a program with more privileges than the user who started it \
         (set-user-ID, set-group-ID or file capabilities); let a program without these privileges \
         start processes, or grant them by other means (sudo, a service manager, ambient \
         capabilities)"
    )]
    Privileged,
    /// The arguments cannot be encoded, or the type of the arguments or of the result can be
    /// encoded but not decoded.
    #[error("cannot start a process: {0}")]
    Encode(#[source] EncodeError),
    /// A system call failed.
    #[error("cannot start a process: {0}")]
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

/// The error of [`Process::join`] and [`Process::join_result`]: the process ended without a result,
/// or its function returned an error.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{JoinError, Process};
///
/// let worker = Process::spawn(|()| -> u32 { panic!("no disk") }, ())?;
/// match worker.join() {
///     Ok(result) => println!("{result}"),
///     Err(JoinError::Panicked { message, location, .. }) => {
///         assert_eq!(message, "no disk");
///         eprintln!("worker panicked at {location}");
///     }
///     Err(error) => eprintln!("{error}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The function panicked, or the `Deserialize` of its arguments, or the `Serialize` of its
    /// result.
    #[error("the process panicked at {location}: {message}")]
    Panicked {
        /// The message of the panic.
        message: String,
        /// The location of the panic: file, line and column.
        location: String,
        /// The backtrace, if `RUST_BACKTRACE` or `RUST_LIB_BACKTRACE` enables it, as for
        /// [`Backtrace::capture`](std::backtrace::Backtrace::capture).
        backtrace: Option<String>,
    },
    /// The process exited with this code before its function returned; or after that, with a code
    /// other than 0.
    #[error("the process exited with code {}{}", .0, before_return(*.0))]
    Exited(i32),
    /// The process was killed by this signal, before or after its function returned. The second
    /// field is whether it dumped core. 9 is SIGKILL; see signal(7).
    #[error("the process was killed by {}{}", SignalName(*.0), core_dump(*.1))]
    Signaled(i32, bool),
    /// The function was not called, because the arguments could not be decoded in the child.
    #[error("the function of the process was not called: {0}")]
    ArgumentsLost(String),
    /// The function returned, but the result could not be sent, or not be decoded here.
    #[error("the result of the process was lost: {0}")]
    ResultLost(String),
    /// The function returned an error, which is this one. Its text and its sources are those of the
    /// worker's error. [`Process::join_result`] returns it; [`Process::join`] does not, because an
    /// error is a result as well.
    ///
    /// Or an initialiser returned this error, and the function was not called: see
    /// [`Builder::on_start`](crate::Builder::on_start). Both methods return it.
    #[error(transparent)]
    Failed(#[from] RemoteError),
    /// The process ended without a result, and other code in this process collected its exit
    /// status.
    #[error(
        "the process ended without a result, and other code in this process collected its exit status \
         (by a wait for any child, or because SIGCHLD is ignored)"
    )]
    Unknown,
}

fn before_return(code: i32) -> &'static str {
    if code == 0 { " before its function returned" } else { "" }
}

/// The error of [`Process::join_timeout`].
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{JoinTimeoutError, Process};
/// use std::time::Duration;
///
/// let worker = Process::spawn(|()| -> () { loop { std::thread::park() } }, ())?;
/// match worker.join_timeout(Duration::from_millis(10)) {
///     Ok(()) => println!("done"),
///     Err(JoinTimeoutError::Timeout(worker)) => {
///         worker.kill()?;
///         worker.wait();
///     }
///     Err(error) => eprintln!("{error}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Error)]
#[non_exhaustive]
pub enum JoinTimeoutError<R> {
    /// The process is still alive. The handle is returned.
    #[error("{} (pid {}) has not ended before the timeout", .0.name(), .0.pid())]
    Timeout(Process<R>),
    /// The process ended without a result.
    #[error(transparent)]
    Failed(JoinError),
}

impl<R> JoinTimeoutError<R> {
    /// Returns `true` if the process is still alive.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }

    /// Returns the process if it is still alive.
    #[must_use]
    pub fn into_process(self) -> Option<Process<R>> {
        match self {
            Self::Timeout(process) => Some(process),
            Self::Failed(_) => None,
        }
    }
}

debug_is_display!(SpawnError);

/// Prints the sources of a worker's error as well.
impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => fmt::Debug::fmt(error, f),
            other => fmt::Display::fmt(other, f),
        }
    }
}

impl<R> fmt::Debug for JoinTimeoutError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => fmt::Debug::fmt(error, f),
            Self::Timeout(_) => fmt::Display::fmt(self, f),
        }
    }
}
