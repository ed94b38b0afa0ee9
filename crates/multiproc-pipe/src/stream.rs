//! Streams: reading and writing bytes and descriptors on one pipe or stream socket.
//!
//! One file, because reading, writing and waiting depend on the kind of descriptor in the same way.

use std::cell::Cell;
use std::collections::VecDeque;
use std::hint::spin_loop;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use multiproc_shm::{CheckedFd, above_stdio, sigpipe};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketType, shutdown,
};

use crate::frame::{DESCRIPTORS_A_PACKET, Space};
use crate::syscalls::{
    poll, read, read_spare, recv_spare, recvmsg, send, send_two, sendmsg, write, write_quietly,
    write_two,
};
use multiproc_shm::Deadline;

/// The reason why a read failed.
pub(crate) enum ReadFault {
    /// Nothing was consumed from the stream. The next read may succeed.
    Io(io::Error),
    /// This many bytes were read, but some of their descriptors were lost.
    DescriptorsLost(usize),
}

impl From<Errno> for ReadFault {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// The number of bytes that a pipe accepts without blocking when poll(2) reports it as writable
/// (PIPE_BUF): it then has a free page. No other writer can fill that page, because ends are
/// unique.
const PIPE_PIECE: usize = 4096;

/// The maximum number of bytes that a write passes to the kernel after its deadline, if there is
/// room: as much as fits into any usual buffer. Without a bound a fast reader could keep the call
/// running.
const LATE: usize = 1024 * 1024;

/// The first and the longest sleep of a send while too many descriptors are in flight.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// The number of first writes to a pipe that check whether SIGPIPE is ignored. Later, every 64th
/// checks.
const ASKING: u32 = 64;

/// About a microsecond.
const PAUSES: u32 = 50;

/// The use that an end makes of its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Both,
    Sends,
    Receives,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pipe,
    Socket,
    /// A descriptor that cannot carry messages: each use returns an error.
    Unfit(Role),
}

impl Kind {
    /// Returns the kind of a descriptor that the program passed in, if it can carry messages.
    fn of(fd: impl AsFd + Copy, role: Role) -> io::Result<Self> {
        let expected = match role {
            Role::Both => "a Unix stream socket",
            Role::Sends => "the writing end of a pipe or a Unix stream socket",
            Role::Receives => "the reading end of a pipe or a Unix stream socket",
        };
        let refuse = |got: String| {
            let text = format!("expected {expected}, got {got}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        match (FileType::from_raw_mode(fstat(fd)?.st_mode), role) {
            (FileType::Socket, _) => {
                let (domain, kind) = (socket_domain(fd)?, socket_type(fd)?);
                if domain != AddressFamily::UNIX || kind != SocketType::STREAM {
                    return refuse("a socket of another family or type".to_owned());
                }
                if socket_acceptconn(fd)? {
                    return refuse("a socket that listens for connections".to_owned());
                }
                Ok(Self::Socket)
            }
            (FileType::Fifo, Role::Both) => {
                refuse("a pipe, over which messages go one way only".to_owned())
            }
            (FileType::Fifo, Role::Sends | Role::Receives) => {
                let access = fcntl_getfl(fd)? & OFlags::ACCMODE;
                let wrong = if role == Role::Sends { OFlags::RDONLY } else { OFlags::WRONLY };
                if access == wrong {
                    return refuse("the other end of a pipe".to_owned());
                }
                Ok(Self::Pipe)
            }
            (other, _) => refuse(format!("a descriptor of kind {other:?}")),
        }
    }
}

/// One direction of a socket that was split into two ends. Shutting it down is visible to the other
/// side, which closing is not while the other end lives.
struct Half {
    socket: Arc<CheckedFd>,
    direction: Shutdown,
    /// Whether it was sent to another process, which then shuts it down.
    moved: Arc<AtomicBool>,
}

impl Drop for Half {
    fn drop(&mut self) {
        if !self.moved.load(Ordering::Relaxed) {
            // It fails if the other side has closed, which then needs no notice.
            let _ = self.socket.get().map(|socket| shutdown(socket, self.direction));
        }
    }
}

/// One end of a pipe or of a stream socket, in blocking mode unless the program passed it in.
pub(crate) struct Stream {
    fd: Arc<CheckedFd>,
    kind: Kind,
    half: Option<Half>,
    quiet: Quiet,
}

/// Whether writes to a pipe must be protected from SIGPIPE, which would end the program if the
/// reader is gone.
///
/// The check takes as long as a small write, so it is not made each time. Programs usually reset
/// the signal at their start.
#[derive(Default)]
struct Quiet {
    /// SIGPIPE is not ignored.
    is_needed: Cell<bool>,
    writes: Cell<u32>,
}

impl Quiet {
    #[inline]
    fn is_needed(&self) -> bool {
        if self.is_needed.get() {
            return true;
        }
        let writes = self.writes.get();
        self.writes.set(if writes < 2 * ASKING { writes + 1 } else { ASKING + 1 });
        (writes <= ASKING || writes == 2 * ASKING) && self.ask()
    }

