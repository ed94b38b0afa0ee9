//! What a process knows about itself: its name, its parent, its CPUs.

use std::ffi::CString;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Duration;
use std::{process, thread};

use multiproc_pipe::{Deadline, Descriptor};
use rustix::process::getpid;
use rustix::thread::{gettid, set_name};
use serde::{Deserialize, Serialize};

use crate::child::{open_pidfd, wait_readable};

/// What the parent tells a child about the two of them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) parent: Parent,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Parent {
    pid: u32,
    name: String,
    /// Sent by the parent itself, and not opened by number here: so it is the parent's, also if
    /// that is dead already, and in whatever pid namespace the child is.
    pub(crate) pidfd: Descriptor,
}

/// Set in a process that was started by this library.
static IDENTITY: OnceLock<Identity> = OnceLock::new();

/// Called once, before the function runs.
pub(crate) fn become_child(identity: Identity) -> &'static Identity {
    show_name(&identity.name);
    IDENTITY.get_or_init(|| identity)
}

/// For ps and top, which show 15 bytes, and what the main thread is called.
fn show_name(name: &str) {
    if gettid() == getpid() {
        let _ = CString::new(name).map(|name| set_name(&name));
    } else {
        // In a test program. Without /proc, the name is what it was.
        let _ = std::fs::write("/proc/self/comm", name);
    }
}

impl Parent {
    /// This process, as its children are to see it.
    pub(crate) fn myself() -> std::io::Result<Self> {
        let pidfd = Descriptor(open_pidfd(getpid())?);
        let current = current_process();
        Ok(Self { pid: current.pid(), name: current.name().to_owned(), pidfd })
    }
}

/// The process that calls it.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{Process, current_process};
///
/// assert_eq!(current_process().name(), "MainProcess");
/// let child = Process::builder()
///     .name("worker")
///     .spawn(|()| current_process().name().to_owned(), ())?;
/// assert_eq!(child.join()?, "worker");
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn current_process() -> CurrentProcess {
    CurrentProcess { identity: IDENTITY.get() }
}

/// The process that asks. Got from [`current_process`].
#[derive(Debug, Clone, Copy)]
pub struct CurrentProcess {
    identity: Option<&'static Identity>,
}

impl CurrentProcess {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        process::id()
    }

    /// Its name: `MainProcess`, or what its parent called it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.identity.map_or("MainProcess", |identity| &identity.name)
    }

    /// Whether it ends with its parent.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.identity.is_some_and(|identity| identity.daemon)
    }

    pub(crate) fn is_child(self) -> bool {
        self.identity.is_some()
    }
}

/// The process that started this one by [`Process::spawn`](crate::Process::spawn); `None` in one that
/// was started otherwise.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{Process, parent_process};
///
/// assert!(parent_process().is_none());
/// let child = Process::spawn(|()| parent_process().map(|parent| parent.pid()), ())?;
/// assert_eq!(child.join()?, Some(std::process::id()));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn parent_process() -> Option<ParentProcess> {
    IDENTITY.get().map(|identity| ParentProcess { parent: &identity.parent })
}

/// The parent of this process. Got from [`parent_process`].
///
/// It can be looked at and waited for; how it ended is known only to its own parent.
#[derive(Debug, Clone, Copy)]
pub struct ParentProcess {
    parent: &'static Parent,
}

impl ParentProcess {
    /// Its process id. It may be another process's when the parent has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.parent.pid
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        &self.parent.name
    }

    /// Whether it has not ended yet. One that is stopped is alive.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.wait_timeout(Duration::ZERO)
    }

    /// Waits until it has ended, however it ends.
    pub fn wait(&self) {
        while !wait_readable(&self.parent.pidfd, Deadline::NEVER) {}
    }

    /// Waits for at most `timeout` until it has ended; whether it has.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        wait_readable(&self.parent.pidfd, Deadline::after(timeout))
    }
}

/// The sentinel: a pidfd, which becomes readable when the parent has ended.
impl AsFd for ParentProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.parent.pidfd.as_fd()
    }
}

/// How many processes can compute at the same time: the CPUs that this process may use, and no more
/// than its cgroups give it time for. At least 1.
///
/// It looks each time it is called, which takes some files to read: the limits may change.
///
/// ```
/// let workers = multiproc::cpu_count();
/// assert!(workers >= 1);
/// ```
#[must_use]
pub fn cpu_count() -> usize {
    // std looks at the affinity mask and at the quotas of both versions of cgroups.
    thread::available_parallelism().map_or(1, NonZero::get)
}
