//! The system calls: bytes and descriptors in and out of one pipe or stream socket.

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

/// What a pipe takes without blocking when poll(2) says that it is writable (PIPE_BUF): it then has
/// a free page. No other writer can fill that in between, because ends are unique.
const PIPE_PIECE: usize = 4096;

/// What a write may still bring to the kernel when its time is over, if there is room: as much as
/// fits into any usual buffer. Else a reader that is quick enough could keep it there.
const LATE: usize = 1024 * 1024;

/// How long a send sleeps at first, and at last, while too many descriptors are on their way.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// Writes to a pipe that each ask whether SIGPIPE is ignored; after these, each sixty-fourth asks.
const ASKING: u32 = 64;

/// About a microsecond.
const PAUSES: u32 = 50;

/// What an end does with its descriptor.
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
    /// Something that messages cannot go over: each use says so.
    Unfit(Role),
}

impl Kind {
    /// The kind of a descriptor that came from elsewhere, if an end can go over it.
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

/// One direction of a socket whose directions are two ends. Ending it tells the other side, which
/// closing does not do while the other end lives.
struct Half {
    socket: Arc<CheckedFd>,
    direction: Shutdown,
    /// It was sent to another process, which ends it.
    moved: Arc<AtomicBool>,
}

impl Drop for Half {
    fn drop(&mut self) {
        if !self.moved.load(Ordering::Relaxed) {
            // It fails if the other side has closed: then there is nobody to be told.
            let _ = self.socket.get().map(|socket| shutdown(socket, self.direction));
        }
    }
}

/// One end of a pipe or of a stream socket. In blocking mode, unless it came from elsewhere.
pub(crate) struct Stream {
    fd: Arc<CheckedFd>,
    kind: Kind,
    half: Option<Half>,
    quiet: Quiet,
}

/// Whether writes to a pipe need care, so that they do not end the program by SIGPIPE when the reader
/// is gone.
///
/// Asking takes as long as a small write, so it is not asked each time. A program that stops ignoring
/// the signal does so at its start, as a rule.
#[derive(Default)]
struct Quiet {
    /// It was found not to be ignored.
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

    /// Takes a descriptor that came from elsewhere, if it is of a kind that messages can go over.
    pub(crate) fn adopt(fd: OwnedFd, role: Role) -> io::Result<Self> {
        let kind = Kind::of(&fd, role)?;
        Ok(Self::new(fd, kind))
    }

    /// Takes any descriptor. If it does not fit, each use is an error that says so.
    pub(crate) fn assume(fd: OwnedFd, role: Role) -> Self {
        let kind = Kind::of(&fd, role).unwrap_or(Kind::Unfit(role));
        Self::new(fd, kind)
    }

    /// Returns an error if other code in this process has closed the descriptor.
    ///
    /// Called where an operation fails or finds the end, since a check before each would take a system
    /// call.
    #[cold]
    fn check_open(&self) -> io::Result<()> {
        // The error's kind would mean that the other side is gone.
        self.fd.get().map(|_| ()).map_err(io::Error::other)
    }

    /// An error that says so, if messages cannot go over this.
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

    /// The sending and the receiving half.
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

    /// Makes it the half that plays this role.
    pub(crate) fn into_half(self, role: Role) -> Self {
        let (sends, receives) = self.split();
        // The one that is not needed must not end its direction.
        let (keep, other) = if role == Role::Sends { (sends, receives) } else { (receives, sends) };
        other.moved().inspect(|moved| moved.store(true, Ordering::Relaxed));
        keep
    }

    /// For a half: to be set when it has been sent to another process.
    pub(crate) fn moved(&self) -> Option<&Arc<AtomicBool>> {
        self.half.as_ref().map(|half| &half.moved)
    }

    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.fd.get()?.try_clone_to_owned()
    }

    pub(crate) fn carries_descriptors(&self) -> bool {
        self.kind == Kind::Socket
    }

    /// Writes a whole frame, which lies in two pieces. Descriptors go with its first bytes, a
    /// packet of them on each. False: not in time.
    ///
    /// Counts in `written`, so that the caller knows what is torn, and can go on there.
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
                // There was no time to wait in the call, or the descriptor is non-blocking.
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

    /// Sleeps for a moment, while the user has as many descriptors in messages on their way as it may
    /// (RLIMIT_NOFILE): somebody must receive some, and nothing tells when. False: not in time.
    #[cold]
    fn pause(&self, pause: Duration, deadline: Deadline) -> io::Result<bool> {
        if deadline.is_past() {
            return Ok(false);
        }
        // Nothing is waited for but that the other side goes away.
        let nothing = PollFlags::empty();
        if wait_for(self, nothing, deadline.or_earlier(Deadline::after(pause)))? {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(true)
    }

    /// Writes what follows the first `written` bytes, once.
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

    /// Writes the byte number `written`, with the packet that rides on it; with the last packet,
    /// what follows, too.
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

    /// A pause before a read, shorter than a sleep and a wake-up. A reader of small messages is quicker
    /// than their writer: it would find one at a time, sleep in between, and the writer would pay for
    /// waking it each time. Not on a socket, where it would delay an answer.
    #[inline]
    pub(crate) fn coalesce(&self) {
        if self.kind == Kind::Pipe {
            for _ in 0..PAUSES {
                spin_loop();
            }
        }
    }

    /// Reads once, as much as is there and fits; waits for the first byte. 0 means end of file.
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
            // The kernel dropped some, and nobody can tell which; or there is no number for one.
            return Err(ReadFault::DescriptorsLost(message.bytes));
        }
        Ok(message.bytes)
    }

    /// Waits until there is something to read (or the other side is gone). False: not in time.
    pub(crate) fn wait_readable(&self, deadline: Deadline) -> io::Result<bool> {
        self.wait(PollFlags::IN, deadline)
    }

    fn wait(&self, what: PollFlags, deadline: Deadline) -> io::Result<bool> {
        self.check()?;
        wait_for(self, what, deadline)
    }
}

/// Whether the kernel passes no more descriptors on for this user as long as so many are on their way
/// (ETOOMANYREFS).
fn is_too_many_in_flight(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error())
}

/// Waits until a descriptor is ready (or the other side is gone). False: not in time.
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

/// What follows the first `written` bytes of a frame, `most` bytes at most.
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

/// What a half does to its direction is then the caller's affair.
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
