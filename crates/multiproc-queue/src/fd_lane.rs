//! The descriptor lane: a socket pair beside the rings, for what cannot lie in shared memory.
//!
//! Who can put has the one end, who can get the other. The descriptors of an item go through it as
//! one packet (`SOCK_SEQPACKET`, [unix(7)]) that bears a tag. And since the kernel tells each end
//! when the last copy of the other is closed, however that came about, the lane is also how the end
//! of all producers, or of all consumers, is noticed.
//!
//! A packet with tag 0 is the doorbell: it wakes those who wait for the queue with poll(2). It is rung
//! only if somebody asked for it.
//!
//! [unix(7)]: https://man7.org/linux/man-pages/man7/unix.7.html

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use multiproc_shm::failpoint;
use multiproc_shm::primitives::Ordering;
use multiproc_shm::region::Region;
use multiproc_shm::{CheckedFd, Deadline, above_stdio};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread, retry_on_intr};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recv,
    recvmsg, send, sendmsg, shutdown, socketpair,
};

use crate::engine::control::Control;
use crate::engine::error::EngineError;
use crate::engine::get::Incoming;
use crate::engine::put::{Outgoing, Put};

/// How many descriptors one item can have: what the kernel takes as one packet (`SCM_MAX_FD`).
pub(crate) const MAX_DESCRIPTORS: usize = 253;

const DOORBELL: u32 = 0;
const TAG: usize = size_of::<u32>();

/// More packets than a socket can hold: whoever finds so many is being fed.
const MAX_STALE_PACKETS: usize = 1 << 12;

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Producer,
    Consumer,
}

/// One end, as this process has it. When it is closed, those who may wait for it in vain are woken.
pub(crate) struct End {
    /// Taken when it is dropped, and not before. Checked: what is received, discarded or shut down must
    /// not be the program's, if other code has closed the descriptor.
    socket: Option<CheckedFd>,
    role: Role,
    region: Region<Control>,
}

/// A new lane: the producers' end, and the consumers'.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl End {
    pub(crate) fn new(socket: OwnedFd, role: Role, region: Region<Control>) -> io::Result<Self> {
        Ok(Self { socket: Some(CheckedFd::new(socket)?), role, region })
    }

    /// An end that came from elsewhere.
    pub(crate) fn adopt(socket: OwnedFd, role: Role, region: Region<Control>) -> io::Result<Self> {
        let is_packets = socket_domain(&socket).is_ok_and(|domain| domain == AddressFamily::UNIX)
            && socket_type(&socket).is_ok_and(|kind| kind == SocketType::SEQPACKET);
        if !is_packets {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "expected the descriptor lane of a multiproc queue, got a descriptor that is no \
                 Unix socket for packets",
            ));
        }
        Self::new(socket, role, region)
    }

    fn checked(&self) -> &CheckedFd {
        self.socket.as_ref().unwrap_or_else(|| unreachable!("taken only by drop"))
    }

    fn socket(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.checked().get().map_err(|_| Errno::BADF)
    }

    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.checked().get()?.try_clone_to_owned()
    }

    /// What the kernel says about this end now; nothing, if the descriptor is not ours any more.
    fn poll_now(&self) -> PollFlags {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::from_borrowed_fd(self.checked().unchecked(), PollFlags::IN)];
        match retry_on_intr(|| poll(&mut fds, Some(&now))) {
            // Checked afterwards: so it was ours when the kernel answered.
            Ok(1..) if self.checked().is_intact() => fds[0].revents(),
            _ => PollFlags::empty(),
        }
    }

    /// Whether nobody has the other end any more. Then nobody ever will again.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.poll_now().contains(PollFlags::HUP)
    }

    /// What it means that the other end does not take anything any more.
    fn peer_gone(&self) -> EngineError {
        let is_shut_down = self.region.control().is_shut_down();
        if is_shut_down { EngineError::Closed } else { EngineError::Disconnected }
    }

    /// Whether a packet lies here.
    pub(crate) fn has_packets(&self) -> bool {
        self.poll_now().contains(PollFlags::IN)
    }

    /// Throws all packets away that lie here, and no more after `deadline`: somebody may feed the lane as
    /// fast as it is drained. If the doorbell was among them, it will be rung again.
    pub(crate) fn drain(&self, deadline: Deadline) {
        self.region.control().ask_again(now());
        while !deadline.is_past() {
            match self.discard_packet() {
                // The end, or a packet without bytes, which no member sends.
                Ok(0) if self.is_hung_up() && !self.has_bytes() => return,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Whether packets with anything in them lie here.
    fn has_bytes(&self) -> bool {
        self.socket().and_then(ioctl_fionread).is_ok_and(|bytes| bytes > 0)
    }

    /// Wakes those who wait for the other end with poll(2).
    #[cold]
    pub(crate) fn ring(&self) {
        // If there is no room for it, something else lies there that wakes them.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = retry_on_intr(|| send(self.socket()?, &DOORBELL.to_le_bytes(), flags));
    }

    /// Wakes those who wait for either end with poll(2), and everybody who ever will.
    pub(crate) fn shut_down(&self) {
        // It can only fail if it was done already.
        let _ = self.socket().and_then(|socket| shutdown(socket, Shutdown::Both));
    }

    /// Takes the next packet, and closes what came with it.
    fn discard_packet(&self) -> Result<usize, Errno> {
        let mut byte = [0; 1];
        retry_on_intr(|| recv(self.socket()?, &mut byte, RecvFlags::DONTWAIT | RecvFlags::TRUNC))
            .map(|(_, length)| length)
    }
}

/// The time, from any point on, the same for all members.
pub(crate) fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Duration::try_from(now).unwrap_or_default()
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.checked().unchecked()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        drop(self.socket.take());
        let control = self.region.control();
        let closed = match self.role {
            Role::Producer => &control.config.closed_producers,
            Role::Consumer => &control.config.closed_consumers,
        };
        closed.fetch_add(1, Ordering::Relaxed);
        control.wake_all();
    }
}

