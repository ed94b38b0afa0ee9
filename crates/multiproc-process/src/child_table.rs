//! The table of the children of this process.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multiproc_pipe::Deadline;
use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::child::Child;

/// How long a process may take to end by SIGTERM.
const GRACE: Duration = Duration::from_secs(1);

/// The children that have not been seen to end. They keep their socket here, which is their
/// lifeline, also when nobody has a handle any more.
static CHILDREN: Mutex<Vec<Child>> = Mutex::new(Vec::new());

pub(crate) fn children() -> MutexGuard<'static, Vec<Child>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The children of this process that are alive, in the order in which they were started.
///
/// Those that have ended are collected by the way.
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
    // Asking one that has ended takes it out of the table.
    let all = children().clone();
    all.into_iter().filter(|child| child.is_ours() && child.is_alive()).collect()
}

/// What happens to the children at the end of a program.
pub(crate) fn finish() {
    let (daemons, others): (Vec<_>, Vec<_>) =
        active_children().into_iter().partition(Child::is_daemon);
    end(&daemons);
    for child in others {
        child.wait();
    }
}

/// Ends processes: SIGTERM, and after a grace time SIGKILL. Returns when all have ended.
pub(crate) fn end(children: &[Child]) {
    for child in children {
        // It has ended meanwhile, or it does not matter.
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

/// Waits for the end of a child that nobody has a handle of, and collects it, unless it was collected
/// meanwhile.
pub(crate) fn collect_at_end(pid: Pid) {
    // By its number, and without taking its status: so nothing of it is held here, and what the child
    // had is closed as soon as anybody collects it.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), options));
    // Under the lock: the one who finds it gone from the table finds its descriptors closed, too.
    children().retain(|child| child.raw_pid() != pid || child.look().is_none());
}
