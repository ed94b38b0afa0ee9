//! The child's side: from `init` to the end of the process.
//!
//! The function is sent as its distance from a static of this crate. Parent and child run the same
//! file (`/proc/self/exe`), which the loader relocates as a whole.
//!
//! Unsafe code: turning a distance into a function, and creating a value of a zero-sized type.
#![allow(unsafe_code)]

use std::any::{Any, type_name};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
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
use crate::limits::Limit;
use crate::on_start::StartResult;
use crate::panic_report::{keep_panics, not_received, panic_of};
use crate::parent_watch::watch_parent;
use crate::protocol::{Encoded, Outcome, Start};
use crate::{failpoint, finish};

/// The exit code of Rust programs after a panic.
const PANICKED: i32 = 101;

/// The exit code of a child that cannot run its function.
pub(crate) const UNFIT: i32 = 102;

/// Runs a function whose types are known only to [`entry`].
type Entry = fn(Encoded) -> Outcome;

/// A function in a form that a parent can send and [`run`] can call in the child.
#[derive(Clone, Copy)]
pub(crate) struct Callee {
    /// The distance of an [`Entry`] from [`anchor`].
    pub(crate) entry: usize,
    /// The path of the function, for messages.
    pub(crate) path: &'static str,
}

impl Callee {
    pub(crate) fn new<F, A, R, M>() -> Self
    where
        F: Function<A, R, M>,
        A: DeserializeOwned,
        R: Serialize,
    {
        const {
            assert!(
                size_of::<F>() == 0,
                "Process::spawn takes a function or a closure that captures nothing: it runs in \
                 another process, where captured values do not exist. Pass them as arguments: \
                 Process::spawn(|value| ..., value)"
            );
        }
        let entry: Entry = entry::<F, A, R, M>;
        let entry = (entry as *const ()).expose_provenance().wrapping_sub(anchor());
        Self { entry, path: type_name::<F>() }
    }
}

/// Runs an initialiser whose type is known only to [`initialise`]. Returns an outcome if the
/// function of the process must not be called.
type Initialiser = fn() -> Option<Outcome>;

/// Returns the distance of an [`Initialiser`] from [`anchor`].
pub(crate) fn initialiser<F, T>() -> usize
where
    F: FnOnce() -> T + 'static,
    T: StartResult,
{
    const {
        assert!(
            size_of::<F>() == 0,
            "Builder::on_start takes a function or a closure that captures nothing: it runs in \
             another process, where captured values do not exist. Set environment variables, or \
             pass the values to the function of the process"
        );
    }
    let initialiser: Initialiser = initialise::<F, T>;
    (initialiser as *const ()).expose_provenance().wrapping_sub(anchor())
}

fn initialise<F, T>() -> Option<Outcome>
where
    F: FnOnce() -> T + 'static,
    T: StartResult,
{
    // Unwind safe: nothing that the function has touched is used afterwards.
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `initialiser` was compiled for the same `F` and asserts that its size is 0, so
        // any aligned address is valid. The parent had such a value and gave it up for this one.
        let function: F = unsafe { ptr::NonNull::dangling().read() };
        function().into_result()
    }));
    match result {
        Ok(result) => result.err().map(Outcome::NotStarted),
        Err(payload) => Some(panicked(payload)),
    }
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
        // SAFETY: `Callee::new` was compiled for the same `F` and asserts that its size is 0, so any
        // aligned address is valid. The parent had such a value and gave it up for this one.
        let function: F = unsafe { ptr::NonNull::dangling().read() };
        failpoint::reached("child.running");
        Outcome::returned(&function.call(args))
    }));
    outcome.unwrap_or_else(panicked)
}

fn panicked(payload: Box<dyn Any + Send>) -> Outcome {
    let panic = panic_of(&*payload);
    // Dropping the payload could panic again.
    std::mem::forget(payload);
    Outcome::Panicked(panic)
}

/// The connection to the parent. `None` reports that the inherited descriptors are closed.
pub(crate) type ToParent = Connection<Option<Outcome>, Start>;

