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

use crate::pidfd::{open_pidfd, wait_readable};

/// What the parent sends to a child about both processes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) outlives_parent: bool,
    pub(crate) parent: Parent,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Parent {
    pid: u32,
    name: String,
    /// A pidfd that the parent opened for itself. A pidfd opened by number in the child could
    /// refer to another process, if the parent has died or is in another pid namespace.
    pub(crate) pidfd: Descriptor,
}

/// Set in a process that was started by this library.
static IDENTITY: OnceLock<Identity> = OnceLock::new();

/// Called once, before the function runs.
pub(crate) fn become_child(identity: Identity) -> &'static Identity {
    show_name(&identity.name);
    IDENTITY.get_or_init(|| identity)
}

/// Sets the name that `ps` and `top` show (15 bytes), which is that of the main thread.
fn show_name(name: &str) {
    if gettid() == getpid() {
        let _ = CString::new(name).map(|name| set_name(&name));
    } else {
        // In a test program. Without /proc, the name stays as it was.
        let _ = std::fs::write("/proc/self/comm", name);
    }
}

impl Parent {
    /// Describes this process to its children.
    pub(crate) fn myself() -> std::io::Result<Self> {
        let pidfd = Descriptor(open_pidfd(getpid())?);
        let current = current_process();
        Ok(Self { pid: current.pid(), name: current.name().to_owned(), pidfd })
    }
}

/// Returns a description of the calling process.
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

/// The calling process. Returned by [`current_process`].
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::current_process;
///
/// let current = current_process();
/// println!("{} has the process ID {}", current.name(), current.pid());
/// assert!(!current.is_daemon());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CurrentProcess {
    identity: Option<&'static Identity>,
}

impl CurrentProcess {
    /// Returns the process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        process::id()
    }

    /// Returns the name: `MainProcess`, or the name set by the parent.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.identity.map_or("MainProcess", |identity| &identity.name)
    }

    /// Returns `true` if the process was started as a daemon: see
    /// [`Builder::daemon`](crate::Builder::daemon). The setting is not inherited: the children of a
    /// daemon are not daemons, unless they are started as daemons.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.identity.is_some_and(|identity| identity.daemon)
    }

    pub(crate) fn is_child(self) -> bool {
        self.identity.is_some()
    }
}

/// Returns the process that started this one by [`Process::spawn`](crate::Process::spawn), or
/// `None` if this process was started in another way.
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

/// The parent of this process. Returned by [`parent_process`].
///
/// It can be queried and waited for. Its exit status is known only to its own parent.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{Process, parent_process};
///
/// let worker = Process::spawn(
///     |()| {
///         let parent = parent_process().expect("a child has a parent");
///         (parent.name().to_owned(), parent.is_alive())
///     },
///     (),
/// )?;
/// assert_eq!(worker.join()?, ("MainProcess".to_owned(), true));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ParentProcess {
    parent: &'static Parent,
}

impl ParentProcess {
    /// Returns the process ID. After the parent has ended, the ID may belong to another process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.parent.pid
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        &self.parent.name
    }

    /// Returns `true` if the parent has not ended. A stopped process is alive.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.wait_timeout(Duration::ZERO)
    }

    /// Waits until the parent has ended, normally or by a signal.
    pub fn wait(&self) {
        while !wait_readable(&self.parent.pidfd, Deadline::NEVER) {}
    }

    /// Waits at most `timeout` for the parent to end. Returns `true` if it has ended.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        wait_readable(&self.parent.pidfd, Deadline::after(timeout))
    }
}

/// A pidfd, which becomes readable when the parent has ended.
impl AsFd for ParentProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.parent.pidfd.as_fd()
    }
}

/// Returns the number of processes that can run at the same time: the number of CPUs that this
/// process may use, limited by the CPU quota of its cgroups. It is at least 1.
///
/// Each call reads the current limits, which takes several system calls.
///
/// ```
/// let workers = multiproc::cpu_count();
/// assert!(workers >= 1);
/// ```
#[doc(alias = "available_parallelism")]
#[doc(alias = "process_cpu_count")]
#[must_use]
pub fn cpu_count() -> usize {
    // std reads the affinity mask and the quotas of both versions of cgroups.
    thread::available_parallelism().map_or(1, NonZero::get)
}
