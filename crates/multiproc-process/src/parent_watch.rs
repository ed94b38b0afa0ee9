//! The thread of a daemon that watches its parent.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use std::{io, thread};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpid, kill_process};

use crate::bootstrap::ToParent;
use crate::current::Identity;
use crate::thread::start_thread;

/// How long a daemon has to end after SIGTERM when its parent has died.
const GRACE: Duration = Duration::from_millis(500);

/// Starts a thread that ends this process after its parent has ended.
pub(crate) fn watch_parent(connection: &ToParent, identity: &'static Identity) -> io::Result<()> {
    let lifeline = connection.as_fd().try_clone_to_owned()?;
    start_thread("multiproc-watch", move || end_with_parent(&lifeline, identity))
}

fn end_with_parent(lifeline: &OwnedFd, identity: &Identity) {
    let mut ends = [
        // Hang-up: the parent has ended, or has executed another program. Data is not read here.
        PollFd::new(lifeline, PollFlags::RDHUP),
        // The parent has ended, but a forked copy of it still holds its end of the socket.
        PollFd::new(&identity.parent.pidfd, PollFlags::IN),
    ];
    while poll(&mut ends, None).is_err() {}
    let _ = kill_process(getpid(), Signal::TERM);
    thread::sleep(GRACE);
    let _ = kill_process(getpid(), Signal::KILL);
}
