//! The parent's side of starting a process.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, io, iter};

use multiproc_shm::above_stdio;
use rustix::fs::fstat;
use rustix::io::fcntl_getfd;

use crate::bootstrap::Callee;
use crate::builder::Builder;
use crate::bulk::socket_pair;
use crate::child::{Child, ToChild};
use crate::child_table::active_children;
use crate::current::{Identity, Parent, current_process};
use crate::error::SpawnError;
use crate::process::{Process, Streams};
use crate::protocol::{Encoded, MARKER, Mark, Start};
use crate::thread::{all_signals, set_blocked_signals};
use crate::{executable, failpoint, inherited, init, newborn};

/// This executable, also if its file was replaced or removed.
pub(crate) const THIS_EXECUTABLE: &str = "/proc/self/exe";

/// Starts this executable again, to run the function with `args`.
pub(crate) fn spawn<R>(
    builder: Builder,
    function: Callee,
    mut args: Encoded,
) -> Result<Process<R>, SpawnError> {
    // Checked first, because `init` would not help a caller in a library.
    let mut code = iter::once(function.entry).chain(builder.on_start.iter().copied());
    if !code.all(executable::is_in_executable) {
        return Err(SpawnError::NotInExecutable);
    }
    if !init::is_initialized() {
        return Err(SpawnError::NotInitialized);
    }
    if newborn::is_privileged() {
        return Err(SpawnError::Privileged);
    }
    // Collects children that have ended and have no thread that waits for them.
    drop(active_children());

    let _reserved = reserve_stdio()?;
    let bulk = args.move_bulk()?;
    let parent = Parent::myself()?;
    let (mine, theirs) = socket_pair()?;
    let mine = ToChild::from_socket(mine)?;
    let socket = fstat(&theirs).map_err(io::Error::from)?.st_ino;
    let copy = executable::this_copy().ok_or(SpawnError::NotInExecutable)?;
    let Builder { name, daemon, outlives_parent, ignores_sigint, limits, on_start, .. } = builder;
    let (keep, mut command) = (builder.keep?, builder.command);
    let limits = limits?;
    let inherits = inherited::what_a_child_inherits(&keep)?;
    let descriptor = if builder.has_stdin { theirs.as_raw_fd() } else { 0 };
    let mark = Mark { copy, socket, descriptor, ignores_sigint, inherits, keep };
    let mut arguments = env::args_os();
    if let Some(program) = arguments.next() {
        command.arg0(program);
    }
    // Without `pre_exec`, std uses posix_spawn, which does not copy the memory map of the parent.
    // The child itself closes inherited descriptors, before `main`.
    command.args(arguments).env(MARKER, mark.to_string());
    let inherited = if builder.has_stdin {
        inherited::let_inherit(&mut command, &theirs);
        Some(theirs)
    } else {
        command.stdin(theirs);
        None
    };
    // A signal that arrives before the child ignores it would end the child. It starts with the
    // blocked signals of this thread.
    let signals = ignores_sigint.then(|| set_blocked_signals(&all_signals()));
    let started = command.spawn();
    if let Some(signals) = signals {
        set_blocked_signals(&signals);
    }
    let mut process = started?;
    // They hold the child's end of the socket open.
    drop((command, inherited));
    failpoint::reached("spawn.started");

    let name = name.unwrap_or_else(default_name);
    let identity = Identity { name, daemon, outlives_parent, parent };
    let handles = (|| {
        let stdin = process.stdin.take().map(|it| above_stdio(it.into())).transpose()?;
        let stdout = process.stdout.take().map(|it| above_stdio(it.into())).transpose()?;
        let stderr = process.stderr.take().map(|it| above_stdio(it.into())).transpose()?;
        let child = Child::new(process.id(), &identity, function.path, mine)?;
        let streams = Streams {
            stdin: stdin.map(Into::into),
            stdout: stdout.map(Into::into),
            stderr: stderr.map(Into::into),
        };
        io::Result::Ok((child, streams))
    })();
    let (child, streams) = handles.inspect_err(|_| {
        // Without a descriptor for it, the child cannot be managed.
        let _ = process.kill();
        let _ = process.wait();
    })?;
    let told = child.start(Start { entry: function.entry, on_start, limits, identity, args });
    if let Err(error) = told.and_then(|()| bulk.map_or(Ok(()), |bulk| bulk.finish(&child))) {
        // The child would wait for its function indefinitely.
        let _ = child.kill();
        child.wait();
        return Err(error.into());
    }
    if inherits.any {
        // From here on, a descriptor that this process closes is closed in the child as well.
        child.wait_for_begin();
    }
    failpoint::reached("spawn.told");
    Ok(Process::new(child, streams))
}

/// Occupies the numbers of the standard descriptors that are closed. std connects those of a child
/// one after the other, and would overwrite a pipe that has the number of a later one.
fn reserve_stdio() -> io::Result<Vec<File>> {
    let mut reserved = Vec::new();
    let is_open = |number: &dyn AsFd| fcntl_getfd(number).is_ok();
    if is_open(&io::stdin()) && is_open(&io::stdout()) && is_open(&io::stderr()) {
        return Ok(reserved);
    }
    loop {
        let file = File::open("/dev/null")?;
        if file.as_raw_fd() > 2 {
            return Ok(reserved);
        }
        reserved.push(file);
    }
}

/// Returns `Process-1`, or `Process-1:2` for the second child of that process.
fn default_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let current = current_process();
    if current.is_child() {
        format!("{}:{number}", current.name())
    } else {
        format!("Process-{number}")
    }
}