    #[cold]
    fn ask(&self) -> bool {
        self.is_needed.set(!sigpipe::is_ignored());
        self.is_needed.get()
    }
}

impl Stream {
    pub(crate) fn pipe(fd: OwnedFd) -> Self {
        Self::new(fd, Kind::Pipe)
    }

    pub(crate) fn socket(fd: OwnedFd) -> Self {
        Self::new(fd, Kind::Socket)
    }

    fn new(fd: OwnedFd, kind: Kind) -> Self {
        Self { fd: Arc::new(CheckedFd::adopt(fd)), kind, half: None, quiet: Quiet::default() }
    }

    /// Takes a descriptor that the program passed in, if it can carry messages.
    pub(crate) fn adopt(fd: OwnedFd, role: Role) -> io::Result<Self> {
        let kind = Kind::of(&fd, role)?;
        Ok(Self::new(fd, kind))
    }

    /// Takes any descriptor. If it cannot carry messages, each use returns an error.
    pub(crate) fn assume(fd: OwnedFd, role: Role) -> Self {
        let kind = Kind::of(&fd, role).unwrap_or(Kind::Unfit(role));
        Self::new(fd, kind)
    }

    /// Returns an error if other code in this process has closed the descriptor.
    ///
    /// Called where an operation fails or finds the end, since a check before each operation would
    /// take a system call.
    #[cold]
    fn check_open(&self) -> io::Result<()> {
        // The error's kind would mean that the other side is gone.
        self.fd.get().map(|_| ()).map_err(io::Error::other)
    }

