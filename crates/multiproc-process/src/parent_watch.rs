//! The thread of a child that watches its parent.

use std::os::fd::BorrowedFd;
use std::time::Duration;
use std::{io, thread};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpid, kill_process};

use crate::current::Identity;
use crate::thread::start_thread;

/// How long a child has to end after SIGTERM when its parent has died.
const GRACE: Duration = Duration::from_millis(500);

/// Starts a thread that ends this process after its parent has ended.
pub(crate) fn watch_parent(
    lifeline: BorrowedFd<'static>,
    identity: &'static Identity,
) -> io::Result<()> {
    start_thread("multiproc-watch", move || end_with_parent(lifeline, identity))
}

fn end_with_parent(lifeline: BorrowedFd<'_>, identity: &Identity) {
    let mut ends = [
        // Hang-up: the parent has ended, or has executed another program. Data is not read here.
        PollFd::new(&lifeline, PollFlags::RDHUP),
        // The parent has ended, but a forked copy of it still holds its end of the socket.
        PollFd::new(&identity.parent.pidfd, PollFlags::IN),
    ];
    while poll(&mut ends, None).is_err() {}
    let _ = kill_process(getpid(), Signal::TERM);
    thread::sleep(GRACE);
    let _ = kill_process(getpid(), Signal::KILL);
}
