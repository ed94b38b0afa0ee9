//! The parent's side of a start.

use std::env;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::fstat;

use crate::children::{Child, active_children};
use crate::error::SpawnError;
use crate::protocol::{Encoded, MARKER, Outcome, Start};
use crate::{bootstrap, init};

/// This executable, also if its file was replaced or removed meanwhile.
const THIS_EXECUTABLE: &str = "/proc/self/exe";

/// Starts this executable anew, to run `entry` with `args`.
pub(crate) fn spawn(
    name: Option<String>,
    daemon: bool,
    entry: usize,
    args: Encoded,
) -> Result<Child, SpawnError> {
    if !init::is_initialized() {
        return Err(SpawnError::NotInitialized);
    }
    // Collects those that have ended, so that nobody has to ask for it.
    drop(active_children());

    let (mine, theirs) = multiproc_pipe::duplex::<Start, Outcome>()?;
    let theirs = OwnedFd::from(theirs);
    let mark = fstat(&theirs).map_err(std::io::Error::from)?.st_ino.to_string();
    let mut arguments = env::args_os();
    let mut command = Command::new(THIS_EXECUTABLE);
    if let Some(program) = arguments.next() {
        command.arg0(program);
    }
    // No `pre_exec` and no other directory: so std takes posix_spawn, which does not copy the
    // parent's memory map. The one descriptor that the child gets is its standard input.
    let mut process = command.args(arguments).env(MARKER, mark).stdin(theirs).spawn()?;
    // Else it would hold the child's end of the socket open.
    drop(command);

    let name = name.unwrap_or_else(default_name);
    let child = Child::new(process.id(), name.clone(), daemon, mine).inspect_err(|_| {
        // Without a descriptor left for it, it cannot be looked after.
        let _ = process.kill();
        let _ = process.wait();
    })?;
    if let Err(error) = child.start(Start { entry, name, daemon, args }) {
        // It would wait for ever for something to do.
        let _ = child.kill();
        child.wait();
        return Err(error.into());
    }
    Ok(child)
}

/// `Process-1`, and `Process-1:2` for the second child of that one.
fn default_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    match bootstrap::name() {
        Some(parent) => format!("{parent}:{number}"),
        None => format!("Process-{number}"),
    }
}
