//! The system calls: bytes and descriptors in and out of one pipe or stream socket.

use std::collections::VecDeque;
use std::hint::spin_loop;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};

use crate::deadline::Deadline;
use crate::frame::{DESCRIPTORS_A_PACKET, Space};

/// Why a read failed.
pub(crate) enum ReadFault {
    /// Nothing was taken from the stream; the next read may succeed.
    Io(io::Error),
    /// The stream went on, but descriptors that it carried are gone.
    DescriptorsLost,
}

impl From<Errno> for ReadFault {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// About a microsecond.
const PAUSES: u32 = 50;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pipe,
    Socket,
}

/// One end of a pipe or of a stream socket, in blocking mode.
pub(crate) struct Stream {
    fd: OwnedFd,
    kind: Kind,
}

impl Stream {
    pub(crate) fn pipe(fd: OwnedFd) -> Self {
        Self { fd, kind: Kind::Pipe }
    }

    pub(crate) fn socket(fd: OwnedFd) -> Self {
        Self { fd, kind: Kind::Socket }
    }

    /// Takes a descriptor that came from elsewhere, if it is of a kind that messages can go over.
    pub(crate) fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let file_type = FileType::from_raw_mode(fstat(&fd)?.st_mode);
        match file_type {
            FileType::Fifo => Ok(Self::pipe(fd)),
            FileType::Socket => Ok(Self::socket(fd)),
            other => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("expected a pipe or a stream socket, got a descriptor of kind {other:?}"),
            )),
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    pub(crate) fn carries_descriptors(&self) -> bool {
        self.kind == Kind::Socket
    }

    /// Writes a whole frame. Descriptors go with its first bytes, a packet of them on each.
    ///
    /// Counts in `written`, so that the caller of a failed write knows whether it is torn.
    pub(crate) fn write_frame(
        &self,
        frame: &[u8],
        descriptors: &[OwnedFd],
        written: &mut usize,
    ) -> io::Result<()> {
        let mut packets = descriptors.chunks(DESCRIPTORS_A_PACKET).peekable();
        while let Some(packet) = packets.next() {
            // All but the last packet ride on one byte each: see `frame`.
            let rest = &frame[*written..];
            let bytes = if packets.peek().is_some() { &rest[..1] } else { rest };
            let borrowed: Vec<BorrowedFd<'_>> = packet.iter().map(AsFd::as_fd).collect();
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_A_PACKET))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let pushed = control.push(SendAncillaryMessage::ScmRights(&borrowed));
            debug_assert!(pushed, "the space is for a full packet");
            *written += retry_on_intr(|| {
                sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
            })?;
        }
        while *written < frame.len() {
            let rest = &frame[*written..];
            *written += retry_on_intr(|| match self.kind {
                Kind::Socket => send(&self.fd, rest, SendFlags::NOSIGNAL),
                Kind::Pipe => write(&self.fd, rest),
            })?;
        }
        Ok(())
    }

    /// A pause before a read, shorter than a sleep and a wake-up. A reader of small messages is quicker
    /// than their writer: it would find one at a time, sleep in between, and the writer would pay for
    /// waking it each time. Not on a socket, where it would delay an answer.
    #[inline]
    pub(crate) fn let_some_gather(&self) {
        if self.kind == Kind::Pipe {
            for _ in 0..PAUSES {
                spin_loop();
            }
        }
    }

    /// Reads once, as much as is there and fits; waits for the first byte. 0 means end of file.
    pub(crate) fn read(&self, space: Space<'_>) -> Result<usize, ReadFault> {
        match (space, self.kind) {
            (Space::Ahead(bytes, descriptors), Kind::Socket) => {
                self.read_with_descriptors(bytes, descriptors)
            }
            (Space::Ahead(bytes, _), Kind::Pipe) => {
                Ok(retry_on_intr(|| read(&self.fd, &mut *bytes))?)
            }
            (Space::Body(body), Kind::Socket) => Ok(retry_on_intr(|| {
                recv(&self.fd, spare_capacity(body), RecvFlags::empty()).map(|(count, _)| count)
            })?),
            (Space::Body(body), Kind::Pipe) => {
                Ok(retry_on_intr(|| read(&self.fd, spare_capacity(body)))?)
            }
        }
    }

    fn read_with_descriptors(
        &self,
        bytes: &mut [u8],
        descriptors: &mut VecDeque<OwnedFd>,
    ) -> Result<usize, ReadFault> {
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_A_PACKET))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = retry_on_intr(|| {
            recvmsg(&self.fd, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                descriptors.extend(came);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            // The kernel dropped some, and nobody can tell which.
            return Err(ReadFault::DescriptorsLost);
        }
        Ok(message.bytes)
    }

    /// Waits until there is something to read (or the other side is gone). False: not in time.
    pub(crate) fn wait_readable(&self, deadline: Deadline) -> io::Result<bool> {
        loop {
            let timeout = deadline.remaining().and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) if deadline.is_past() => return Ok(false),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> Self {
        stream.fd
    }
}
