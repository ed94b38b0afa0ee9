//! The child's side: from `init` to the end of the process.
//!
//! The function comes as its distance from a static of this crate: parent and child run the same
//! file (`/proc/self/exe`), which the loader moves as a whole.
//!
//! Opens `unsafe` to make a function of a distance, and a value of a type without bytes.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::Duration;
use std::{panic, process, thread};

use multiproc_pipe::{Connection, RecvError, SendError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpid, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::children;
use crate::protocol::{Encoded, Outcome, Start};

/// How long a daemon whose parent died may take to end by SIGTERM.
pub(crate) const GRACE: Duration = Duration::from_millis(500);

/// The exit code after a panic, as Rust has it.
const PANICKED: i32 = 101;

/// Runs a function of types that are known here alone; see [`entry`].
type Entry = fn(Encoded) -> Outcome;

/// The name of this process, if it is a child.
static NAME: OnceLock<String> = OnceLock::new();

pub(crate) fn name() -> Option<&'static str> {
    NAME.get().map(String::as_str)
}

/// The function `F` in a form that a parent can send: what [`run`] calls in the child.
pub(crate) fn entry_of<F, A, R>() -> usize
where
    F: FnOnce(A) -> R + 'static,
    A: DeserializeOwned,
    R: Serialize,
{
    const {
        assert!(
            size_of::<F>() == 0,
            "Process::spawn takes a function or a closure that captures nothing: it runs in another \
             process, where the captured values are not. Pass them as the argument: \
             Process::spawn(|value| ..., value)"
        );
    }
    let entry: Entry = entry::<F, A, R>;
    (entry as usize).wrapping_sub(anchor())
}

/// What functions are measured from: a static has one address, where a function may have several.
fn anchor() -> usize {
    static ANCHOR: u8 = 0;
    &raw const ANCHOR as usize
}

fn entry<F, A, R>(args: Encoded) -> Outcome
where
    F: FnOnce(A) -> R + 'static,
    A: DeserializeOwned,
    R: Serialize,
{
    let args = match args.decode::<A>() {
        Ok(args) => args,
        Err(error) => return Outcome::arguments_lost::<A>(&error),
    };
    // SAFETY: `entry_of` was compiled for the same `F`, and checked that it has no bytes, so any
    // address is one of a value. The parent had such a value, and gave it up for this one.
    let function: F = unsafe { std::ptr::NonNull::dangling().read() };
    // Unwind safe: nothing that the function has touched is used afterwards.
    match catch_unwind(AssertUnwindSafe(|| Outcome::returned(&function(args)))) {
        Ok(outcome) => outcome,
        Err(_) => {
            let (message, location) = LAST_PANIC.take().unwrap_or_default();
            Outcome::Panicked { message, location }
        }
    }
}

/// Does what the parent asks for, and ends the process.
pub(crate) fn run() -> ! {
    let connection = match take_connection() {
        Ok(connection) => connection,
        Err(error) => {
            eprintln!("multiproc: a child process could not be set up: {error}");
            process::exit(PANICKED);
        }
    };
    let start = match connection.recv() {
        Ok(start) => start,
        // The parent died, or gave up, before it had said what to do.
        Err(RecvError::Disconnected) => process::exit(PANICKED),
        Err(error) => {
            eprintln!("multiproc: a child process could not be told what to do: {error}");
            process::exit(PANICKED);
        }
    };
    NAME.get_or_init(|| start.name);
    if start.daemon {
        watch_parent(&connection);
    }
    keep_panics();

    let address = anchor().wrapping_add(start.entry);
    // SAFETY: the parent measured this distance from `anchor()` to an `Entry` in the same executable
    // (`entry_of`), and the socket is the one it made for this process (`is_marked_child`).
    let entry: Entry = unsafe { std::mem::transmute(address) };
    let outcome = entry(start.args);

    let code = if matches!(outcome, Outcome::Panicked { .. }) { PANICKED } else { 0 };
    // What was printed comes before the parent learns that it is done.
    let _ = io::stdout().flush();
    match connection.send(outcome) {
        // Without descriptors for the handles in it, say.
        Err(SendError::Encode(_, error)) => {
            let _ = connection.send(Outcome::ResultLost(error.reason().to_owned()));
        }
        Err(SendError::Io(_, error)) => {
            let _ = connection.send(Outcome::ResultLost(error.to_string()));
        }
        // If nobody wants to know, that is no reason to fail.
        _ => {}
    }
    children::finish();
    process::exit(code)
}

/// Takes the socket from standard input, and puts `/dev/null` there.
fn take_connection() -> io::Result<Connection<Outcome, Start>> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Connection::from_socket(socket)
}

/// Ends this process when the parent's end of the socket is closed.
fn watch_parent(connection: &Connection<Outcome, Start>) {
    // Without a thread there is no watch; whoever has so few resources has other worries.
    let Ok(lifeline) = connection.as_fd().try_clone_to_owned() else { return };
    let _ = thread::Builder::new()
        .name("multiproc-lifeline".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || end_with_parent(&lifeline));
}

fn end_with_parent(lifeline: &OwnedFd) {
    // Not readable, but hung up: what is there to be read is not for this thread.
    while poll(&mut [PollFd::new(lifeline, PollFlags::RDHUP)], None).is_err() {}
    let _ = kill_process(getpid(), Signal::TERM);
    thread::sleep(GRACE);
    let _ = kill_process(getpid(), Signal::KILL);
}

thread_local! {
    /// Message and location of the last panic of this thread.
    static LAST_PANIC: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Keeps each panic for the parent, and reports it on standard error as usual.
fn keep_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic with a payload that is no text".to_owned());
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        LAST_PANIC.set(Some((message, location)));
        usual(info);
    }));
}
