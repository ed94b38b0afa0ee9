//! The handle to a process that runs a function.

use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::{fmt, io};

use std::process::{ChildStderr, ChildStdout};
use std::time::Duration;

use multiproc_pipe::Source;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::builder::Builder;
use crate::child::Child;
use crate::error::{JoinError, JoinTimeoutError, SpawnError};
use crate::protocol::{Outcome, Panic};
use crate::status::ExitStatus;

/// A process that runs a function of this program, and will give an `R`.
///
/// Waiting, signals and the rest are the methods of [`Child`], which it dereferences to. Dropping it
/// leaves the process alone, as dropping a `JoinHandle` does: it goes on, and its result is dropped. When
/// it ends it is collected, and does not stay as a zombie: a small thread of this process waits for
/// that.
///
/// ```
/// use multiproc::{JoinError, Process};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let _runtime = multiproc::init();
///
///     let sum = Process::spawn(|numbers: Vec<u64>| numbers.iter().sum::<u64>(), vec![1, 2, 3])?;
///     assert_eq!(sum.join()?, 6);
///
///     let fails = Process::spawn(|()| -> () { panic!("no more ink") }, ())?;
///     let Err(JoinError::Panicked { message, .. }) = fails.join() else { panic!() };
///     assert_eq!(message, "no more ink");
///
///     let sleeps = Process::spawn(|()| std::thread::park(), ())?;
///     sleeps.kill()?;
///     assert_eq!(sleeps.join().unwrap_err(), JoinError::Signaled(9, false));
///     Ok(())
/// }
/// ```
pub struct Process<R = ()> {
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    result: PhantomData<fn() -> R>,
}

impl Process {
    /// Starts a process that calls `f` with `args`.
    ///
    /// `f` is a function, or a closure that captures nothing: it runs in another process, where the
    /// captured values are not, so everything it needs goes into `args`. Arguments and result may be
    /// or contain handles: connections, queues, locks, files. The arguments are dropped here once they
    /// are sent, and the result in the child, so a `Drop` of their types runs in both processes.
    ///
    /// A closure that captures something does not compile (`cargo build` says so; `cargo check` does
    /// not look that deep):
    ///
    /// ```compile_fail,E0080
    /// # use multiproc::Process;
    /// let factor = 3;
    /// let child = Process::spawn(move |n: i32| n * factor, 5);
    /// ```
    ///
    /// ```compile_fail,E0080
    /// # use multiproc::{Process, Queue};
    /// let queue = Queue::bounded(5).unwrap();
    /// let child = Process::spawn(move |n: i32| queue.put(n).unwrap(), 5);
    /// ```
    ///
    /// Nor does a function pointer, whose address means nothing over there:
    ///
    /// ```compile_fail,E0080
    /// # use multiproc::Process;
    /// let f: fn(i32) -> i32 = |n| n * 3;
    /// let child = Process::spawn(f, 5);
    /// ```
    ///
    /// Passed as an argument, the value gets there:
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() {
    /// # use multiproc::Process;
    /// let factor = 3;
    /// let child = Process::spawn(|(n, factor): (i32, i32)| n * factor, (5, factor));
    /// assert_eq!(child.unwrap().join().unwrap(), 15);
    /// # }
    /// ```
    ///
    /// (A captured value without bytes counts as nothing, and is made anew over there.)
    ///
    /// A closure that never returns needs a type to return all the same:
    /// `|queue| -> () { loop { … } }`.
    ///
    /// # Errors
    ///
    /// See [`SpawnError`]: if [`init`](crate::init) was not called, if the arguments cannot be sent,
    /// or if the system refuses. Nothing was started then.
    pub fn spawn<F, A, R>(f: F, args: A) -> Result<Process<R>, SpawnError>
    where
        F: FnOnce(A) -> R + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        Self::builder().spawn(f, args)
    }