    /// Returns an error if this descriptor cannot carry messages.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.kind {
            Kind::Pipe | Kind::Socket => Ok(()),
            Kind::Unfit(role) => Err(self.unfit(role)),
        }
    }

    #[cold]
    fn unfit(&self, role: Role) -> io::Error {
        let text = "a descriptor that messages cannot go over";
        let unknown = || io::Error::new(io::ErrorKind::InvalidInput, text);
        Kind::of(self, role).err().unwrap_or_else(unknown)
    }

    /// Splits it into the sending and the receiving half.
    pub(crate) fn split(self) -> (Self, Self) {
        let Self { fd, kind, .. } = self;
        let half = |direction| Self {
            fd: Arc::clone(&fd),
            kind,
            half: Some(Half { socket: Arc::clone(&fd), direction, moved: Arc::default() }),
            quiet: Quiet::default(),
        };
        (half(Shutdown::Write), half(Shutdown::Read))
    }

    /// Makes it the half with this role.
    pub(crate) fn into_half(self, role: Role) -> Self {
        let (sends, receives) = self.split();
        // The other half must not shut its direction down.
        let (keep, other) = if role == Role::Sends { (sends, receives) } else { (receives, sends) };
        other.moved().inspect(|moved| moved.store(true, Ordering::Relaxed));
        keep
    }

    /// Returns the flag of a half that is set when it has been sent to another process.
    pub(crate) fn moved(&self) -> Option<&Arc<AtomicBool>> {
        self.half.as_ref().map(|half| &half.moved)
    }

    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.fd.get()?.try_clone_to_owned()
    }

    pub(crate) fn carries_descriptors(&self) -> bool {
        self.kind == Kind::Socket
    }

    /// Writes a whole frame, given in two pieces. Descriptors are sent with its first bytes, a
    /// packet with each. Returns `false` if the deadline passed.
    ///
    /// `written` counts the bytes, so that the caller can continue an incomplete frame.
    #[inline]
    pub(crate) fn write_frame(
        &self,
        frame: [&[u8]; 2],
        descriptors: &[OwnedFd],
        written: &mut usize,
        deadline: Deadline,
    ) -> io::Result<bool> {
        let length = frame[0].len() + frame[1].len();
        let mut late = 0;
        let mut pause = SHORTEST_PAUSE;
        while *written < length {
            let is_timed = deadline != Deadline::NEVER;
            if is_timed && self.kind == Kind::Pipe && !self.wait(PollFlags::OUT, deadline)? {
                return Ok(false);
            }
            let result = if *written * DESCRIPTORS_A_PACKET < descriptors.len() {
                self.write_packet(frame, descriptors, *written, is_timed)
            } else {
                self.write_some(frame, *written, is_timed)
            };
            let count = match result {
                Ok(count) => count,
                // The call did not wait, or the descriptor is non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait(PollFlags::OUT, deadline)? {
                        return Ok(false);
                    }
                    continue;
                }
                Err(error) if is_too_many_in_flight(&error) => {
                    if !self.pause(pause, deadline)? {
                        return Ok(false);
                    }
                    pause = LONGEST_PAUSE.min(pause * 2);
                    continue;
                }
                Err(error) => return Err(self.check_open().err().unwrap_or(error)),
            };
            *written += count;
            if is_timed && *written < length && deadline.is_past() {
                late += count;
                if late > LATE {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Sleeps briefly while the user has the maximum number of descriptors in flight
    /// (RLIMIT_NOFILE). Some must be received first, and the kernel does not report when.
    /// Returns `false` if the deadline passed.
    #[cold]
    fn pause(&self, pause: Duration, deadline: Deadline) -> io::Result<bool> {
        if deadline.is_past() {
            return Ok(false);
        }
        // Waits for no event except that the other side goes away.
        let nothing = PollFlags::empty();
        if wait_for(self, nothing, deadline.or_earlier(Deadline::after(pause)))? {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(true)
    }

    /// Writes once, beginning after the first `written` bytes.
    #[inline]
    fn write_some(&self, frame: [&[u8]; 2], written: usize, is_timed: bool) -> io::Result<usize> {
        let piece = if is_timed && self.kind == Kind::Pipe { PIPE_PIECE } else { usize::MAX };
        let (first, second) = rest_of(frame, written, piece);
        let flags = send_flags(is_timed);
        let is_quiet = self.kind == Kind::Pipe && self.quiet.is_needed();
        let count = retry_on_intr(|| match (self.kind, second.is_empty()) {
            (Kind::Socket, true) => send(self, first, flags),
            (Kind::Pipe, _) if is_quiet => write_quietly(self, [first, second]),
            (Kind::Pipe, true) => write(self, first),
            (Kind::Socket, false) => send_two(self, [first, second], flags),
            (Kind::Pipe, false) => write_two(self, [first, second]),
            (Kind::Unfit(_), _) => Err(Errno::INVAL),
        });
        match (self.kind, count) {
            (Kind::Unfit(role), _) => Err(self.unfit(role)),
            (_, count) => Ok(count?),
        }
    }

    /// Writes the byte number `written` with its packet of descriptors. The last packet is sent
    /// with all bytes that follow.
    fn write_packet(
        &self,
        frame: [&[u8]; 2],
        descriptors: &[OwnedFd],
        written: usize,
        is_timed: bool,
    ) -> io::Result<usize> {
        let rest = &descriptors[written * DESCRIPTORS_A_PACKET..];
        let packet = &rest[..rest.len().min(DESCRIPTORS_A_PACKET)];
        let piece = if packet.len() < rest.len() { 1 } else { usize::MAX };
        let (first, second) = rest_of(frame, written, piece);
        let borrowed: Vec<BorrowedFd<'_>> = packet.iter().map(AsFd::as_fd).collect();
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_A_PACKET))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let pushed = control.push(SendAncillaryMessage::ScmRights(&borrowed));
        debug_assert!(pushed, "the space is for a full packet");
        let flags = send_flags(is_timed);
        Ok(retry_on_intr(|| sendmsg(self, [first, second], &mut control, flags))?)
    }

    /// Pauses before a read, for less than a sleep and a wake-up take. A reader of small messages
    /// is faster than their writer: it would find one at a time and sleep in between, and the
    /// writer would pay for each wake-up. Not on a socket, where it would delay a reply.
    #[inline]
    pub(crate) fn coalesce(&self) {
        if self.kind == Kind::Pipe {
            for _ in 0..PAUSES {
                spin_loop();
            }
        }
    }

    /// Reads once, as much as is available and fits, waiting for the first byte. 0 means end of
    /// file.
    #[inline]
    pub(crate) fn read(&self, space: Space<'_>) -> Result<usize, ReadFault> {
        match self.read_once(space) {
            Ok(count @ 1..) => Ok(count),
            result => self.check_open().map_err(ReadFault::Io).and(result),
        }
    }

    #[inline]
    fn read_once(&self, space: Space<'_>) -> Result<usize, ReadFault> {
        match (space, self.kind) {
            (Space::Ahead(bytes, descriptors), Kind::Socket) => {
                self.read_with_descriptors(bytes, descriptors)
            }
            (Space::Ahead(bytes, _), Kind::Pipe) => Ok(retry_on_intr(|| read(self, bytes))?),
            (Space::Body(body), Kind::Socket) => {
                Ok(retry_on_intr(|| recv_spare(self, body, RecvFlags::empty()))?)
            }
            (Space::Body(body), Kind::Pipe) => Ok(retry_on_intr(|| read_spare(self, body))?),
            (_, Kind::Unfit(role)) => Err(ReadFault::Io(self.unfit(role))),
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
            retry_on_intr(|| recvmsg(self, bytes, &mut control, RecvFlags::CMSG_CLOEXEC))?;
        let mut has_lost = false;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                for descriptor in came {
                    match above_stdio(descriptor) {
                        Ok(descriptor) if !has_lost => descriptors.push_back(descriptor),
                        _ => has_lost = true,
                    }
                }
            }
        }
        if has_lost || message.flags.contains(ReturnFlags::CTRUNC) {
            // The kernel dropped some, and it is unknown which, or no descriptor number was left.
            return Err(ReadFault::DescriptorsLost(message.bytes));
        }
        Ok(message.bytes)
    }

    /// Waits until it is readable or the other side is gone. Returns `false` if the deadline
    /// passed.
    pub(crate) fn wait_readable(&self, deadline: Deadline) -> io::Result<bool> {
        self.wait(PollFlags::IN, deadline)
    }

    fn wait(&self, what: PollFlags, deadline: Deadline) -> io::Result<bool> {
        self.check()?;
        wait_for(self, what, deadline)
    }
}

