//! The settings of a process that is to be started.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::process::{Command, Stdio};

use multiproc_message::{Message, check_type};
use rustix::io::{FdFlags, fcntl_getfd};

use crate::error::SpawnError;
use crate::function::{Arguments, Function};
use crate::process::Process;
use crate::protocol::Encoded;
use crate::scope::Scope;
use crate::{bootstrap, spawn};

/// Configures and starts a process. Created by [`Process::builder`].
///
/// Settings that are not changed are inherited from this process: environment, working directory,
/// standard output and standard error. Standard input is always `/dev/null`.
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
    /// The numbers of the descriptors that the child inherits, or the error of
    /// [`Builder::keep_descriptor`].
    pub(crate) keep: io::Result<Vec<RawFd>>,
    /// This executable, with the settings that std supports.
    pub(crate) command: Command,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let command = Command::new(spawn::THIS_EXECUTABLE);
        Self { name: None, daemon: false, keep: Ok(Vec::new()), command }
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

    /// Sets whether the process is a daemon. The default is `false`. A daemon ends with its parent:
    /// it is terminated at the end of the parent's `main` instead of waited for, and it ends within
    /// one second after the parent was killed.
    ///
    /// When its parent has died, a daemon receives SIGTERM, and SIGKILL half a second later if it
    /// is still alive. A daemon may have children. Those that are daemons themselves end after it
    /// in the same way.
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
        let entry = bootstrap::entry_of::<F, A, R, M>();
        let receivable = check_type::<A>().and_then(|()| check_type::<R>());
        let args = receivable.and_then(|()| Encoded::new(&args)).map_err(SpawnError::Encode)?;
        spawn::spawn(self, entry, args)
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
