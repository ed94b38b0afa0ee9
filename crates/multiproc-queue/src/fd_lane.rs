//! The descriptor lane: a socket pair beside the rings, for descriptors, which cannot be stored in
//! shared memory.
//!
//! Handles that put have one end, and handles that get have the other. The descriptors of an item
//! are sent as one packet (`SOCK_SEQPACKET`, [unix(7)]) with a tag. The kernel reports to each end
//! when the last copy of the other one is closed, in whatever way. So the lane also tells when no
//! producer, or no consumer, is left.
//!
//! A packet with tag 0 is the doorbell. It wakes processes that wait for the queue with poll(2),
//! and is rung only if one of them requested it.
//!
//! [unix(7)]: https://man7.org/linux/man-pages/man7/unix.7.html

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use multiproc_shm::failpoint;
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

/// The maximum number of descriptors of an item: the kernel's limit for one packet (`SCM_MAX_FD`).
pub(crate) const MAX_DESCRIPTORS: usize = 253;

const DOORBELL: u32 = 0;
const TAG: usize = size_of::<u32>();

/// More packets than a socket can hold. A loop that has seen this many is being fed by a hostile
/// process.
const MAX_STALE_PACKETS: usize = 1 << 12;

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Producer,
    Consumer,
}

/// One end of the lane. Closing it wakes all processes that may wait for it in vain.
pub(crate) struct End {
    /// `Some` until it is dropped. Checked, because if other code has closed the descriptor, its
    /// number may belong to a file of the program, from which nothing must be received or
    /// discarded.
    socket: Option<CheckedFd>,
    role: Role,
    /// If this is the consumers' end of a queue of tasks: their claim of the region, which tells
    /// processes that join whether a handle is left that could get. The lane itself does not tell
    /// them, because a handle that was closed has no end of it, and a shutdown ends it for both
    /// sides.
    claim: Option<CheckedFd>,
    /// Whether the claim has ended although the end is open, and each copy of the end that is sent
    /// gets a new one: this process keeps the queue for others.
    is_kept: AtomicBool,
    region: Region<Control>,
}

/// Creates a lane: the producers' end and the consumers' end.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl End {
    pub(crate) fn new(socket: OwnedFd, role: Role, region: Region<Control>) -> io::Result<Self> {
        Ok(Self {
            socket: Some(CheckedFd::new(socket)?),
            role,
            claim: None,
            is_kept: AtomicBool::new(false),
            region,
        })
    }

    /// Keeps a claim of the region as long as this end.
    pub(crate) fn with_claim(mut self, claim: OwnedFd) -> io::Result<Self> {
        self.claim = Some(CheckedFd::new(claim)?);
        Ok(self)
    }

    /// Takes an end that was received from another process.
    pub(crate) fn adopt(socket: OwnedFd, role: Role, region: Region<Control>) -> io::Result<Self> {
        let is_packets = socket_domain(&socket).is_ok_and(|domain| domain == AddressFamily::UNIX)
            && socket_type(&socket).is_ok_and(|kind| kind == SocketType::SEQPACKET);
        if !is_packets {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "expected the descriptor lane of a multiproc queue, got a descriptor that is not a \
                 Unix SEQPACKET socket",
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

    pub(crate) fn try_clone_claim(&self) -> io::Result<Option<OwnedFd>> {
        let copy = |claim: &CheckedFd| {
            let is_kept = self.is_kept.load(Ordering::Relaxed);
            if is_kept { self.region.claim() } else { claim.get()?.try_clone_to_owned() }
        };
        self.claim.as_ref().map(copy).transpose()
    }

    /// Ends the claim of this end, and keeps the end open for others.
    pub(crate) fn keep_for_others(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
        if let Some(Ok(claim)) = self.claim.as_ref().map(CheckedFd::get) {
            // It fails only if the kernel is out of memory. Then the queue stays claimed.
            let _ = Region::<Control>::end_claim(claim);
        }
    }

    /// Returns the state of this end according to the kernel, or no flags if the descriptor is not
    /// ours any more.
    fn poll_now(&self) -> PollFlags {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::from_borrowed_fd(self.checked().unchecked(), PollFlags::IN)];
        match retry_on_intr(|| poll(&mut fds, Some(&now))) {
            // Checked afterwards: so the descriptor was ours when the kernel answered.
            Ok(1..) if self.checked().is_intact() => fds[0].revents(),
            _ => PollFlags::empty(),
        }
    }

    /// Returns `true` if no process has the other end any more. This is final.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.poll_now().contains(PollFlags::HUP)
    }

    /// Returns the error for a closed other end.
    fn peer_gone(&self) -> EngineError {
        let is_shut_down = self.region.control().is_shut_down();
        if is_shut_down { EngineError::Closed } else { EngineError::Disconnected }
    }

    /// Returns `true` if a packet can be received.
    pub(crate) fn has_packets(&self) -> bool {
        self.poll_now().contains(PollFlags::IN)
    }

    /// Discards all packets, until `deadline` at most: a hostile process may send them as fast as
    /// they are discarded. If the doorbell is among them, it is requested again.
    pub(crate) fn drain(&self, deadline: Deadline) {
        self.region.control().ask_again(now());
        while !deadline.is_past() {
            match self.discard_packet() {
                // The end of the lane, or a packet without bytes, which no member sends.
                Ok(0) if self.is_hung_up() && !self.has_bytes() => return,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Returns `true` if packets with at least one byte can be received.
    fn has_bytes(&self) -> bool {
        self.socket().and_then(ioctl_fionread).is_ok_and(|bytes| bytes > 0)
    }

    /// Wakes the processes that wait for the other end with poll(2).
    #[cold]
    pub(crate) fn ring(&self) {
        // If there is no room for it, another packet wakes them.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = retry_on_intr(|| send(self.socket()?, &DOORBELL.to_le_bytes(), flags));
    }

    /// Wakes the processes that wait for either end with poll(2), now and in the future.
    pub(crate) fn shut_down(&self) {
        // This fails only if it was done before.
        let _ = self.socket().and_then(|socket| shutdown(socket, Shutdown::Both));
    }

    /// Discards the next packet, and closes its descriptors.
    fn discard_packet(&self) -> Result<usize, Errno> {
        let mut byte = [0; 1];
        retry_on_intr(|| recv(self.socket()?, &mut byte, RecvFlags::DONTWAIT | RecvFlags::TRUNC))
            .map(|(_, length)| length)
    }
}

/// Returns the time since an arbitrary point, which is the same for all members.
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
        drop((self.socket.take(), self.claim.take()));
        match self.role {
            Role::Producer => self.region.control().producer_closed(),
            Role::Consumer => self.region.control().consumer_closed(),
        }
    }
}

/// The descriptors of an item that is being put.
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

/// The descriptors of an item that is being got.
pub(crate) struct IncomingFds<'a> {
    pub(crate) end: &'a End,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl IncomingFds<'_> {
    /// Called if the packet of an item is missing, although it was sent before the item was
    /// committed.
    fn is_missing(&self) -> Result<(), EngineError> {
        if self.end.region.control().is_discarding() {
            // Another process has discarded all packets since this get began.
            return Err(EngineError::Closed);
        }
        // A hostile process took it. The item is returned without descriptors, and its decoding
        // fails.
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
                    // Not all descriptors could be opened here. The packet and the item stay where
                    // they are.
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
            // A doorbell, or the packet of a dead producer. (A packet without bytes is the end of
            // the lane.)
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