/// The descriptors of an item that is to be put.
pub(crate) struct OutgoingFds<'a> {
    pub(crate) end: &'a End,
    pub(crate) descriptors: &'a [OwnedFd],
}

impl Outgoing for OutgoingFds<'_> {
    fn send(&mut self, tag: u32) -> Result<Put, EngineError> {
        if failpoint::fails("put.send") {
            return Ok(Put::NoBytes);
        }
        let borrowed: Vec<BorrowedFd<'_>> = self.descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let pushed = control.push(SendAncillaryMessage::ScmRights(&borrowed));
        debug_assert!(pushed, "the space is for as many as an item can have");
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let tag = tag.to_le_bytes();
        match retry_on_intr(|| {
            sendmsg(self.end.socket()?, &[IoSlice::new(&tag)], &mut control, flags)
        }) {
            Ok(_) => Ok(Put::Done),
            Err(Errno::AGAIN) => Ok(Put::NoBytes),
            Err(Errno::TOOMANYREFS) => Ok(Put::NoDescriptors),
            Err(Errno::BADF) if !self.end.checked().is_intact() => Err(EngineError::CutOff),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED) => Err(self.end.peer_gone()),
            Err(error) => Err(EngineError::Os(error.raw_os_error())),
        }
    }
}

/// Where the descriptors of an item go that is got.
pub(crate) struct IncomingFds<'a> {
    pub(crate) end: &'a End,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl IncomingFds<'_> {
    /// The packet of an item is not there, though it was sent before the item's frame was.
    fn is_missing(&self) -> Result<(), EngineError> {
        if self.end.region.control().is_discarding() {
            // Somebody has discarded all packets since this get has begun.
            return Err(EngineError::Closed);
        }
        // Somebody took it who does not keep to the protocol. The item comes without, and fails to
        // decode.
        Ok(())
    }
}

impl Incoming for IncomingFds<'_> {
    fn copy(&mut self, tag: u32) -> Result<(), EngineError> {
        let socket = self.end.socket().map_err(|_| EngineError::CutOff)?;
        for _ in 0..MAX_STALE_PACKETS {
            let mut bytes = [0; TAG];
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let mut vec = [IoSliceMut::new(&mut bytes)];
            let packet = match retry_on_intr(|| recvmsg(socket, &mut vec, &mut control, flags)) {
                Ok(packet) => packet,
                Err(Errno::AGAIN) => return self.is_missing(),
                Err(error) => return Err(EngineError::Os(error.raw_os_error())),
            };
            let found = u32::from_le_bytes(bytes);
            let is_packet = packet.bytes == TAG;
            if is_packet && found == tag {
                if packet.flags.contains(ReturnFlags::CTRUNC) {
                    // Not all could be opened here. The packet still lies there, and the item.
                    return Err(EngineError::Os(Errno::MFILE.raw_os_error()));
                }
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(came) = message {
                        for descriptor in came {
                            let error = |error: io::Error| error.raw_os_error().unwrap_or(0);
                            let moved = above_stdio(descriptor);
                            self.descriptors.push(moved.map_err(error).map_err(EngineError::Os)?);
                        }
                    }
                }
                return Ok(());
            }
            let is_newer = found.wrapping_sub(tag) < u32::MAX / 2;
            if is_packet && found != DOORBELL && is_newer {
                return self.is_missing();
            }
            // A doorbell, or what a dead producer left. (Nothing at all is the end of all producers.)
            drop(control);
            if found == DOORBELL {
                self.end.region.control().ask_again(now());
            }
            if self.end.discard_packet().map_or(true, |bytes| bytes == 0 && self.end.is_hung_up()) {
                return self.is_missing();
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.descriptors.clear();
    }

    fn remove(&mut self) {
        if !self.descriptors.is_empty() {
            let _ = self.end.discard_packet();
        }
    }
}
