//! The child's side: from `init` to the end of the process.
//!
//! The function comes as its distance from a static of this crate: parent and child run the same
//! file (`/proc/self/exe`), which the loader moves as a whole.
//!
//! Opens `unsafe` to make a function of a distance, and a value of a type without bytes.
#![allow(unsafe_code)]

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{panic, process, ptr, slice, thread};

use multiproc_pipe::{Connection, RecvError, SendError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, getpid, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::current::{Identity, become_child};
use crate::init::INITIALIZED;
use crate::protocol::{Encoded, Outcome, Panic, Start};
use crate::{children, fault, init};

/// How long a daemon whose parent died may take to end by SIGTERM.
const GRACE: Duration = Duration::from_millis(500);

/// The exit code after a panic, as Rust has it.
const PANICKED: i32 = 101;

/// The exit code of a child that must not run its function.
pub(crate) const UNFIT: i32 = 102;

/// Runs a function of types that are known here alone; see [`entry`].
type Entry = fn(Encoded) -> Outcome;

/// The executable of this process, as the loader has it.
struct Executable {
    /// How far the loader has moved it.
    base: usize,
    segments: Vec<Range<usize>>,
    /// Whether the kernel was asked to run this file, and not the loader with this file as its
    /// argument.
    is_run_by_kernel: bool,
}

impl Executable {
    fn find() -> Self {
        extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, found: *mut c_void) -> c_int {
            // SAFETY: the loader passes a valid one, which lives as long as this call.
            let info = unsafe { &*info };
            // SAFETY: the loader passes on the pointer from below, and nothing else uses its target.
            let found = unsafe { &mut *found.cast::<Executable>() };
            // SAFETY: the program headers of a loaded object stay in memory with it.
            let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
            // They have the size of an address, in a type of their own.
            let size = |number| usize::try_from(number).unwrap_or(0);
            found.base = size(info.dlpi_addr);
            let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
            found.segments.extend(loaded.map(|header| {
                let start = found.base.wrapping_add(size(header.p_vaddr));
                start..start.wrapping_add(size(header.p_memsz))
            }));
            // The kernel loads the loader that the executable names (PT_INTERP), and reports where
            // (AT_BASE), unless it was told to run the loader.
            let wants_loader = headers.iter().any(|header| header.p_type == libc::PT_INTERP);
            // SAFETY: it looks up a number that the kernel gave to this program at its start.
            let has_loader = unsafe { libc::getauxval(libc::AT_BASE) } != 0;
            found.is_run_by_kernel = wants_loader == has_loader;
            1 // ends the search: the first object is the executable
        }

        let mut found = Self { base: 0, segments: Vec::new(), is_run_by_kernel: false };
        // SAFETY: `look` has the type that is called, and takes the pointer for what it is.
        unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
        found
    }

    fn contains(&self, address: usize) -> bool {
        self.segments.iter().any(|segment| segment.contains(&address))
    }
}

/// Whether `entry`, from [`entry_of`], is in `/proc/self/exe`: not in a library that was loaded, and
/// not in a program that was loaded by running the loader itself.
pub(crate) fn is_in_executable(entry: usize) -> bool {
    let executable = Executable::find();
    let addresses = [anchor(), anchor().wrapping_add(entry)];
    executable.is_run_by_kernel && addresses.iter().all(|&it| executable.contains(it))
}

/// What it is that is not in `/proc/self/exe`, and what to do about it.
pub(crate) fn what_is_outside() -> &'static str {
    let executable = Executable::find();
    if !executable.contains(anchor()) {
        "and multiproc itself is in a library that the program has loaded; link multiproc, and the \
         function, into the program, or let the library start a program of its own by \
         `std::process::Command`"
    } else if !executable.is_run_by_kernel {
        "which is the loader here, as the program was started by it (`ld.so PROGRAM`); start the \
         program by its own name"
    } else {
        "and the function is in a library that the program has loaded; move the function into the \
         program, or let the library start a program of its own by `std::process::Command`"
    }
}

/// Identifies this copy of the library among all those in the executable, in every process that runs
/// it. A program may contain several: two versions, which two of its dependencies ask for. `None` if
/// this copy is in a library that the program loads.
pub(crate) fn this_copy() -> Option<usize> {
    let executable = Executable::find();
    executable.contains(anchor()).then(|| anchor().wrapping_sub(executable.base))
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
    (entry as *const ()).expose_provenance().wrapping_sub(anchor())
}

/// The address that functions are measured from. A static has one address, where a function may have
/// several; and one that is written is not merged with that of another copy of this library.
fn anchor() -> usize {
    (&raw const INITIALIZED).addr()
}

fn entry<F, A, R>(args: Encoded) -> Outcome
where
    F: FnOnce(A) -> R + 'static,
    A: DeserializeOwned,
    R: Serialize,
{
    // Unwind safe: nothing that the function has touched is used afterwards.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        fault::reached("child.decoding");
        let args = match args.decode::<A>() {
            Ok(args) => args,
            Err(reason) => return not_received::<A>(&reason),
        };
        // SAFETY: `entry_of` was compiled for the same `F`, and checked that it has no bytes, so any
        // address is one of a value. The parent had such a value, and gave it up for this one.
        let function: F = unsafe { ptr::NonNull::dangling().read() };
        fault::reached("child.running");
        Outcome::returned(&function(args))
    }));
    outcome.unwrap_or_else(|payload| {
        let panic = panic_of(&*payload);
        // Dropping it could panic once more.
        std::mem::forget(payload);
        Outcome::Panicked(panic)
    })
}

