//! The system calls: bytes and descriptors in and out of one pipe or stream socket.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType,
};

use crate::deadline::Deadline;
use crate::frame::{DESCRIPTORS_A_PACKET, Space};
use crate::system::{poll, read, read_spare, recv_spare, recvmsg, send, sendmsg, write};

/// Why a read failed.
pub(crate) enum ReadFault {
    /// Nothing was taken from the stream; the next read may succeed.
    Io(io::Error),
    /// So many bytes were read, but not all descriptors that they carried.
    DescriptorsLost(usize),
}

impl From<Errno> for ReadFault {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

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
        let came = match file_type {
            FileType::Fifo => return Ok(Self::pipe(fd)),
            FileType::Socket => match (socket_domain(&fd)?, socket_type(&fd)?) {
                (AddressFamily::UNIX, SocketType::STREAM) => return Ok(Self::socket(fd)),
                // Others lose descriptors, or the borders between messages, without a word.
                (family, kind) => {
                    format!("a socket of family {} and type {}", family.as_raw(), kind.as_raw())
                }
            },
            other => format!("a descriptor of kind {other:?}"),
        };
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("expected a pipe or a stream socket of the Unix family, got {came}"),
        ))
    }

    /// As `adopt`, but for both ways.
    pub(crate) fn adopt_two_way(fd: OwnedFd) -> io::Result<Self> {
        let stream = Self::adopt(fd)?;
        if !stream.carries_descriptors() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "expected a stream socket, which a two-way connection goes over, got a pipe",
            ));
        }
        Ok(stream)
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
            *written +=
                retry_on_intr(|| sendmsg(&self.fd, bytes, &mut control, SendFlags::NOSIGNAL))?;
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

    /// Reads once, as much as is there and fits; waits for the first byte. 0 means end of file.
    pub(crate) fn read(&self, space: Space<'_>) -> Result<usize, ReadFault> {
        match (space, self.kind) {
            (Space::Ahead(bytes, descriptors), Kind::Socket) => {
                self.read_with_descriptors(bytes, descriptors)
            }
            (Space::Ahead(bytes, _), Kind::Pipe) => Ok(retry_on_intr(|| read(&self.fd, bytes))?),
            (Space::Body(body), Kind::Socket) => {
                Ok(retry_on_intr(|| recv_spare(&self.fd, body, RecvFlags::empty()))?)
            }
            (Space::Body(body), Kind::Pipe) => Ok(retry_on_intr(|| read_spare(&self.fd, body))?),
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
        let message =
            retry_on_intr(|| recvmsg(&self.fd, bytes, &mut control, RecvFlags::CMSG_CLOEXEC))?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                descriptors.extend(came);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            // The kernel dropped some, and nobody can tell which.
            return Err(ReadFault::DescriptorsLost(message.bytes));
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
