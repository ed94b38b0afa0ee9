//! How a process ended.

use std::fmt;

use rustix::process::{Signal, WaitIdStatus};

/// The exit status of a process.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{ExitStatus, Process};
///
/// let worker = Process::spawn(|()| -> () { std::process::exit(2) }, ())?;
/// match worker.wait() {
///     ExitStatus::Exited(code) => assert_eq!(code, 2),
///     status => panic!("the worker {status}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitStatus {
    /// The process exited with this code: 0 after its function returned, 101 after a panic.
    Exited(i32),
    /// The process was killed by a signal.
    Signaled {
        /// The number of the signal. 9 is SIGKILL; see signal(7).
        signal: i32,
        /// Whether the process dumped core.
        core_dumped: bool,
    },
    /// The process ended, and other code in this process collected its status: by a wait for any
    /// child, or because SIGCHLD is ignored.
    Unknown,
}

impl ExitStatus {
    pub(crate) fn new(status: &WaitIdStatus) -> Self {
        if let Some(code) = status.exit_status() {
            return Self::Exited(code);
        }
        match status.terminating_signal() {
            Some(signal) => Self::Signaled { signal, core_dumped: status.dumped() },
            None => Self::Unknown,
        }
    }

    /// Returns `true` if the process exited with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        *self == Self::Exited(0)
    }

    /// Returns the exit code if the process exited by itself.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match *self {
            Self::Exited(code) => Some(code),
            _ => None,
        }
    }

    /// Returns the number of the signal that killed the process, if a signal did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match *self {
            Self::Signaled { signal, .. } => Some(signal),
            _ => None,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signaled { signal, core_dumped } => {
                write!(f, "killed by {}{}", SignalName(signal), core_dump(core_dumped))
            }
            Self::Unknown => f.write_str("ended, and other code collected its exit status"),
        }
    }
}

pub(crate) fn core_dump(is_dumped: bool) -> &'static str {
    if is_dumped { ", core dumped" } else { "" }
}

/// Displays a signal as `SIGKILL (9)`.
pub(crate) struct SignalName(pub(crate) i32);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Signal::from_named_raw(self.0).map(|signal| match signal {
            Signal::HUP => "SIGHUP",
            Signal::INT => "SIGINT",
            Signal::QUIT => "SIGQUIT",
            Signal::ILL => "SIGILL",
            Signal::TRAP => "SIGTRAP",
            Signal::ABORT => "SIGABRT",
            Signal::BUS => "SIGBUS",
            Signal::FPE => "SIGFPE",
            Signal::KILL => "SIGKILL",
            Signal::USR1 => "SIGUSR1",
            Signal::SEGV => "SIGSEGV",
            Signal::USR2 => "SIGUSR2",
            Signal::PIPE => "SIGPIPE",
            Signal::ALARM => "SIGALRM",
            Signal::TERM => "SIGTERM",
            Signal::XCPU => "SIGXCPU",
            Signal::XFSZ => "SIGXFSZ",
            Signal::SYS => "SIGSYS",
            _ => "signal",
        });
        write!(f, "{} ({})", name.unwrap_or("signal"), self.0)
    }
}
