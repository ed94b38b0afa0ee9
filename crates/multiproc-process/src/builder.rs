//! The settings of a process that is to be started.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use multiproc_message::{Message, check_type};
use rustix::io::{FdFlags, fcntl_getfd};

use crate::bootstrap::Callee;
use crate::error::SpawnError;
use crate::function::{Arguments, Function};
use crate::limits::{Limit, Resource};
use crate::on_start::StartResult;
use crate::process::Process;
use crate::protocol::Encoded;
use crate::scope::Scope;
use crate::{bootstrap, spawn};

/// Configures and starts a process. Created by [`Process::builder`].
///
/// Settings that are not changed are inherited from this process: environment, working directory,
/// standard output and standard error, limits, process group. Standard input is `/dev/null`.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::Process;
/// use std::io::Read;
/// use std::process::Stdio;
///
/// let mut child = Process::builder()
///     .name("greeter")
///     .env("GREETING", "hello")
///     .current_dir("/")
///     .stdout(Stdio::piped())
///     .spawn(
///         |who: String| println!("{}, {who}", std::env::var("GREETING").unwrap()),
///         "you".to_owned(),
///     )?;
/// let mut text = String::new();
/// child.take_stdout().unwrap().read_to_string(&mut text)?;
/// assert_eq!(text, "hello, you\n");
/// child.join()?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "ProcessBuilder")]
#[derive(Debug)]
#[must_use = "it starts nothing until `spawn` is called"]
pub struct Builder {
    pub(crate) name: Option<String>,
    pub(crate) daemon: bool,
    pub(crate) outlives_parent: bool,
    pub(crate) ignores_sigint: bool,
    /// The limits that the child sets, or the error of [`Builder::rlimit`].
    pub(crate) limits: io::Result<Vec<Limit>>,
    /// The initialisers: see [`bootstrap::initialiser`].
    pub(crate) on_start: Vec<usize>,
    /// Whether `command` has a standard input. Otherwise the socket of the child takes its place.
    pub(crate) has_stdin: bool,
    /// The numbers of the descriptors that the child inherits, or the error of
    /// [`Builder::keep_descriptor`].
    pub(crate) keep: io::Result<Vec<RawFd>>,
    /// This executable, with the settings that std supports.
    pub(crate) command: Command,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let command = Command::new(spawn::THIS_EXECUTABLE);
        Self {
            name: None,
            daemon: false,
            outlives_parent: false,
            ignores_sigint: false,
            limits: Ok(Vec::new()),
            on_start: Vec::new(),
            has_stdin: false,
            keep: Ok(Vec::new()),
            command,
        }
    }

    /// Sets the name of the process. It appears in [`active_children`](crate::active_children), in
    /// panic messages, and (the first 15 bytes) in `ps` and `top`. The default is `Process-1`,
    /// `Process-2` and so on, and `Process-1:1` for the first child of `Process-1`.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let worker = Process::builder().name("worker").spawn(|()| (), ())?;
    /// assert_eq!(worker.name(), "worker");
    /// worker.join()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets whether the process is a daemon. The default is `false`. At the end of the parent's
    /// `main`, a daemon is terminated (SIGTERM, and SIGKILL if it is still alive after one second),
    /// while other children are waited for.
    ///
    /// A daemon may have children. The setting is not inherited: they are not daemons, unless they
    /// are started as daemons.
    ///
    /// If the parent ends in another way, both kinds of children end with it: see
    /// [`outlive_parent`](Self::outlive_parent).
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let endless = |()| -> () {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// };
    /// let daemon = Process::builder().daemon(true).spawn(endless, ())?;
    /// assert!(daemon.is_daemon());
    /// // It would end with this process as well.
    /// daemon.terminate()?;
    /// daemon.wait();
    /// # Ok(())
    /// # }
    /// ```
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Sets whether the process continues to run when its parent has died. The default is `false`:
    /// a child ends with its parent, whatever the cause of the parent's death: a signal, a panic,
    /// `std::process::exit`, or the execution of another program. Its own children end with it in
    /// turn.
    ///
    /// After the death of its parent, a child receives SIGTERM, and SIGKILL half a second later if
    /// it is still alive. If the parent dies before the child has called [`init`](crate::init), the
    /// child exits there.
    ///
    /// The setting makes no difference while the parent lives, and none at the normal end of its
    /// `main`, where the guard of `init` waits for the child, or terminates it if it is a daemon.
    /// Nor does dropping the handle: the child still ends with its parent, unless this is set.
    ///
    /// The setting costs the child a thread less. A function that needs the only thread of its
    /// process, for unshare(2) for example, has it with `true`.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// // Writes the report even if this process is killed meanwhile.
    /// let write_report = |lines: Vec<String>| lines.len();
    /// let writer = Process::builder()
    ///     .outlive_parent(true)
    ///     .spawn(write_report, vec!["all is well".to_owned()])?;
    /// assert_eq!(writer.join()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "detach")]
    #[doc(alias = "PR_SET_PDEATHSIG")]
    pub fn outlive_parent(mut self, outlive_parent: bool) -> Self {
        self.outlives_parent = outlive_parent;
        self
    }

    /// Sets an environment variable.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let level = |()| std::env::var("LOG").unwrap();
    /// let worker = Process::builder().env("LOG", "debug").spawn(level, ())?;
    /// assert_eq!(worker.join()?, "debug");
    /// # Ok(())
    /// # }
    /// ```
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets several environment variables.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let variables = |()| (std::env::var("A").unwrap(), std::env::var("B").unwrap());
    /// let worker = Process::builder().envs([("A", "1"), ("B", "2")]).spawn(variables, ())?;
    /// assert_eq!(worker.join()?, ("1".to_owned(), "2".to_owned()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.command.envs(variables);
        self
    }

    /// Removes an environment variable.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let path = |()| std::env::var_os("PATH").is_some();
    /// let worker = Process::builder().env_remove("PATH").spawn(path, ())?;
    /// assert!(!worker.join()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Removes all environment variables, including those set on this builder.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let count = |()| std::env::vars_os().count();
    /// let worker = Process::builder().env_clear().env("A", "1").spawn(count, ())?;
    /// assert_eq!(worker.join()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn env_clear(mut self) -> Self {
        self.command.env_clear();
        self
    }

    /// Sets the working directory. If it does not exist, `spawn` fails.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let folder = |()| std::env::current_dir().unwrap();
    /// let worker = Process::builder().current_dir("/").spawn(folder, ())?;
    /// assert_eq!(worker.join()?, std::path::Path::new("/"));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "cwd")]
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Adds an initialiser: a function that the child calls before its function, and before it
    /// decodes its arguments. Use it for what all workers need: logging, tracing, a panic hook.
    /// Several initialisers are called in the order in which they were added.
    ///
    /// As in `spawn`, it must be a function or a closure that captures nothing. It returns `()`, or
    /// a `Result` whose error converts into [`RemoteError`](crate::RemoteError). If it returns an
    /// error or panics, the function is not called, and [`join`](Process::join) returns
    /// [`JoinError::Failed`](crate::JoinError::Failed) or
    /// [`JoinError::Panicked`](crate::JoinError::Panicked).
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{Process, current_process};
    /// use std::sync::OnceLock;
    ///
    /// static LOG_PREFIX: OnceLock<String> = OnceLock::new();
    ///
    /// fn start_logging() {
    ///     let _ = LOG_PREFIX.set(format!("[{}]", current_process().name()));
    /// }
    ///
    /// let builder = Process::builder().name("loader").on_start(start_logging);
    /// let worker = builder.spawn(|| LOG_PREFIX.get().cloned(), ())?;
    /// assert_eq!(worker.join()?.as_deref(), Some("[loader]"));
    /// assert!(LOG_PREFIX.get().is_none(), "not in this process");
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "initializer")]
    pub fn on_start<F, T>(mut self, initialiser: F) -> Self
    where
        F: FnOnce() -> T + 'static,
        T: StartResult,
    {
        // As in `spawn`, the value now belongs to the child.
        std::mem::forget(initialiser);
        self.on_start.push(bootstrap::initialiser::<F, T>());
        self
    }

    /// Sets whether the process ignores SIGINT. The default is `false`.
    ///
    /// Ctrl-C sends SIGINT to all processes of the terminal's foreground group. A program that
    /// handles it by finishing the work at hand needs workers that survive it. The signal is
    /// ignored from the start, also before [`init`](crate::init). Programs that the child executes,
    /// and its own children, inherit this.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{Process, pipe};
    ///
    /// let (numbers, to_worker) = pipe::simplex::<u32>()?;
    /// let work = |numbers: pipe::Receiver<u32>| numbers.iter().map(Result::unwrap).sum::<u32>();
    /// let worker = Process::builder().ignore_sigint(true).spawn(work, numbers)?;
    /// to_worker.send(1)?;
    /// worker.interrupt()?; // as Ctrl-C does
    /// to_worker.send(2)?;
    /// drop(to_worker);
    /// assert_eq!(worker.join()?, 3);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "SIG_IGN")]
    pub fn ignore_sigint(mut self, ignore_sigint: bool) -> Self {
        self.ignores_sigint = ignore_sigint;
        self
    }

    /// Limits a resource of the process, as setrlimit(2) does. The child sets the limits before it
    /// decodes its arguments. Its own children inherit them.
    ///
    /// `soft` is the limit, and `hard` is the value up to which the process may raise it. Units
    /// differ: see [`Resource`]. [`Resource::UNLIMITED`] removes a limit. A resource that is set
    /// twice has the last values.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::{JoinError, Process, Resource};
    ///
    /// // The worker may allocate at most 100 MB.
    /// let limit = 100_000_000;
    /// let worker = Process::builder()
    ///     .rlimit(Resource::Data, limit, limit)
    ///     .spawn(|n: usize| std::hint::black_box(vec![1_u8; n]).len(), 1_000_000_000)?;
    /// // A failed allocation aborts the process.
    /// assert!(matches!(worker.join(), Err(JoinError::Signaled(6, _))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `spawn` fails if `soft` is greater than `hard`, or if `hard` is greater than the hard limit
    /// of this process, which only a privileged process may raise.
    #[doc(alias = "setrlimit")]
    #[doc(alias = "ulimit")]
    pub fn rlimit(mut self, resource: Resource, soft: u64, hard: u64) -> Self {
        if let Ok(limits) = &mut self.limits {
            match Limit::new(resource, soft, hard) {
                Ok(limit) => {
                    limits.retain(|earlier| earlier.resource != resource);
                    limits.push(limit);
                }
                Err(error) => self.limits = Err(error),
            }
        }
        self
    }

    /// Sets the process group, as std's
    /// [`CommandExt::process_group`](std::os::unix::process::CommandExt::process_group) does. With
    /// 0, the process is the first one of a new group, whose ID is its process ID.
    ///
    /// A group can be signalled as a whole with killpg(3). A process outside of the terminal's
    /// foreground group receives no SIGINT from Ctrl-C, and is stopped when it reads from the
    /// terminal.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let group = |()| rustix::process::getpgrp().as_raw_pid();
    /// let worker = Process::builder().process_group(0).spawn(group, ())?;
    /// let pid = worker.pid();
    /// assert_eq!(worker.join()?, i32::try_from(pid)?);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "setpgid")]
    pub fn process_group(mut self, group: i32) -> Self {
        self.command.process_group(group);
        self
    }

    /// Sets the standard input: `Stdio::null()` (the default), `Stdio::inherit()`, a
    /// [`File`](std::fs::File), or `Stdio::piped()`. In the last case, write to
    /// [`take_stdin`](Process::take_stdin). [`join`](Process::join) closes a pipe that was not
    /// taken.
    ///
    /// A child with a standard input is started by fork(2) and execve(2), as by
    /// `std::process::Command` with `pre_exec`, and not by posix_spawn(3). This takes longer, in
    /// proportion to the memory of this process.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    /// use std::io::Write;
    /// use std::process::Stdio;
    ///
    /// let count = |()| std::io::stdin().lines().count();
    /// let mut worker = Process::builder().stdin(Stdio::piped()).spawn(count, ())?;
    /// worker.take_stdin().expect("a pipe was requested").write_all(b"one\ntwo\n")?;
    /// assert_eq!(worker.join()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self.has_stdin = true;
        self
    }

    /// Sets the standard output: `Stdio::inherit()` (the default), `Stdio::null()`, a
    /// [`File`](std::fs::File), or `Stdio::piped()`. In the last case, read the output from
    /// [`take_stdout`](Process::take_stdout).
    ///
    /// A pipe holds 64 KiB, and a child that writes to a full pipe blocks. Read it to its end
    /// before you call `join`.
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    /// use std::io::Read;
    /// use std::process::Stdio;
    ///
    /// let prints = |()| println!("hello");
    /// let mut worker = Process::builder().stdout(Stdio::piped()).spawn(prints, ())?;
    /// let mut text = String::new();
    /// worker.take_stdout().expect("a pipe was requested").read_to_string(&mut text)?;
    /// worker.join()?;
    /// assert_eq!(text, "hello\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout);
        self
    }

    /// Sets the standard error, as [`stdout`](Self::stdout) does. Read a pipe from
    /// [`take_stderr`](Process::take_stderr).
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    /// use std::process::Stdio;
    ///
    /// // The message of the panic is not printed.
    /// let fails = |()| -> () { panic!("quiet") };
    /// let worker = Process::builder().stderr(Stdio::null()).spawn(fails, ())?;
    /// assert!(worker.join().is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.command.stderr(stderr);
        self
    }

    /// Lets the child inherit a descriptor under the same number.
    ///
    /// A child inherits no descriptors beside its standard streams and those in its arguments.
    /// Descriptors that this process has open without close-on-exec (opened by a C library, or
    /// inherited from its own parent) are closed in the child before `main`, unless they are kept
    /// with this method. One use is the jobserver of make(1), whose descriptor numbers are in the
    /// environment.
    ///
    /// Descriptors opened by std have close-on-exec set and cannot be inherited. Pass them as
    /// arguments, in a [`Descriptor`](multiproc_pipe::Descriptor).
    ///
    /// # Errors
    ///
    /// `spawn` fails if the descriptor has close-on-exec set.
    pub fn keep_descriptor(mut self, descriptor: impl AsFd) -> Self {
        if let Ok(keep) = &mut self.keep {
            match inheritable(descriptor.as_fd()) {
                Ok(number) => keep.push(number),
                Err(error) => self.keep = Err(error),
            }
        }
        self
    }

    /// Starts the process. See [`Process::spawn`].
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let worker = Process::builder().name("adder").spawn(|(a, b): (u32, u32)| a + b, (1, 2))?;
    /// assert_eq!(worker.join()?, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same as for [`Process::spawn`].
    pub fn spawn<F, A, R, M>(self, f: F, args: A) -> Result<Process<R>, SpawnError>
    where
        F: Function<A, R, M>,
        A: Arguments<F, R, M> + Message,
        R: Message,
    {
        // The type of `f` identifies the function. The value now belongs to the child, so it is not
        // dropped here.
        std::mem::forget(f);
        let function = Callee::new::<F, A, R, M>();
        let receivable = check_type::<A>().and_then(|()| check_type::<R>());
        let args = receivable.and_then(|()| Encoded::new(&args)).map_err(SpawnError::Encode)?;
        spawn::spawn(self, function, args)
    }

    /// Starts the process in a scope, which waits for its end. See [`scope`](crate::scope).
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// multiproc::scope(|s| {
    ///     Process::builder().name("first").spawn_scoped(s, |()| (), ()).map(drop)
    /// })?;
    /// // It has ended here.
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same as for [`Process::spawn`].
    pub fn spawn_scoped<F, A, R, M>(
        self,
        scope: &Scope,
        f: F,
        args: A,
    ) -> Result<Process<R>, SpawnError>
    where
        F: Function<A, R, M>,
        A: Arguments<F, R, M> + Message,
        R: Message,
    {
        let process = self.spawn(f, args)?;
        scope.add(&process);
        Ok(process)
    }
}

/// Returns the number of the descriptor if a program started by this process would inherit it.
fn inheritable(descriptor: BorrowedFd<'_>) -> io::Result<RawFd> {
    let number = descriptor.as_raw_fd();
    if fcntl_getfd(descriptor)?.contains(FdFlags::CLOEXEC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "cannot keep descriptor {number}: it has close-on-exec set; pass it as an argument \
                 (`multiproc::pipe::Descriptor`), or clear FD_CLOEXEC first"
            ),
        ));
    }
    Ok(number)
}
