//! The table of the children of this process.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multiproc_pipe::Deadline;
use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::child::Child;

/// How long a process has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(1);

/// The children whose end has not been seen. The table keeps their sockets open, which are their
/// lifelines, also after the last handle was dropped.
static CHILDREN: Mutex<Vec<Child>> = Mutex::new(Vec::new());

pub(crate) fn children() -> MutexGuard<'static, Vec<Child>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the living children of this process, in the order in which they were started.
///
/// Also collects the exit status of those that have ended.
///
/// ```
/// multiproc::enable_in_tests!();
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::Process;
///
/// let (keep_alive, waits) = multiproc::pipe::duplex::<(), ()>()?;
/// let child = Process::builder()
///     .name("waits")
///     .spawn(|end: multiproc::pipe::Connection<(), ()>| drop(end.recv()), waits)?;
/// assert_eq!(multiproc::active_children()[0].name(), "waits");
/// drop(keep_alive);
/// child.join()?;
/// assert!(multiproc::active_children().is_empty());
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn active_children() -> Vec<Child> {
    // `is_alive` removes a child that has ended from the table.
    let all = children().clone();
    all.into_iter().filter(|child| child.is_ours() && child.is_alive()).collect()
}

/// Sends SIGTERM, and SIGKILL after a grace period. Returns when all have ended.
pub(crate) fn end(children: &[Child]) {
    for child in children {
        // It fails if the child has ended, or may not be signalled. The wait below covers both.
        let _ = child.terminate();
    }
    let grace = Deadline::after(GRACE);
    for child in children {
        if child.wait_until(grace).is_none() {
            let _ = child.kill();
            child.wait();
        }
    }
}

/// Waits for the end of a child without a handle, and collects its status unless that was done
/// before.
pub(crate) fn collect_at_end(pid: Pid) {
    // By its number, and without collecting the status, so that this thread holds no descriptor of
    // the child. They are closed as soon as the child is collected.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), options));
    // Under the lock, so that a thread that finds the child gone from the table finds its
    // descriptors closed as well.
    children().retain(|child| child.raw_pid() != pid || child.collect_status().is_none());
}
