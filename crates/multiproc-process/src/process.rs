//! The handle to a process that runs a function.

use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::{fmt, io};

use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::time::Duration;

use multiproc_message::Message;
use multiproc_pipe::Source;
use serde::de::DeserializeOwned;

use crate::builder::Builder;
use crate::child::Child;
use crate::error::{JoinError, JoinTimeoutError, SpawnError};
use crate::function::{Arguments, Function};
use crate::protocol::{Outcome, Panic};
use crate::remote_error::RemoteError;
use crate::status::ExitStatus;

/// A handle to a process that runs a function of this program and returns an `R`.
///
/// The methods for waiting, signals and status are those of [`Child`], to which it dereferences.
///
/// Dropping the handle detaches the process, as dropping a `JoinHandle` does: the process
/// continues, and its result is discarded. It does not become a zombie, because a small thread of
/// this process collects its exit status.
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
#[doc(alias = "multiprocessing")]
pub struct Process<R = ()> {
    child: Child,
    streams: Streams,
    result: PhantomData<fn() -> R>,
}

/// This process's ends of the pipes to a child.
pub(crate) struct Streams {
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

impl Process {
    /// Starts a process that calls `f` with `args`: a value for a function of one argument, a tuple
    /// for a function of several arguments, and `()` for a function without arguments.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// fn hello() {
    ///     println!("hello");
    /// }
    /// fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    /// fn area(width: u32, height: u32) -> u32 {
    ///     width * height
    /// }
    ///
    /// Process::spawn(hello, ())?.join()?;
    /// assert_eq!(Process::spawn(double, 4)?.join()?, 8);
    /// assert_eq!(Process::spawn(area, (4, 5))?.join()?, 20);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `f` must be a function, or a closure that captures nothing: it runs in another process,
    /// where captured values do not exist. Pass all values in `args`. Arguments and results may be
    /// or contain handles: connections, queues, locks, files. The arguments are dropped here after
    /// they were sent, and the result is dropped in the child after it was sent, so the `Drop` of
    /// their types runs in both processes.
    ///
    /// A closure that captures a value does not compile. (`cargo build` reports the error; `cargo
    /// check` does not evaluate the constant.)
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
    /// Neither does a function pointer, because addresses differ between processes:
    ///
    /// ```compile_fail,E0080
    /// # use multiproc::Process;
    /// let f: fn(i32) -> i32 = |n| n * 3;
    /// let child = Process::spawn(f, 5);
    /// ```
    ///
    /// Pass the value as an argument instead:
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
    /// A captured value of a zero-sized type is accepted, and created anew in the child.
    ///
    /// A closure that never returns needs an explicit return type: `|queue| -> () { loop { … } }`.
    ///
    /// The parameters of a closure need types if the argument is a tuple: write
    /// `|queue: Queue<u32>, n: u32|`.
    ///
    /// # Functions that return a `Result`
    ///
    /// A function may fail with `?` if it returns a `Result` with [`RemoteError`], which any error
    /// converts into. [`join_result`](Process::join_result) returns the error with its sources:
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{Process, RemoteError};
    ///
    /// fn size(path: String) -> Result<u64, RemoteError> {
    ///     Ok(std::fs::metadata(path)?.len())
    /// }
    ///
    /// assert!(Process::spawn(size, "/proc/self/exe".to_owned())?.join_result()? > 0);
    ///
    /// let failed = Process::spawn(size, "/no/such/file".to_owned())?.join_result();
    /// assert_eq!(failed.unwrap_err().to_string(), "No such file or directory (os error 2)");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// An error is a result like any other: the process exits with code 0, and
    /// [`join`](Process::join) returns `Ok(Err(error))`. A function that panics ends its process
    /// with code 101.
    ///
    /// # Errors
    ///
    /// Returns a [`SpawnError`] if [`init`](crate::init) was not called, if the arguments cannot be
    /// encoded, or if a system call fails. No process is left in that case.
    ///
    /// # When a process dies
    ///
    /// If the child is killed while it starts, `spawn` returns `Ok`, and [`join`](Self::join)
    /// reports how it ended. If this process is killed, a child that has not received its function
    /// exits.
    #[doc(alias = "fork")]
    #[doc(alias = "start")]
    pub fn spawn<F, A, R, M>(f: F, args: A) -> Result<Process<R>, SpawnError>
    where
        F: Function<A, R, M>,
        A: Arguments<F, R, M> + Message,
        R: Message,
    {
        Self::builder().spawn(f, args)
    }

    /// Returns a [`Builder`], which sets the name, the environment, the working directory, the
    /// standard streams, limits, and whether the process is a daemon.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let worker = Process::builder().name("worker").current_dir("/").spawn(|()| (), ())?;
    /// worker.join()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl<R> Process<R> {
    pub(crate) fn new(child: Child, streams: Streams) -> Self {
        Self { child, streams, result: PhantomData }
    }

    /// Takes the write end of the pipe to the child's standard input. Returns `None` if
    /// [`Builder::stdin`] did not request a pipe, or if it was taken before. Dropping the end
    /// closes it, and the child reads the end of its input.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    /// use std::io::{Write, read_to_string, stdin};
    /// use std::process::Stdio;
    ///
    /// let read = |()| read_to_string(stdin()).unwrap();
    /// let mut worker = Process::builder().stdin(Stdio::piped()).spawn(read, ())?;
    /// worker.take_stdin().expect("a pipe was requested").write_all(b"hello")?;
    /// assert_eq!(worker.join()?, "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.streams.stdin.take()
    }

