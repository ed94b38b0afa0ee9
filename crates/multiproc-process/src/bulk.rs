//! Large arguments, which are sent to a child on a socket of their own, beside the message that
//! announces them.
//!
//! The parent can watch the child while it waits for buffer space, and seldom has to wait. The
//! child reads into memory that is cheap to touch: most of the cost of a mebibyte is the first
//! access to each page. Measured for one mebibyte: 0.6 ms in a fresh `Vec` or memfd, 0.1 ms in a
//! socket, and 0.1 ms in a huge page.
//!
//! Unsafe code: mapping memory and viewing it.
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

/// The usual size of a huge page. Where the size differs, ordinary pages are used.
const HUGE_PAGE: usize = 2 << 20;

/// Creates a bidirectional stream; one end is for the child.
pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (unix, stream) = (AddressFamily::UNIX, SocketType::STREAM);
    let (ours, theirs) = socketpair(unix, stream, SocketFlags::CLOEXEC, None)?;
    Ok((above_stdio(ours)?, above_stdio(theirs)?))
}

/// Bytes to be sent.
pub(crate) struct Sending {
    socket: OwnedFd,
    bytes: Vec<u8>,
}

impl Sending {
    /// Returns the sender, and the end from which the child reads.
    pub(crate) fn new(bytes: Vec<u8>) -> io::Result<(Self, OwnedFd)> {
        let (socket, theirs) = socket_pair()?;
        // Buffer space for all of it. The kernel may grant less, which takes longer.
        let _ = set_socket_send_buffer_size(&socket, bytes.len());
        Ok((Self { socket, bytes }, theirs))
    }

    /// Sends all bytes. Returns early if the child has ended, because its exit status is the better
    /// error. `pidfd` is that of the child.
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
                // The child has closed its end: it has died, or does not read the rest.
                Err(Errno::PIPE | Errno::CONNRESET) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Received bytes.
pub(crate) struct Received {
    mapping: *mut u8,
    mapped: usize,
    /// Offset in the mapping at which a huge page, and the bytes, begin.
    offset: usize,
    length: usize,
}

impl Received {
    /// Reads `length` bytes from the end that [`Sending::new`] returned.
    pub(crate) fn read(end: OwnedFd, length: usize) -> io::Result<Self> {
        let mapped = length.next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses replaces no other memory.
        let mapping =
            unsafe { mmap_anonymous(ptr::null_mut(), mapped, access, MapFlags::PRIVATE)? };
        // SAFETY: this advice changes no contents. It may be refused.
        let _ = unsafe { madvise(mapping, mapped, Advice::LinuxHugepage) };
        let offset = mapping.addr().next_multiple_of(HUGE_PAGE) - mapping.addr();
        let mut this = Self { mapping: mapping.cast(), mapped, offset, length };
        File::from(end).read_exact(this.bytes())?;
        Ok(this)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // `mapped` has space for `length` bytes after any offset below HUGE_PAGE.
        let start = self.mapping.wrapping_add(self.offset);
        // SAFETY: mapped with this length, zero-initialised, and exclusively owned until dropped.
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
    fn bytes_larger_than_the_socket_buffer_arrive() {
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
    fn closed_end_ends_the_wait() {
        let myself = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let (sending, end) = Sending::new(vec![0; 20_000_000]).unwrap();
        drop(end);
        sending.finish(&myself).unwrap();
        // The parent has died.
        let (sending, end) = Sending::new(vec![0; 10]).unwrap();
        drop(sending);
        assert!(Received::read(end, 10).is_err());
    }

    /// The end of the child ends the wait, even if another process holds its end of the socket.
    #[test]
    fn end_of_the_child_ends_the_wait() {
        let child = crate::Process::spawn(|()| (), ()).unwrap();
        let (sending, _end) = Sending::new(vec![0; 20_000_000]).unwrap();
        sending.finish(child.as_fd()).unwrap();
        child.join().unwrap();
    }
}
