//! Many bytes on their way to a child: on a socket of their own, beside the message that announces
//! them.
//!
//! So the parent watches the child while it waits for room, and mostly need not wait at all; and the
//! child reads straight into memory that is cheap to touch. (Touching a page for the first time is
//! most of what a mebibyte costs. Measured for one: 0.6 ms in a fresh `Vec` or memfd; 0.1 ms in a
//! socket, and 0.1 ms in a huge page.)
//!
//! Opens `unsafe` to map memory, and to view what is mapped.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::{ptr, slice};

use multiproc_shm::above_stdio;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

/// The size of a huge page, as a rule. Where it is another one, the memory is just memory.
const HUGE_PAGE: usize = 2 << 20;

/// A stream of bytes in both directions, one end of which is the child's.
pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (unix, stream) = (AddressFamily::UNIX, SocketType::STREAM);
    let (ours, theirs) = socketpair(unix, stream, SocketFlags::CLOEXEC, None)?;
    Ok((above_stdio(ours)?, above_stdio(theirs)?))
}

/// Bytes that are to be sent.
pub(crate) struct Sending {
    socket: OwnedFd,
    bytes: Vec<u8>,
}

impl Sending {
    /// Gives the end from which the child reads, too.
    pub(crate) fn new(bytes: Vec<u8>) -> io::Result<(Self, OwnedFd)> {
        let (socket, theirs) = socket_pair()?;
        // Room for all of it. The kernel may give less: then it takes longer.
        let _ = set_socket_send_buffer_size(&socket, bytes.len());
        Ok((Self { socket, bytes }, theirs))
    }

    /// Sends, until all is sent or the child has ended: then its status says more. `pidfd` is the
    /// child's.
    pub(crate) fn finish(self, pidfd: impl AsFd) -> io::Result<()> {
        let mut rest = &*self.bytes;
        while !rest.is_empty() {
            match send(&self.socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut ends = [
                        PollFd::new(&self.socket, PollFlags::OUT),
                        PollFd::new(&pidfd, PollFlags::IN),
                    ];
                    let _ = poll(&mut ends, None);
                    if ends[1].revents().contains(PollFlags::IN) {
                        break;
                    }
                }
                // It has closed its end: it is dead, or does not want any more.
                Err(Errno::PIPE | Errno::CONNRESET) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Bytes that have come.
pub(crate) struct Received {
    mapping: *mut u8,
    mapped: usize,
    /// Where in the mapping a huge page begins, and with it the bytes.
    offset: usize,
    length: usize,
}

impl Received {
    /// Reads `length` bytes from the end that [`Sending::new`] gave.
    pub(crate) fn read(end: OwnedFd, length: usize) -> io::Result<Self> {
        let mapped = length.next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, where the kernel finds room, takes no memory that anybody uses.
        let mapping =
            unsafe { mmap_anonymous(ptr::null_mut(), mapped, access, MapFlags::PRIVATE)? };
        // SAFETY: advice about how, not what: the memory stays as it is. It may be refused.
        let _ = unsafe { madvise(mapping, mapped, Advice::LinuxHugepage) };
        let offset = mapping.addr().next_multiple_of(HUGE_PAGE) - mapping.addr();
        let mut this = Self { mapping: mapping.cast(), mapped, offset, length };
        File::from(end).read_exact(this.bytes())?;
        Ok(this)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // By `mapped`, there is room for `length` bytes behind any offset below HUGE_PAGE.
        let start = self.mapping.wrapping_add(self.offset);
        // SAFETY: mapped in this length, zero at first, and nobody else's, until it is dropped.
        unsafe { slice::from_raw_parts_mut(start, self.length) }
    }
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.mapping.wrapping_add(self.offset);
        // SAFETY: as in `bytes`.
        unsafe { slice::from_raw_parts(start, self.length) }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // SAFETY: the mapping of `read`, and no borrow of it is left.
        let _ = unsafe { munmap(self.mapping.cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    #[test]
    fn bytes_come_whole_also_if_there_is_no_room_for_them() {
        let myself = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        for length in [1, 100_000, HUGE_PAGE, 20_000_000] {
            let bytes: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[1]).collect();
            let (sending, end) = Sending::new(bytes.clone()).unwrap();
            let received = thread::scope(|s| {
                s.spawn(|| sending.finish(&myself).unwrap());
                Received::read(end, length).unwrap()
            });
            assert!(*received == *bytes, "{length}");
        }
    }

    #[test]
    fn an_end_that_is_closed_is_no_hang() {
        let myself = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let (sending, end) = Sending::new(vec![0; 20_000_000]).unwrap();
        drop(end);
        sending.finish(&myself).unwrap();
        // The parent died.
        let (sending, end) = Sending::new(vec![0; 10]).unwrap();
        drop(sending);
        assert!(Received::read(end, 10).is_err());
    }

    /// A child that has ended ends the wait, also if somebody else still holds its end.
    #[test]
    fn an_end_that_somebody_else_holds_is_no_hang() {
        let child = crate::Process::spawn(|()| (), ()).unwrap();
        let (sending, _end) = Sending::new(vec![0; 20_000_000]).unwrap();
        sending.finish(child.as_fd()).unwrap();
        child.join().unwrap();
    }
}
