//! The handle to a child: waiting, signals, results.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multiproc_pipe::{Connection, Deadline, SendError, Source, TryRecvError};
use multiproc_shm::above_stdio;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, waitid,
};

use crate::child_table::{children, collect_at_end};
use crate::protocol::{Outcome, Start};
use crate::status::ExitStatus;
use crate::thread::start_thread;

/// Opens a descriptor for a process, which becomes readable when the process has ended.
pub(crate) fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => above_stdio(pidfd),
        // No other cause for these: any process may be opened.
        Err(error @ (Errno::NOSYS | Errno::PERM)) => {
            let error = io::Error::from(error);
            Err(io::Error::new(
                error.kind(),
                format!(
                    "expected a pidfd from pidfd_open(2), got: {error}; a seccomp filter refuses the \
                     call, as those of old container runtimes do, or the kernel is older than 5.10: \
                     allow the call in the filter, or update the runtime or the kernel"
                ),
            ))
        }
        Err(error) => Err(error.into()),
    }
}

/// A child of this process: what a [`Process`](crate::Process) is without the type of its result.
#[derive(Clone)]
pub struct Child {
    this: Arc<State>,
}

struct State {
    /// The process that started it. A copy of that one, made by fork(2), has this handle as well, and
    /// the child is none of its own.
    parent: Pid,
    pid: Pid,
    name: String,
    daemon: bool,
    pidfd: OwnedFd,
    /// The socket of `inbox` once more, to wait on and to shut down without its lock.
    socket: OwnedFd,
    status: Mutex<Option<ExitStatus>>,
    /// A user of this handle was told how it ended, or asked it to end.
    is_noticed: AtomicBool,
    inbox: Mutex<Inbox>,
}

/// The connection to a child. `None` tells that it has closed what it inherited.
pub(crate) type ToChild = Connection<Start, Option<Outcome>>;

/// The connection to a child, and what came over it.
struct Inbox {
    connection: ToChild,
    /// It has closed what it inherited.
    has_begun: bool,
    outcome: Option<Outcome>,
    /// Why an outcome that came could not be received.
    lost: Option<String>,
    /// Nothing more will come.
    closed: bool,
}

impl Inbox {
    /// Takes what is there, without waiting.
    fn look(&mut self) {
        while !self.closed {
            match self.connection.try_recv() {
                Ok(None) if !self.has_begun => {
                    self.has_begun = true;
                    continue;
                }
                Ok(outcome) => self.outcome = outcome,
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {}
                // If the child died while it was sending, its status says more.
                Err(error) => self.lost = Some(error.to_string()),
            }
            self.closed = true;
        }
    }
}

