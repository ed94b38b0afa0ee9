//! The handle to a process that runs a function.

use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::{fmt, io};

use multiproc_pipe::Source;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bootstrap;
use crate::children::Child;
use crate::error::{JoinError, SpawnError};
use crate::protocol::{Encoded, Outcome};
use crate::spawn;
use crate::status::ExitStatus;

/// A process that runs a function of this program, and will give an `R`.
///
/// Waiting, signals and the rest are the methods of [`Child`], which it dereferences to. Dropping it
/// leaves the process alone, as dropping a `JoinHandle` does: it goes on, and its result is dropped.
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
    result: PhantomData<fn() -> R>,
}

impl Process {
    /// Starts a process that calls `f` with `args`.
    ///
    /// `f` is a function, or a closure that captures nothing: it runs in another process, where the
    /// captured values are not, so everything it needs goes into `args`. Arguments and result may be
    /// or contain handles: connections, queues, locks, files.
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

    /// Sets more than the function and its arguments.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl<R: DeserializeOwned> Process<R> {
    /// Waits for the end of the process, and gives what the function returned.
    ///
    /// It waits for the process itself, which waits for its own children that are no daemons.
    ///
    /// # Errors
    ///
    /// See [`JoinError`]: how it ended, if the function did not return.
    pub fn join(self) -> Result<R, JoinError> {
        let status = self.child.wait();
        match self.child.take_outcome() {
            Ok(Outcome::Returned(result)) => Ok(result.decode()?),
            Ok(Outcome::Panicked { message, location }) => {
                Err(JoinError::Panicked { message, location })
            }
            Ok(Outcome::ArgumentsLost(reason)) => Err(JoinError::ArgumentsLost(reason)),
            Ok(Outcome::ResultLost(reason)) => Err(JoinError::ResultLost(reason)),
            Err(lost) => Err(match (status, lost) {
                // It had something to say, and came to its end well.
                (ExitStatus::Exited(0), Some(reason)) => JoinError::ResultLost(reason),
                (ExitStatus::Exited(code), _) => JoinError::Exited(code),
                (ExitStatus::Signaled { signal, core_dumped }, _) => {
                    JoinError::Signaled(signal, core_dumped)
                }
                (ExitStatus::Unknown, _) => JoinError::Unknown,
            }),
        }
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        self.child.discard_outcome();
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

/// Sets up a process. Made by [`Process::builder`].
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::Process;
///
/// let child = Process::builder().name("adder").daemon(true).spawn(|(a, b)| a + b, (2, 3))?;
/// assert_eq!(child.name(), "adder");
/// assert_eq!(child.join()?, 5);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Builder {
    name: Option<String>,
    daemon: bool,
}

impl Builder {
    /// Its name, for people; without one it is `Process-1` and so on, and `Process-1:1` for the
    /// first child of that one.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether it ends with its parent: at the end of `main` it is terminated instead of waited for,
    /// and if the parent dies, however, it ends within a second. Without this it is not.
    #[must_use]
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Starts the process: see [`Process::spawn`].
    ///
    /// # Errors
    ///
    /// As [`Process::spawn`].
    pub fn spawn<F, A, R>(self, f: F, args: A) -> Result<Process<R>, SpawnError>
    where
        F: FnOnce(A) -> R + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        // Its type is all there is to it. The value is the child's now, so it is not dropped here.
        std::mem::forget(f);
        let entry = bootstrap::entry_of::<F, A, R>();
        let args = Encoded::new(&args).map_err(SpawnError::Encode)?;
        let child = spawn::spawn(self.name, self.daemon, entry, args)?;
        Ok(Process { child, result: PhantomData })
    }
}