    /// Sets more than the function and its arguments: its name, whether it is a daemon, its
    /// environment, working directory, standard output and error. See [`Builder`].
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl<R> Process<R> {
    pub(crate) fn new(
        child: Child,
        stdout: Option<ChildStdout>,
        stderr: Option<ChildStderr>,
    ) -> Self {
        Self { child, stdout, stderr, result: PhantomData }
    }

    /// The end of the pipe from which this process reads what the child prints. `None` if
    /// [`Builder::stdout`] did not ask for a pipe, or if it was taken before.
    ///
    /// It ends (gives 0 bytes) when the child has ended, and whoever inherited its standard output.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.stdout.take()
    }

    /// The same for standard error: see [`Builder::stderr`].
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.stderr.take()
    }
}

impl<R: DeserializeOwned> Process<R> {
    /// Waits for the end of the process, and gives what the function returned.
    ///
    /// It waits for the process itself, which waits for its own children that are no daemons. If it
    /// is killed, this returns at once; its grandchildren that go on, or hold its descriptors, are
    /// not waited for.
    ///
    /// # Errors
    ///
    /// See [`JoinError`]: how it ended, if the function did not return, or if the process failed after
    /// that. (An exit handler may abort it, for example.)
    pub fn join(self) -> Result<R, JoinError> {
        let status = self.child.wait();
        self.result(status)
    }

    /// Waits for the end of the process for at most `timeout`, and gives what the function returned.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{JoinError, JoinTimeoutError, Process};
    /// use std::time::Duration;
    ///
    /// let slow = Process::spawn(|()| std::thread::park(), ())?;
    /// let Err(JoinTimeoutError::Timeout(slow)) = slow.join_timeout(Duration::from_millis(50)) else {
    ///     panic!("it cannot have ended");
    /// };
    /// slow.terminate()?;
    /// assert_eq!(slow.join(), Err(JoinError::Signaled(15, false)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Timeout`](JoinTimeoutError::Timeout) with the process, if it is alive when the time is over;
    /// [`Failed`](JoinTimeoutError::Failed) if it gave no result.
    pub fn join_timeout(self, timeout: Duration) -> Result<R, JoinTimeoutError<R>> {
        match self.child.wait_timeout(timeout) {
            Some(status) => self.result(status).map_err(JoinTimeoutError::Failed),
            None => Err(JoinTimeoutError::Timeout(self)),
        }
    }

    /// What has come from one that has ended.
    fn result(&self, status: ExitStatus) -> Result<R, JoinError> {
        match (self.child.take_outcome(), status) {
            // A result counts only if nothing failed after it: an exit handler, the wait for children.
            (Ok(Outcome::Returned(result)), ExitStatus::Exited(0) | ExitStatus::Unknown) => {
                result.decode().map_err(|reason| {
                    let name = std::any::type_name::<R>();
                    JoinError::ResultLost(format!("what came is no `{name}`: {reason}"))
                })
            }
            (Ok(Outcome::Panicked(Panic { message, location, backtrace })), _) => {
                Err(JoinError::Panicked { message, location, backtrace })
            }
            (Ok(Outcome::ArgumentsLost(reason)), _) => Err(JoinError::ArgumentsLost(reason)),
            (Ok(Outcome::ResultLost(reason)), _) => Err(JoinError::ResultLost(reason)),
            // It had something to say, and came to its end well.
            (Err(Some(reason)), ExitStatus::Exited(0)) => Err(JoinError::ResultLost(reason)),
            (_, ExitStatus::Exited(code)) => Err(JoinError::Exited(code)),
            (_, ExitStatus::Signaled { signal, core_dumped }) => {
                Err(JoinError::Signaled(signal, core_dumped))
            }
            (_, ExitStatus::Unknown) => Err(JoinError::Unknown),
        }
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        self.child.leave();
    }
}

impl<R> Deref for Process<R> {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

/// The sentinel: a pidfd, which becomes readable when the process has ended.
impl<R> AsFd for Process<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }
}

/// Ready when the process has ended.
impl<R> Source for Process<R> {
    fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
        self.child.watch(add);
    }

    fn woken(&self) -> io::Result<bool> {
        self.child.woken()
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.child.fmt(f)
    }
}
