//! What can be set about a process before it starts.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::process::{Command, Stdio};

use multiproc_message::check_type;
use rustix::io::{FdFlags, fcntl_getfd};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::SpawnError;
use crate::process::Process;
use crate::protocol::Encoded;
use crate::scope::Scope;
use crate::{bootstrap, spawn};

/// Sets up a process. Made by [`Process::builder`].
///
/// What is not set is as in this process: environment, working directory, standard output and
/// standard error. Standard input is `/dev/null`, always.
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
///     .spawn(|who: String| println!("{}, {who}", std::env::var("GREETING").unwrap()), "you".to_owned())?;
/// let mut text = String::new();
/// child.take_stdout().unwrap().read_to_string(&mut text)?;
/// assert_eq!(text, "hello, you\n");
/// child.join()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "it starts nothing until `spawn` is called"]
pub struct Builder {
    pub(crate) name: Option<String>,
    pub(crate) daemon: bool,
    /// The numbers of the descriptors that it inherits; or why it cannot inherit one.
    pub(crate) keep: io::Result<Vec<RawFd>>,
    /// This executable, and what is set about it.
    pub(crate) command: Command,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let command = Command::new(spawn::THIS_EXECUTABLE);
        Self { name: None, daemon: false, keep: Ok(Vec::new()), command }
    }

    /// Its name, for people: in [`active_children`](crate::active_children), in its panic messages,
    /// and (the first 15 bytes) in `ps` and `top`. Without one it is `Process-1` and so on, and
    /// `Process-1:1` for the first child of that one.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether it ends with its parent: at the end of `main` it is terminated instead of waited for,
    /// and if the parent dies, however, it ends within a second. Without this it is not.
    ///
    /// A daemon gets SIGTERM, and half a second later SIGKILL, if it is still there. It may have
    /// children of its own: those that are daemons end after it in the same way.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets environment variables.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.command.envs(variables);
        self
    }

    /// Removes an environment variable.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Removes all environment variables, those included that were set here before.
    pub fn env_clear(mut self) -> Self {
        self.command.env_clear();
        self
    }

    /// Its working directory. If it does not exist, `spawn` is an error.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Where its standard output goes: `Stdio::inherit()` (what it is without this), `Stdio::null()`,
    /// a [`File`](std::fs::File), or `Stdio::piped()`: then this process reads it from
    /// [`take_stdout`](Process::take_stdout).
    ///
    /// A pipe holds 64 KiB, and who writes to a full one waits. So read it to its end before `join`.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout);
        self
    }

    /// Where its standard error goes: as [`stdout`](Self::stdout), with
    /// [`take_stderr`](Process::take_stderr).
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.command.stderr(stderr);
        self
    }

    /// Lets it inherit a descriptor, under the same number.
    ///
    /// A child has the descriptors in its arguments and no others. Those that this process has opened
    /// without close-on-exec (a library in C, or whoever started this process) are closed in the child
    /// before `main`, unless they are kept by this. One use is the jobserver of make(1), whose numbers
    /// are in the environment.
    ///
    /// Descriptors that std has opened have close-on-exec set, and nobody inherits them: pass them as
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
        let receivable = check_type::<A>().and_then(|()| check_type::<R>());
        let args = receivable.and_then(|()| Encoded::new(&args)).map_err(SpawnError::Encode)?;
        spawn::spawn(self, entry, args)
    }

    /// Starts the process in a scope, whose end it does not outlive: see [`scope`](crate::scope).
    ///
    /// # Errors
    ///
    /// As [`Process::spawn`].
    pub fn spawn_scoped<F, A, R>(
        self,
        scope: &Scope,
        f: F,
        args: A,
    ) -> Result<Process<R>, SpawnError>
    where
        F: FnOnce(A) -> R + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let process = self.spawn(f, args)?;
        scope.add(&process);
        Ok(process)
    }
}

/// The number of a descriptor that programs inherit which this one starts.
fn inheritable(descriptor: BorrowedFd<'_>) -> io::Result<RawFd> {
    let number = descriptor.as_raw_fd();
    if fcntl_getfd(descriptor)?.contains(FdFlags::CLOEXEC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "expected a descriptor to keep that is open without close-on-exec, got {number}, \
                 which is closed when a program starts; pass it as an argument \
                 (`multiproc::pipe::Descriptor`), or clear FD_CLOEXEC first"
            ),
        ));
    }
    Ok(number)
}