    /// Takes the read end of the pipe to the child's standard output. Returns `None` if
    /// [`Builder::stdout`] did not request a pipe, or if it was taken before.
    ///
    /// Reading returns 0 bytes when the child, and every process that inherited its standard
    /// output, has ended.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    /// use std::io::{BufRead, BufReader};
    /// use std::process::Stdio;
    ///
    /// let count = |n: u32| (1..=n).for_each(|i| println!("{i}"));
    /// let mut worker = Process::builder().stdout(Stdio::piped()).spawn(count, 3)?;
    /// let lines = BufReader::new(worker.take_stdout().expect("a pipe was requested")).lines();
    /// assert_eq!(lines.map_while(Result::ok).collect::<Vec<_>>(), ["1", "2", "3"]);
    /// worker.join()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.streams.stdout.take()
    }

    /// Takes the read end of the pipe to the child's standard error: see [`Builder::stderr`].
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.streams.stderr.take()
    }
}

impl<R: DeserializeOwned> Process<R> {
    /// Waits for the process to end, and returns the result of its function.
    ///
    /// If the process is killed, this returns at once with an error. A process that ends normally
    /// first waits for its own children that are not daemons. Grandchildren that are left behind by
    /// a kill are not waited for, even if they hold descriptors of the child.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let workers = (0..4)
    ///     .map(|n| Process::spawn(|n: u64| n * n, n))
    ///     .collect::<Result<Vec<_>, _>>()?;
    /// let mut sum = 0;
    /// for worker in workers {
    ///     sum += worker.join()?;
    /// }
    /// assert_eq!(sum, 14);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns a [`JoinError`] that describes how the process ended, if its function did not
    /// return, or if the process failed after that (if an exit handler aborts it, for example).
    pub fn join(mut self) -> Result<R, JoinError> {
        // The child may wait for the end of its input.
        drop(self.take_stdin());
        let status = self.child.wait();
        self.result(status)
    }

    /// Waits at most `timeout` for the process to end, and returns the result of its function.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{JoinError, JoinTimeoutError, Process};
    /// use std::time::Duration;
    ///
    /// let slow = Process::spawn(|()| std::thread::park(), ())?;
    /// let timeout = Duration::from_millis(50);
    /// let Err(JoinTimeoutError::Timeout(slow)) = slow.join_timeout(timeout) else {
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
    /// - [`Timeout`](JoinTimeoutError::Timeout), with the process, if it is still alive after
    ///   `timeout`.
    /// - [`Failed`](JoinTimeoutError::Failed) if it ended without a result.
    pub fn join_timeout(self, timeout: Duration) -> Result<R, JoinTimeoutError<R>> {
        match self.child.wait_timeout(timeout) {
            Some(status) => self.result(status).map_err(JoinTimeoutError::Failed),
            None => Err(JoinTimeoutError::Timeout(self)),
        }
    }

    /// Returns the result of a process that has ended with `status`.
    fn result(&self, status: ExitStatus) -> Result<R, JoinError> {
        match (self.child.take_outcome(), status) {
            // A result counts only if nothing failed after it: an exit handler, or the wait for
            // children.
            (Ok(Outcome::Returned(result)), ExitStatus::Exited(0) | ExitStatus::Unknown) => {
                result.decode().map_err(|reason| {
                    let name = std::any::type_name::<R>();
                    JoinError::ResultLost(format!("cannot decode it as `{name}`: {reason}"))
                })
            }
            (Ok(Outcome::Panicked(Panic { message, location, backtrace })), _) => {
                Err(JoinError::Panicked { message, location, backtrace })
            }
            (Ok(Outcome::NotStarted(error)), _) => Err(JoinError::Failed(error)),
            (Ok(Outcome::ArgumentsLost(reason)), _) => Err(JoinError::ArgumentsLost(reason)),
            (Ok(Outcome::ResultLost(reason)), _) => Err(JoinError::ResultLost(reason)),
            // An outcome was sent but not received, and the process ended normally.
            (Err(Some(reason)), ExitStatus::Exited(0)) => Err(JoinError::ResultLost(reason)),
            (_, ExitStatus::Exited(code)) => Err(JoinError::Exited(code)),
            (_, ExitStatus::Signaled { signal, core_dumped }) => {
                Err(JoinError::Signaled(signal, core_dumped))
            }
            (_, ExitStatus::Unknown) => Err(JoinError::Unknown),
        }
    }
}

impl<T: DeserializeOwned, E: DeserializeOwned + Into<RemoteError>> Process<Result<T, E>> {
    /// Waits for the process to end, and returns the value of its function. One error reports both
    /// a function that returned an error and a process that died.
    ///
    /// The error type of the function is [`RemoteError`], or any error that implements `Serialize`
    /// and `Deserialize`.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{JoinError, Process, RemoteError};
    ///
    /// fn parse(text: String) -> Result<u32, RemoteError> {
    ///     Ok(text.parse()?)
    /// }
    ///
    /// assert_eq!(Process::spawn(parse, "41".to_owned())?.join_result()?, 41);
    ///
    /// let error = Process::spawn(parse, "x".to_owned())?.join_result().unwrap_err();
    /// assert!(matches!(error, JoinError::Failed(_)));
    /// assert_eq!(error.to_string(), "invalid digit found in string");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Failed`](JoinError::Failed), with the error that the function returned.
    /// - The errors of [`join`](Self::join) if the function did not return.
    pub fn join_result(self) -> Result<T, JoinError> {
        self.join()?.map_err(|error| JoinError::Failed(error.into()))
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

/// A pidfd, which becomes readable when the process has ended.
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
