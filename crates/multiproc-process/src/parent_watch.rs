//! The watch of a daemon over its parent.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use std::{io, thread};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpid, kill_process};

use crate::bootstrap::ToParent;
use crate::current::Identity;
use crate::thread::start_thread;

/// How long a daemon whose parent died may take to end by SIGTERM.
const GRACE: Duration = Duration::from_millis(500);

/// Ends this process when its parent has ended.
pub(crate) fn watch_parent(connection: &ToParent, identity: &'static Identity) -> io::Result<()> {
    let lifeline = connection.as_fd().try_clone_to_owned()?;
    start_thread("multiproc-watch", move || end_with_parent(&lifeline, identity))
}

fn end_with_parent(lifeline: &OwnedFd, identity: &Identity) {
    let mut ends = [
        // Hung up: the parent has ended, or runs another program now. What there is to be read is
        // not for this thread.
        PollFd::new(lifeline, PollFlags::RDHUP),
        // The parent has ended, and somebody that it forked still holds its end of the lifeline.
        PollFd::new(&identity.parent.pidfd, PollFlags::IN),
    ];
    while poll(&mut ends, None).is_err() {}
    let _ = kill_process(getpid(), Signal::TERM);
    thread::sleep(GRACE);
    let _ = kill_process(getpid(), Signal::KILL);
}
