//! Descriptors of processes, which become readable at their end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use multiproc_pipe::Deadline;
use multiproc_shm::above_stdio;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Opens a pidfd, which becomes readable when the process has ended.
pub(crate) fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => above_stdio(pidfd),
        // Only a filter or an old kernel returns these: pidfd_open(2) needs no permission.
        Err(error @ (Errno::NOSYS | Errno::PERM)) => {
            let error = io::Error::from(error);
            Err(io::Error::new(
                error.kind(),
                format!(
                    "pidfd_open(2) failed: {error}; a seccomp filter refuses the call, as those of old \
                     container runtimes do, or the kernel is older than 5.10: allow the call in the \
                     filter, or update the runtime or the kernel"
                ),
            ))
        }
        Err(error) => Err(error.into()),
    }
}

/// Waits until the descriptor is readable or hung up; for a pidfd, until its process has ended.
/// Returns `false` if the deadline passes first.
pub(crate) fn wait_readable(descriptor: &impl AsFd, deadline: Deadline) -> bool {
    loop {
        let timeout = deadline.remaining().and_then(|left| Timespec::try_from(left).ok());
        if poll(&mut [PollFd::new(descriptor, PollFlags::IN)], timeout.as_ref()) == Ok(1) {
            return true;
        }
        if deadline.is_past() {
            return false;
        }
    }
}