/// Returns `true` if the kernel sends no more descriptors for this user while too many are in
/// flight (ETOOMANYREFS).
fn is_too_many_in_flight(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error())
}

/// Waits until a descriptor is ready or the other side is gone. Returns `false` if the deadline
/// passed.
pub(crate) fn wait_for(fd: &impl AsFd, what: PollFlags, deadline: Deadline) -> io::Result<bool> {
    loop {
        let timeout = deadline.remaining().and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(fd, what)], timeout.as_ref()) {
            Ok(0) if deadline.is_past() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

fn send_flags(is_timed: bool) -> SendFlags {
    if is_timed { SendFlags::NOSIGNAL | SendFlags::DONTWAIT } else { SendFlags::NOSIGNAL }
}

/// Returns the bytes of a frame after the first `written` ones, at most `most`.
#[inline]
fn rest_of([head, body]: [&[u8]; 2], written: usize, most: usize) -> (&[u8], &[u8]) {
    let (first, second) = match written.checked_sub(head.len()) {
        None => (&head[written..], body),
        Some(written) => (&body[written..], &[][..]),
    };
    let first = &first[..first.len().min(most)];
    (first, &second[..second.len().min(most - first.len())])
}

impl AsFd for Stream {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.unchecked()
    }
}

/// Releases the descriptor without shutting a direction down, which is then up to the caller.
impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> Self {
        if let Some(moved) = stream.moved() {
            moved.store(true, Ordering::Relaxed);
        }
        drop(stream.half);
        Arc::try_unwrap(stream.fd).map(CheckedFd::into_inner).unwrap_or_else(|shared| {
            let copy = shared.unchecked().try_clone_to_owned();
            copy.expect(
                "half of a connection needs a descriptor of its own, and there is none left",
            )
        })
    }
}
