//! The end of a process that has children: waiting for them, terminating them, and what is known
//! about those that failed.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multiproc_pipe::Deadline;
use thiserror::Error;

use crate::child::{About, Child};
use crate::child_table::{active_children, end};
use crate::current::current_process;
use crate::status::ExitStatus;

/// How long a process waits for its children before it reports that it does.
const PATIENCE: Duration = Duration::from_secs(1);

/// Terminates the daemons and waits for all other children. After one second, prints which ones it
/// waits for.
pub(crate) fn wait_for_children() {
    let patience = Deadline::after(PATIENCE);
    let (daemons, others): (Vec<_>, Vec<_>) =
        active_children().into_iter().partition(Child::is_daemon);
    end(&daemons);
    let mut slow = others;
    slow.retain(|child| child.wait_until(patience).is_none());
    if !slow.is_empty() {
        // `eprintln` would panic if standard error is closed.
        let _ = io::stderr().write_all(description(&slow).as_bytes());
    }
    for child in slow {
        while child.wait_until(Deadline::NEVER).is_none() {}
    }
}

/// Terminates the children that end with this process, which is about to end after a panic.
pub(crate) fn terminate_children() {
    let mut children = active_children();
    children.retain(|child| !child.outlives_parent());
    end(&children);
}

/// Describes which children this process waits for, and how to end the wait.
fn description(children: &[Child]) -> String {
    let current = current_process();
    let (name, pid) = (current.name(), current.pid());
    let ended = if current.is_child() { "its function has returned" } else { "`main` has ended" };
    let them = match children.len() {
        1 => "1 child that still runs".to_owned(),
        n => format!("{n} children that still run"),
    };
    let mut text = format!("multiproc: {name} (pid {pid}): {ended}; waiting for {them}:\n");
    for child in children {
        let (name, pid, function) = (child.name(), child.pid(), child.function());
        let _ = writeln!(text, "multiproc:   {name} (pid {pid}), function {function}");
    }
    text.push_str(
        "multiproc: the wait ends when their functions return. If they wait for input, drop the \
         last `Producer` or `Sender` before the end of `main`, or shut the queue down. To end them \
         instead, start them with `Process::builder().daemon(true)`, or call `Child::terminate` \
         (now: `kill PID`).\n",
    );
    text
}

/// The children that have failed, and the number of those for which there was no room.
static FAILED: Mutex<(Vec<(Arc<About>, ExitStatus)>, usize)> = Mutex::new((Vec::new(), 0));

/// The number of failed children that are remembered, so that a program which never asks for them
/// uses a bounded amount of memory.
const MAX_FAILED: usize = 1000;

/// Remembers that a child of this process has ended with a status other than success.
pub(crate) fn remember_failure(about: &Arc<About>, status: ExitStatus) {
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    let (failures, omitted) = &mut *failed;
    if failures.len() >= MAX_FAILED {
        failures.retain(|(about, _)| !about.is_noticed());
    }
    if failures.len() < MAX_FAILED {
        failures.push((Arc::clone(about), status));
    } else {
        *omitted += 1;
    }
}

/// Returns the children that failed and whose failure no code of this program has noticed.
pub(crate) fn unnoticed_failures() -> Result<(), FinishFailure> {
    let (failures, omitted) =
        std::mem::take(&mut *FAILED.lock().unwrap_or_else(PoisonError::into_inner));
    let failures: Vec<_> = failures
        .into_iter()
        .filter(|(about, _)| !about.is_noticed())
        .map(|(about, status)| FailedProcess { about, status })
        .collect();
    if failures.is_empty() { Ok(()) } else { Err(FinishFailure { failures, omitted }) }
}

/// The error of [`Runtime::finish`](crate::Runtime::finish): child processes failed.
///
/// It displays, for example, `2 child processes failed: loader (pid 4711) exited with code 101;
/// Process-2 (pid 4712) killed by SIGKILL (9)`.
///
/// ```
/// # use multiproc::Process;
/// fn main() {
///     let runtime = multiproc::init();
///     let worker = Process::builder().name("loader").spawn(|()| -> () { std::process::exit(3) }, ());
///     drop(worker);
///     let failure = runtime.finish().unwrap_err();
///     let [loader] = failure.processes() else { panic!("one process failed: {failure}") };
///     assert_eq!((loader.name(), loader.status().code()), ("loader", Some(3)));
/// }
/// ```
#[derive(Clone, Error)]
pub struct FinishFailure {
    failures: Vec<FailedProcess>,
    /// The number of further failures that were not remembered.
    omitted: usize,
}

impl FinishFailure {
    /// Returns the processes that failed, in the order in which this was noticed. At most the first
    /// 1000 are listed.
    #[must_use]
    pub fn processes(&self) -> &[FailedProcess] {
        &self.failures
    }
}

impl fmt::Display for FinishFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failures.len() + self.omitted {
            1 => f.write_str("1 child process failed: ")?,
            n => write!(f, "{n} child processes failed: ")?,
        }
        for (index, failure) in self.failures.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{failure}")?;
        }
        if self.omitted > 0 {
            write!(f, "; and {} more", self.omitted)?;
        }
        Ok(())
    }
}

/// Shows the message, as for an error that `main` returns.
impl fmt::Debug for FinishFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A child process that failed. Part of [`FinishFailure`].
#[derive(Clone)]
pub struct FailedProcess {
    about: Arc<About>,
    status: ExitStatus,
}

impl FailedProcess {
    /// Returns the name of the process.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.about.name
    }

    /// Returns the process ID that the process had.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.about.pid()
    }

    /// Returns how the process ended.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        self.status
    }
}

impl fmt::Display for FailedProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}) {}", self.name(), self.pid(), self.status)
    }
}

impl fmt::Debug for FailedProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailedProcess")
            .field("name", &self.name())
            .field("pid", &self.pid())
            .field("status", &self.status)
            .finish()
    }
}