/// Runs the function that the parent sends, and exits the process.
pub(crate) fn run(connection: ToParent) -> ! {
    failpoint::reached("child.connected");
    let Start { entry, on_start, limits, identity, args } = match connection.recv() {
        Ok(start) => start,
        // The parent has died or given up before it sent the function.
        Err(RecvError::Disconnected) => process::exit(PANICKED),
        Err(error) => {
            eprintln!("multiproc: a child process could not receive its function: {error}");
            process::exit(PANICKED);
        }
    };
    let identity = become_child(identity);
    // SAFETY: the connection is stored in `PARENT`, where it stays open until this process ends.
    let lifeline = unsafe { BorrowedFd::borrow_raw(connection.as_fd().as_raw_fd()) };
    *PARENT.lock().unwrap_or_else(PoisonError::into_inner) =
        Some(Report { by: getpid(), connection, is_sent: false });
    if !identity.outlives_parent
        && let Err(error) = watch_parent(lifeline, identity)
    {
        eprintln!("multiproc: a child process cannot watch its parent: {error}");
        process::exit(PANICKED);
    }
    keep_panics(&identity.name);
    failpoint::reached("child.told");

    // SAFETY: the parent measured this distance from `anchor()` to an `Entry` in the same
    // executable (`Callee::new`), and the socket is the one it created for this process
    // (`Newborn::detect`).
    let entry = unsafe { std::mem::transmute::<*const (), Entry>(code_at(entry)) };
    let initialise = |distance| {
        // SAFETY: as above, to an `Initialiser` (`initialiser`).
        let run = unsafe { std::mem::transmute::<*const (), Initialiser>(code_at(distance)) };
        run()
    };
    // The limits are set after the watch has started its thread, which they might not permit.
    let unfit = match limits.into_iter().try_for_each(Limit::set) {
        Err(reason) => Some(Outcome::ArgumentsLost(reason)),
        Ok(()) => on_start.into_iter().find_map(initialise),
    };
    let is_fit = unfit.is_none();
    let outcome = unfit.unwrap_or_else(|| entry(args));
    let code = match outcome {
        Outcome::Panicked(_) => PANICKED,
        _ if is_fit => 0,
        _ => UNFIT,
    };
    failpoint::reached("child.returned");
    // Output must be written before the parent learns that the function has returned.
    let _ = io::stdout().flush();
    tell(outcome);
    failpoint::reached("child.sent");
    if code == PANICKED {
        finish::terminate_children();
    } else {
        finish::wait_for_children();
    }
    process::exit(code)
}

/// Returns code that the loader has mapped, as dlsym(3) would return it. No pointer of this program
/// has its provenance.
fn code_at(distance: usize) -> *const () {
    ptr::with_exposed_provenance(anchor().wrapping_add(distance))
}

static PARENT: Mutex<Option<Report>> = Mutex::new(None);

/// The connection to the parent, and whether the outcome was sent.
struct Report {
    /// The process that the connection belongs to. A copy of this process, made by fork(2) in the
    /// function, must not use it.
    by: Pid,
    /// It stays open, because the watch polls its descriptor.
    connection: ToParent,
    is_sent: bool,
}

/// Sends the outcome to the parent. A parent that does not receive it is not an error.
pub(crate) fn tell(outcome: Outcome) {
    // The holder of the lock is sending already. Waiting for it could deadlock, because the panic
    // hook calls this as well.
    let Ok(mut parent) = PARENT.try_lock() else { return };
    let Some(report) = parent.as_mut().filter(|report| report.by == getpid() && !report.is_sent)
    else {
        return;
    };
    report.is_sent = true;
    let failed = match report.connection.send(Some(outcome)) {
        // For example, without descriptors for the handles in it.
        Err(SendError::Encode(_, error)) => Some(error.reason().to_owned()),
        Err(SendError::Io(_, error)) => Some(error.to_string()),
        _ => None,
    };
    if let Some(reason) = failed {
        let _ = report.connection.send(Some(Outcome::ResultLost(reason)));
    }
}
