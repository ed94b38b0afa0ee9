//! The handle to a child: waiting, signals, results.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multiproc_pipe::{Connection, Deadline, SendError, Source, TryRecvError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, pidfd_send_signal, waitid};

use crate::child_table::{children, collect_at_end};
use crate::current::Identity;
use crate::finish::remember_failure;
use crate::pidfd::{open_pidfd, wait_readable};
use crate::protocol::{Outcome, Start};
use crate::status::ExitStatus;
use crate::thread::start_thread;

/// A handle to a child of this process. It is a [`Process`](crate::Process) without the type of the
/// result.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{Process, active_children};
///
/// let worker = Process::spawn(|()| -> () { loop { std::thread::park() } }, ())?;
/// // The same child, without the type of its result.
/// let child = active_children().pop().expect("one child");
/// assert_eq!(child.pid(), worker.pid());
/// child.kill()?;
/// worker.wait();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Child {
    this: Arc<State>,
}

struct State {
    /// The process that started the child. A copy of that process, made by fork(2), has this
    /// handle as well, but the child is not its own.
    parent: Pid,
    about: Arc<About>,
    pidfd: OwnedFd,
    /// A duplicate of the socket of `inbox`, to wait on and to shut down without its lock.
    socket: OwnedFd,
    status: Mutex<Option<ExitStatus>>,
    inbox: Mutex<Inbox>,
}

/// What the parent knows about a child from its start. It holds no descriptors, and remains of a
/// child that failed.
pub(crate) struct About {
    pid: Pid,
    pub(crate) name: String,
    /// The path of the function.
    function: &'static str,
    daemon: bool,
    outlives_parent: bool,
    /// A user of a handle has seen how the child ended, or has sent it a signal.
    is_noticed: AtomicBool,
}

impl About {
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    pub(crate) fn is_noticed(&self) -> bool {
        self.is_noticed.load(Ordering::Relaxed)
    }
}

/// The connection to a child. The child sends `None` when it has closed inherited descriptors.
pub(crate) type ToChild = Connection<Start, Option<Outcome>>;

/// The connection to a child, and what was received from it.
struct Inbox {
    connection: ToChild,
    /// The child has closed inherited descriptors.
    has_begun: bool,
    outcome: Option<Outcome>,
    /// Why an outcome that was sent could not be received.
    lost: Option<String>,
    /// The child will send nothing more.
    closed: bool,
}

impl Inbox {
    /// Receives what the child has sent, without waiting.
    fn receive_available(&mut self) {
        while !self.closed {
            match self.connection.try_recv() {
                Ok(None) if !self.has_begun => {
                    self.has_begun = true;
                    continue;
                }
                Ok(outcome) => self.outcome = outcome,
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {}
                // If the child died while it was sending, its exit status is the better error.
                Err(error) => self.lost = Some(error.to_string()),
            }
            self.closed = true;
        }
    }
}

