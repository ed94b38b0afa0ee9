//! How a process ended.

use std::fmt;

use rustix::process::{Signal, WaitIdStatus};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitStatus {
    /// It ended by itself, with this code: 0 after the function returned, 101 after a panic.
    Exited(i32),
    /// It was killed.
    Signaled {
        /// By this signal: 9 is SIGKILL, see signal(7).
        signal: i32,
        /// And left a core dump.
        core_dumped: bool,
    },
    /// It ended, and somebody else in this process collected its status: a `wait` for any child, or
    /// SIGCHLD set to be ignored.
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

    /// Whether it ended by itself, with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        *self == Self::Exited(0)
    }

    /// Its exit code, if it ended by itself.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match *self {
            Self::Exited(code) => Some(code),
            _ => None,
        }
    }

    /// The signal that killed it, if one did.
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
            Self::Unknown => f.write_str("ended, and its status was collected by somebody else"),
        }
    }
}

pub(crate) fn core_dump(is_dumped: bool) -> &'static str {
    if is_dumped { ", core dumped" } else { "" }
}

/// `SIGKILL (9)`.
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