/// The outcome of arguments that could not be decoded. A panic in a `Deserialize` may have been caught
/// further down; it is a panic all the same.
fn not_received<A>(reason: &str) -> Outcome {
    match LAST_PANIC.take() {
        Some((message, location, backtrace)) if reason.ends_with(&message) => {
            Outcome::Panicked(Panic::new(message, location, &backtrace))
        }
        _ => Outcome::arguments_lost::<A>(reason),
    }
}

/// The connection to the parent. `None` tells that the child has closed what it inherited.
pub(crate) type ToParent = Connection<Option<Outcome>, Start>;

/// Does what the parent asks for, and ends the process.
pub(crate) fn run(connection: ToParent) -> ! {
    fault::reached("child.connected");
    let Start { entry, identity, args } = match connection.recv() {
        Ok(start) => start,
        // The parent died, or gave up, before it had said what to do.
        Err(RecvError::Disconnected) => process::exit(PANICKED),
        Err(error) => {
            eprintln!("multiproc: a child process could not be told what to do: {error}");
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
    fault::reached("child.told");

    // Code that the loader has mapped, as what dlsym(3) returns: nothing in this program has made a
    // pointer to it, and so nothing else could know its provenance.
    let code = ptr::with_exposed_provenance::<()>(anchor().wrapping_add(entry));
    // SAFETY: the parent measured this distance from `anchor()` to an `Entry` in the same executable
    // (`entry_of`), and the socket is the one it made for this process (`Newborn::look`).
    let entry: Entry = unsafe { std::mem::transmute::<*const (), Entry>(code) };
    let outcome = entry(args);

    let code = if matches!(outcome, Outcome::Panicked(_)) { PANICKED } else { 0 };
    fault::reached("child.returned");
    // What was printed comes before the parent learns that it is done.
    let _ = io::stdout().flush();
    tell(outcome);
    fault::reached("child.sent");
    children::finish();
    process::exit(code)
}

/// The connection to the parent, until it was told what became of the function; and the process whose
/// parent that is. (A copy of this process, made by fork(2) in the function, has another one.)
static PARENT: Mutex<Option<(Pid, ToParent)>> = Mutex::new(None);

/// Tells the parent what became of the function. If it does not want to know, that is no reason to
/// fail.
fn tell(outcome: Outcome) {
    // Whoever has the lock is telling already. (To wait for it could be to wait for oneself: the
    // hook of panics comes here, too.)
    let Ok(mut parent) = PARENT.try_lock() else { return };
    let Some((_, connection)) = parent.as_ref().filter(|(pid, _)| *pid == getpid()) else { return };
    let failed = match connection.send(Some(outcome)) {
        // Without descriptors for the handles in it, say.
        Err(SendError::Encode(_, error)) => Some(error.reason().to_owned()),
        Err(SendError::Io(_, error)) => Some(error.to_string()),
        _ => None,
    };
    if let Some(reason) = failed {
        let _ = connection.send(Some(Outcome::ResultLost(reason)));
    }
    *parent = None;
}

/// Ends this process when its parent has ended.
fn watch_parent(connection: &ToParent, identity: &'static Identity) -> io::Result<()> {
    let lifeline = connection.as_fd().try_clone_to_owned()?;
    init::start_thread("multiproc-watch", move || end_with_parent(&lifeline, identity))
}

fn end_with_parent(lifeline: &OwnedFd, identity: &Identity) {
    let mut ends = [
        // Hung up: the parent has ended, or runs another program now. What there is to be read is
        // not for this thread.
        PollFd::new(lifeline, PollFlags::RDHUP),
        // The parent has ended, and somebody that it forked still holds its end of the lifeline.
        PollFd::new(&identity.parent.pidfd, PollFlags::IN),
    ];
    while poll(&mut ends, None).is_err() {}
    let _ = kill_process(getpid(), Signal::TERM);
    thread::sleep(GRACE);
    let _ = kill_process(getpid(), Signal::KILL);
}

thread_local! {
    /// The last panic of this thread.
    static LAST_PANIC: RefCell<Option<(String, String, Backtrace)>> = const { RefCell::new(None) };
}

/// Keeps each panic for the parent, and reports it on standard error as usual, after the name of the
/// process.
fn keep_panics(name: &'static str) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let last = (message_of(info.payload()), location, Backtrace::capture());
        let is_fatal = is_fatal(&last.0);
        // A thread that is ending has none any more.
        let _ = LAST_PANIC.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            // What is fatal about it is not the reason.
            if !is_fatal || kept.is_none() {
                *kept = Some(last);
            }
        });
        // Not `eprintln`, which panics if nobody reads.
        let _ = writeln!(io::stderr(), "process '{name}' ({}):", process::id());
        usual(info);
        // Nobody will catch it, so this is the end.
        if (is_fatal || cfg!(panic = "abort"))
            && let Ok(Some((message, location, backtrace))) = LAST_PANIC.try_with(RefCell::take)
        {
            tell(Outcome::Panicked(Panic::new(message, location, &backtrace)));
        }
    }));
}

/// Whether std says by this message that a panic ends the process, although the program is built to
/// unwind: it would have to unwind where that cannot be. (Should it find other words, the parent
/// learns the signal alone.)
fn is_fatal(message: &str) -> bool {
    ["panic in a function that cannot unwind", "panic in a destructor during cleanup"]
        .contains(&message)
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic with a payload that is no text".to_owned())
}

/// What is known about a panic that was caught: the hook saw more of it, unless the function has set
/// another hook.
fn panic_of(payload: &(dyn Any + Send)) -> Panic {
    let message = message_of(payload);
    match LAST_PANIC.take() {
        Some((last, location, backtrace)) if last == message => {
            Panic::new(message, location, &backtrace)
        }
        _ => Panic { message, location: "an unknown place".to_owned(), backtrace: None },
    }
}
