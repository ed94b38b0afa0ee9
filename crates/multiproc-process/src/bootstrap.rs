//! The child's side: from `init` to the end of the process.
//!
//! The function is sent as its distance from a static of this crate. Parent and child run the same
//! file (`/proc/self/exe`), which the loader relocates as a whole.
//!
//! Unsafe code: turning a distance into a function, and creating a value of a zero-sized type.
#![allow(unsafe_code)]

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::{process, ptr};

use multiproc_pipe::{Connection, RecvError, SendError};
use rustix::process::{Pid, getpid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::current::become_child;
use crate::executable::anchor;
use crate::function::Function;
use crate::panic_report::{keep_panics, not_received, panic_of};
use crate::parent_watch::watch_parent;
use crate::protocol::{Encoded, Outcome, Start};
use crate::{child_table, failpoint};

/// The exit code of Rust programs after a panic.
const PANICKED: i32 = 101;

/// The exit code of a child that cannot run its function.
pub(crate) const UNFIT: i32 = 102;

/// Runs a function whose types are known only to [`entry`].
type Entry = fn(Encoded) -> Outcome;

/// Returns the function `F` in a form that a parent can send and [`run`] can call in the child.
pub(crate) fn entry_of<F, A, R, M>() -> usize
where
    F: Function<A, R, M>,
    A: DeserializeOwned,
    R: Serialize,
{
    const {
        assert!(
            size_of::<F>() == 0,
            "Process::spawn takes a function or a closure that captures nothing: it runs in another \
             process, where captured values do not exist. Pass them as arguments: \
             Process::spawn(|value| ..., value)"
        );
    }
    let entry: Entry = entry::<F, A, R, M>;
    (entry as *const ()).expose_provenance().wrapping_sub(anchor())
}

fn entry<F, A, R, M>(args: Encoded) -> Outcome
where
    F: Function<A, R, M>,
    A: DeserializeOwned,
    R: Serialize,
{
    // Unwind safe: nothing that the function has touched is used afterwards.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        failpoint::reached("child.decoding");
        let args = match args.decode::<A>() {
            Ok(args) => args,
            Err(reason) => return not_received::<A>(&reason),
        };
        // SAFETY: `entry_of` was compiled for the same `F` and asserts that its size is 0, so any
        // aligned address is valid. The parent had such a value and gave it up for this one.
        let function: F = unsafe { ptr::NonNull::dangling().read() };
        failpoint::reached("child.running");
        Outcome::returned(&function.call(args))
    }));
    outcome.unwrap_or_else(|payload| {
        let panic = panic_of(&*payload);
        // Dropping the payload could panic again.
        std::mem::forget(payload);
        Outcome::Panicked(panic)
    })
}

/// The connection to the parent. `None` reports that the inherited descriptors are closed.
pub(crate) type ToParent = Connection<Option<Outcome>, Start>;

/// Runs the function that the parent sends, and exits the process.
pub(crate) fn run(connection: ToParent) -> ! {
    failpoint::reached("child.connected");
    let Start { entry, identity, args } = match connection.recv() {
        Ok(start) => start,
        // The parent has died or given up before it sent the function.
        Err(RecvError::Disconnected) => process::exit(PANICKED),
        Err(error) => {
            eprintln!("multiproc: a child process could not receive its function: {error}");
            process::exit(PANICKED);
        }
    };
    let identity = become_child(identity);
    if identity.daemon
        && let Err(error) = watch_parent(&connection, identity)
    {
        eprintln!("multiproc: a daemon process cannot watch its parent: {error}");
        process::exit(PANICKED);
    }
    *PARENT.lock().unwrap_or_else(PoisonError::into_inner) = Some((getpid(), connection));
    keep_panics(&identity.name);
    failpoint::reached("child.told");

    // Code that the loader has mapped, as dlsym(3) would return it. No pointer of this program has
    // its provenance.
    let code = ptr::with_exposed_provenance::<()>(anchor().wrapping_add(entry));
    // SAFETY: the parent measured this distance from `anchor()` to an `Entry` in the same
    // executable (`entry_of`), and the socket is the one it created for this process
    // (`Newborn::detect`).
    let entry: Entry = unsafe { std::mem::transmute::<*const (), Entry>(code) };
    let outcome = entry(args);

    let code = if matches!(outcome, Outcome::Panicked(_)) { PANICKED } else { 0 };
    failpoint::reached("child.returned");
    // Output must be written before the parent learns that the function has returned.
    let _ = io::stdout().flush();
    tell(outcome);
    failpoint::reached("child.sent");
    child_table::finish();
    process::exit(code)
}

/// The connection to the parent, until the outcome was sent, and the process that it belongs to. (A
/// copy of this process, made by fork(2) in the function, must not use it.)
static PARENT: Mutex<Option<(Pid, ToParent)>> = Mutex::new(None);

/// Sends the outcome to the parent. A parent that does not receive it is not an error.
pub(crate) fn tell(outcome: Outcome) {
    // The holder of the lock is sending already. Waiting for it could deadlock, because the panic
    // hook calls this as well.
    let Ok(mut parent) = PARENT.try_lock() else { return };
    let Some((_, connection)) = parent.as_ref().filter(|(pid, _)| *pid == getpid()) else { return };
    let failed = match connection.send(Some(outcome)) {
        // For example, without descriptors for the handles in it.
        Err(SendError::Encode(_, error)) => Some(error.reason().to_owned()),
        Err(SendError::Io(_, error)) => Some(error.to_string()),
        _ => None,
    };
    if let Some(reason) = failed {
        let _ = connection.send(Some(Outcome::ResultLost(reason)));
    }
    *parent = None;
}