impl Child {
    /// Creates the handle of a process that has just started and has not received its function.
    pub(crate) fn new(
        pid: u32,
        identity: &Identity,
        function: &'static str,
        connection: ToChild,
    ) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        // The number cannot belong to another process yet: the child has not been collected.
        let pidfd = open_pidfd(pid)?;
        let socket = connection.as_fd().try_clone_to_owned()?;
        let inbox =
            Inbox { connection, has_begun: false, outcome: None, lost: None, closed: false };
        let state = State {
            parent: getpid(),
            about: Arc::new(About {
                pid,
                name: identity.name.clone(),
                function,
                daemon: identity.daemon,
                outlives_parent: identity.outlives_parent,
                is_noticed: AtomicBool::new(false),
            }),
            pidfd,
            socket,
            status: Mutex::default(),
            inbox: Mutex::new(inbox),
        };
        Ok(Self { this: Arc::new(state) })
    }

    /// Returns the process ID. After the child has ended, the ID may belong to another process: use
    /// this handle to signal it and to wait for it.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let worker = Process::spawn(|()| std::process::id(), ())?;
    /// let pid = worker.pid();
    /// assert_eq!(worker.join()?, pid);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.this.about.pid()
    }

    pub(crate) fn raw_pid(&self) -> Pid {
        self.this.about.pid
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.this.about.name
    }

    /// Returns `true` if the child is a daemon: see [`Builder::daemon`](crate::Builder::daemon).
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.this.about.daemon
    }

    pub(crate) fn outlives_parent(&self) -> bool {
        self.this.about.outlives_parent
    }

    /// Returns the path of the function that the child runs.
    pub(crate) fn function(&self) -> &'static str {
        self.this.about.function
    }

    /// Returns `true` if the child has not ended. A stopped process is alive.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let worker = Process::spawn(|()| -> () { loop { std::thread::park() } }, ())?;
    /// assert!(worker.is_alive());
    /// worker.kill()?;
    /// worker.wait();
    /// assert!(!worker.is_alive());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.collect().is_none()
    }

    /// Returns how the child ended, or `None` if it is alive.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{ExitStatus, Process};
    ///
    /// let worker = Process::spawn(|()| -> () { std::process::exit(3) }, ())?;
    /// worker.wait();
    /// assert_eq!(worker.exit_status(), Some(ExitStatus::Exited(3)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[doc(alias = "exitcode")]
    #[doc(alias = "poll")]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.noticed(self.collect())
    }

    /// Returns `true` if the calling process has started the child, and is not a forked copy of the
    /// one that did.
    #[doc(hidden)]
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.this.parent == getpid()
    }

    pub(crate) fn is_noticed(&self) -> bool {
        self.this.about.is_noticed()
    }

    fn noticed(&self, status: Option<ExitStatus>) -> Option<ExitStatus> {
        if status.is_some() {
            self.this.about.is_noticed.store(true, Ordering::Relaxed);
        }
        status
    }

    /// Collects the exit status and removes the child from the table, if it has ended.
    fn collect(&self) -> Option<ExitStatus> {
        let status = self.collect_status();
        if status.is_some() {
            children().retain(|child| !Arc::ptr_eq(&child.this, &self.this));
        }
        status
    }

    /// Collects the exit status, if the child has ended, but leaves it in the table.
    pub(crate) fn collect_status(&self) -> Option<ExitStatus> {
        let mut status = self.this.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.is_none() {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            *status = match waitid(WaitId::PidFd(self.this.pidfd.as_fd()), options) {
                Ok(None) | Err(Errno::INTR) => None,
                Ok(Some(ended)) => Some(ExitStatus::new(&ended)),
                // Other code has collected it, or is about to. Only its end can be waited for.
                Err(_) => self.has_ended().then_some(ExitStatus::Unknown),
            };
            if let Some(ended) = *status
                && !ended.success()
                && self.is_ours()
            {
                remember_failure(&self.this.about, ended);
            }
        }
        *status
    }

    /// Returns how the child ended without collecting its status.
    fn peek(&self) -> Option<ExitStatus> {
        let known = *self.this.status.lock().unwrap_or_else(PoisonError::into_inner);
        known.or_else(|| {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let ended = waitid(WaitId::PidFd(self.this.pidfd.as_fd()), options).ok()?;
            ended.as_ref().map(ExitStatus::new)
        })
    }

    /// Detaches the child: its result is discarded, and its status is collected when it ends.
    pub(crate) fn leave(&self) {
        if !self.is_ours() {
            return;
        }
        self.discard_outcome();
        if self.collect().is_none() {
            let pid = self.raw_pid();
            // Without this thread, the next call of `active_children` collects it.
            let _ = start_thread("multiproc-reap", move || collect_at_end(pid));
        }
    }

    fn has_ended(&self) -> bool {
        wait_readable(&self.this.pidfd, Deadline::after(Duration::ZERO))
    }

    /// Waits until the child has ended. Returns at once if it has. A child that is killed ends the
    /// wait.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let worker = Process::spawn(|()| (), ())?;
    /// assert!(worker.wait().success());
    /// # Ok(())
    /// # }
    /// ```
    #[allow(clippy::must_use_candidate)] // waiting is something by itself
    pub fn wait(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.noticed(self.wait_until(Deadline::NEVER)) {
                return status;
            }
        }
    }

    /// Waits at most `timeout` for the child to end. Returns `None` if it is still alive.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    /// use std::time::Duration;
    ///
    /// let worker = Process::spawn(|()| -> () { loop { std::thread::park() } }, ())?;
    /// assert_eq!(worker.wait_timeout(Duration::from_millis(10)), None);
    /// worker.kill()?;
    /// let status = worker.wait();
    /// assert_eq!(status.signal(), Some(9));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[doc(alias = "join")]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<ExitStatus> {
        self.noticed(self.wait_until(Deadline::after(timeout)))
    }

    pub(crate) fn wait_until(&self, deadline: Deadline) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.collect() {
                return Some(status);
            }
            // A result that is larger than the socket's buffer keeps the child from ending until it
            // is received. So the socket is polled as well until the result has been received.
            let fds = [
                PollFd::new(&self.this.pidfd, PollFlags::IN),
                PollFd::new(&self.this.socket, PollFlags::IN),
            ];
            let watched = if self.inbox().closed { 1 } else { 2 };
            let timeout = deadline.remaining().and_then(|left| Timespec::try_from(left).ok());
            // It fails after a signal, or while memory is short. Either passes.
            let _ = poll(&mut { fds }[..watched], timeout.as_ref());
            self.inbox().receive_available();
            if deadline.is_past() {
                return self.collect();
            }
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.this.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the outcome of the function, or why it was not received. To be called after the
    /// child has ended, when everything it sent can be received.
    pub(crate) fn take_outcome(&self) -> Result<Outcome, Option<String>> {
        let mut inbox = self.inbox();
        let now = Deadline::after(Duration::ZERO);
        while !inbox.closed && wait_readable(&self.this.socket, now) {
            inbox.receive_available();
        }
        let lost = inbox.lost.take();
        inbox.outcome.take().ok_or(lost)
    }

    /// Discards the result, so that the child need not wait until it is received.
    fn discard_outcome(&self) {
        // It fails only if the child has closed its end.
        let _ = shutdown(&self.this.socket, Shutdown::Read);
    }

    /// Sends the function to the child and adds the child to the table. If the child is already
    /// dead, its exit status reports it.
    pub(crate) fn start(&self, start: Start) -> io::Result<()> {
        // No other thread has this handle yet, so the lock is free.
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

    /// Waits until the child has closed inherited descriptors, or has ended.
    pub(crate) fn wait_for_begin(&self) {
        loop {
            let mut inbox = self.inbox();
            inbox.receive_available();
            if inbox.has_begun || inbox.closed || self.has_ended() {
                return;
            }
            drop(inbox);
            let mut ends = [
                PollFd::new(&self.this.pidfd, PollFlags::IN),
                PollFd::new(&self.this.socket, PollFlags::IN),
            ];
            // It fails after a signal, or while memory is short. Either passes.
            let _ = poll(&mut ends, None);
        }
    }

    /// Sends SIGTERM, which the child may handle.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{JoinError, Process};
    ///
    /// let worker = Process::spawn(|()| -> () { loop { std::thread::park() } }, ())?;
    /// worker.terminate()?;
    /// assert_eq!(worker.join(), Err(JoinError::Signaled(15, false)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if this process has no permission to signal the child. If the child has already ended,
    /// this returns `Ok`.
    #[doc(alias = "SIGTERM")]
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGINT, as Ctrl-C does. The child may handle it.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{JoinError, Process};
    ///
    /// let worker = Process::spawn(|()| -> () { loop { std::thread::park() } }, ())?;
    /// worker.interrupt()?;
    /// assert_eq!(worker.join(), Err(JoinError::Signaled(2, false)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same as for [`terminate`](Self::terminate).
    #[doc(alias = "SIGINT")]
    pub fn interrupt(&self) -> io::Result<()> {
        self.signal(Signal::INT)
    }

    /// Sends SIGKILL, which the child cannot handle.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{JoinError, Process};
    ///
    /// let worker = Process::spawn(|()| -> () { loop { std::thread::park() } }, ())?;
    /// worker.kill()?;
    /// assert_eq!(worker.join(), Err(JoinError::Signaled(9, false)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same as for [`terminate`](Self::terminate).
    #[doc(alias = "SIGKILL")]
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.this.about.is_noticed.store(true, Ordering::Relaxed);
        match pidfd_send_signal(&self.this.pidfd, signal) {
            Err(Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A pidfd, which becomes readable when the process has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.this.pidfd.as_fd()
    }
}

/// Ready when the process has ended. As in [`wait`](Child::wait), the result is received meanwhile.
impl Source for Child {
    fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
        add(self.this.pidfd.as_fd());
        if !self.inbox().closed {
            add(self.this.socket.as_fd());
        }
    }

    fn woken(&self) -> io::Result<bool> {
        self.inbox().receive_available();
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