impl Child {
    /// A process that was just started. It does not know yet what to do.
    pub(crate) fn new(
        pid: u32,
        name: String,
        daemon: bool,
        connection: ToChild,
    ) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        // It cannot be another process of the same number: nobody has collected this one yet.
        let pidfd = open_pidfd(pid)?;
        let socket = connection.as_fd().try_clone_to_owned()?;
        let inbox =
            Inbox { connection, has_begun: false, outcome: None, lost: None, closed: false };
        let state = State {
            parent: getpid(),
            pid,
            name,
            daemon,
            pidfd,
            socket,
            status: Mutex::default(),
            is_noticed: AtomicBool::new(false),
            inbox: Mutex::new(inbox),
        };
        Ok(Self { this: Arc::new(state) })
    }

    /// Its process id. It may be another process's once the child has ended: signal and wait through
    /// the handle.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.this.pid.as_raw_pid().unsigned_abs()
    }

    pub(crate) fn raw_pid(&self) -> Pid {
        self.this.pid
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.this.name
    }

    /// Whether it ends with this process.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.this.daemon
    }

    /// Whether it has not ended yet. One that is stopped is alive.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.collect().is_none()
    }

    /// How it ended; `None` while it is alive.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.noticed(self.collect())
    }

    /// Whether this process has started it, and not one that this is a copy of.
    #[doc(hidden)]
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.this.parent == getpid()
    }

    pub(crate) fn is_noticed(&self) -> bool {
        self.this.is_noticed.load(Ordering::Relaxed)
    }

    fn noticed(&self, status: Option<ExitStatus>) -> Option<ExitStatus> {
        if status.is_some() {
            self.this.is_noticed.store(true, Ordering::Relaxed);
        }
        status
    }

    /// Collects its status, if it has ended.
    fn collect(&self) -> Option<ExitStatus> {
        let status = self.look();
        if status.is_some() {
            children().retain(|child| !Arc::ptr_eq(&child.this, &self.this));
        }
        status
    }

    /// The same, and leaves it in the table.
    pub(crate) fn look(&self) -> Option<ExitStatus> {
        let mut status = self.this.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.is_none() {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            *status = match waitid(WaitId::PidFd(self.this.pidfd.as_fd()), options) {
                Ok(None) | Err(Errno::INTR) => None,
                Ok(Some(ended)) => Some(ExitStatus::new(&ended)),
                // Somebody else collected it, or it is about to be: wait for its end alone.
                Err(_) => self.has_ended().then_some(ExitStatus::Unknown),
            };
        }
        *status
    }

    /// How it ended, if it has. Changes nothing: whoever collects it gets the same.
    fn peek(&self) -> Option<ExitStatus> {
        let known = *self.this.status.lock().unwrap_or_else(PoisonError::into_inner);
        known.or_else(|| {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let ended = waitid(WaitId::PidFd(self.this.pidfd.as_fd()), options).ok()?;
            ended.as_ref().map(ExitStatus::new)
        })
    }

    /// Leaves it to itself: nobody wants its result, and it is collected when it ends.
    pub(crate) fn leave(&self) {
        if !self.is_ours() {
            return;
        }
        self.discard_outcome();
        if self.collect().is_none() {
            let pid = self.this.pid;
            // Without a thread for it, it is collected when somebody asks for the active children.
            let _ = start_thread("multiproc-reap", move || collect_at_end(pid));
        }
    }

    fn has_ended(&self) -> bool {
        wait_readable(&self.this.pidfd, Deadline::after(Duration::ZERO))
    }

    /// Waits until it has ended. Returns at once if it has.
    #[allow(clippy::must_use_candidate)] // waiting is something by itself
    pub fn wait(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.noticed(self.wait_until(Deadline::NEVER)) {
                return status;
            }
        }
    }

    /// Waits for at most `timeout` until it has ended; `None` if it is still alive then.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<ExitStatus> {
        self.noticed(self.wait_until(Deadline::after(timeout)))
    }

    pub(crate) fn wait_until(&self, deadline: Deadline) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.collect() {
                return Some(status);
            }
            // A result that is larger than the socket's buffer keeps the child from ending until
            // somebody takes it: so both are watched, until the result is here.
            let fds = [
                PollFd::new(&self.this.pidfd, PollFlags::IN),
                PollFd::new(&self.this.socket, PollFlags::IN),
            ];
            let watched = if self.inbox().closed { 1 } else { 2 };
            let timeout = deadline.remaining().and_then(|left| Timespec::try_from(left).ok());
            // It can fail by a signal, or by a lack of memory, which passes.
            let _ = poll(&mut { fds }[..watched], timeout.as_ref());
            self.inbox().look();
            if deadline.is_past() {
                return self.collect();
            }
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.this.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of its function, or why that did not arrive. To be called when it has ended: all
    /// it sent is there then.
    pub(crate) fn take_outcome(&self) -> Result<Outcome, Option<String>> {
        let mut inbox = self.inbox();
        let now = Deadline::after(Duration::ZERO);
        while !inbox.closed && wait_readable(&self.this.socket, now) {
            inbox.look();
        }
        let lost = inbox.lost.take();
        inbox.outcome.take().ok_or(lost)
    }

    /// Nobody wants the result any more: the child need not wait until somebody takes it.
    fn discard_outcome(&self) {
        // It fails only if the child has closed its end.
        let _ = shutdown(&self.this.socket, Shutdown::Read);
    }

    /// Tells it what to do, and enters it into the table. If it is dead already, its status will say
    /// so.
    pub(crate) fn start(&self, start: Start) -> io::Result<()> {
        // Nobody else knows this child yet, so nobody waits for the inbox.
        match self.inbox().connection.send(start) {
            Ok(()) | Err(SendError::Disconnected(_)) => {}
            Err(SendError::Encode(_, error)) => {
                return Err(io::Error::other(error.reason().to_owned()));
            }
            Err(SendError::Io(_, error)) => return Err(error),
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
        children().push(self.clone());
        Ok(())
    }

    /// Waits until it has closed what it inherited, or has ended.
    pub(crate) fn wait_for_begin(&self) {
        loop {
            let mut inbox = self.inbox();
            inbox.look();
            if inbox.has_begun || inbox.closed || self.has_ended() {
                return;
            }
            drop(inbox);
            let mut ends = [
                PollFd::new(&self.this.pidfd, PollFlags::IN),
                PollFd::new(&self.this.socket, PollFlags::IN),
            ];
            // It can fail by a signal, or by a lack of memory, which passes.
            let _ = poll(&mut ends, None);
        }
    }

    /// Asks it to end: SIGTERM, which it may handle.
    ///
    /// # Errors
    ///
    /// If this process may not signal it. A process that has ended is no error.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Interrupts it as Ctrl-C does: SIGINT, which it may handle.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate).
    pub fn interrupt(&self) -> io::Result<()> {
        self.signal(Signal::INT)
    }

    /// Ends it at once: SIGKILL, which it cannot handle.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate).
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.this.is_noticed.store(true, Ordering::Relaxed);
        match pidfd_send_signal(&self.this.pidfd, signal) {
            Err(Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits until there is something to read, or nothing will ever come: for a pidfd, until its process
/// has ended. False: not in time.
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

/// The sentinel: a pidfd, which becomes readable when the process has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.this.pidfd.as_fd()
    }
}

/// Ready when the process has ended. As in [`wait`](Child::wait), its result is taken meanwhile.
impl Source for Child {
    fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
        add(self.this.pidfd.as_fd());
        if !self.inbox().closed {
            add(self.this.socket.as_fd());
        }
    }

    fn woken(&self) -> io::Result<bool> {
        self.inbox().look();
        Ok(self.has_ended())
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.name())
            .field("pid", &self.pid())
            .field("daemon", &self.is_daemon())
            .field("status", &self.peek())
            .finish()
    }
}
