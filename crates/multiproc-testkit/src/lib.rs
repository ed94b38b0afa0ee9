//! Helpers for the tests of the workspace: a watchdog, a census of resources, death at failpoints,
//! death of each process of a program at random.
//!
//! A test with several processes is one `#[test]`. Its children are processes of the same test
//! program, started by `multiproc` itself. Processes synchronise by messages, not by sleeps.

mod kill_test;
mod seccomp;

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use multiproc_process::{Process, active_children};
use multiproc_shm::RECHECK;
use rustix::process::{Pid, Signal, kill_process};

pub use kill_test::KillTest;
pub use seccomp::refuse_call;

/// The time after which the watchdog ends the test program and its children. A hang is a failure
/// and must not look like a slow machine.
const TOO_LONG: Duration = Duration::from_secs(300);

/// Limits a test to five minutes while it lives.
#[must_use = "dropping it stops the watchdog"]
pub struct Watchdog {
    /// Dropping it stops the watchdog.
    _done: mpsc::Sender<()>,
}

/// Starts a watchdog for the calling test.
///
/// # Panics
///
/// If no thread can be started.
pub fn watchdog() -> Watchdog {
    let (done, is_done) = mpsc::channel();
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let bark = move || {
        if is_done.recv_timeout(TOO_LONG) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("watchdog: {test} hangs, with children {:?}", active_children());
            for child in active_children() {
                let _ = child.kill();
            }
            process::abort();
        }
    };
    thread::Builder::new().name("watchdog".to_owned()).spawn(bark).expect("cannot start a thread");
    Watchdog { _done: done }
}

/// Runs a test in a process of its own, where no other test opens or closes anything: for tests
/// that take a [`Census`] or change the limits of the process.
///
/// # Panics
///
/// If the test panics.
pub fn alone<F: FnOnce(()) + 'static>(test: F) {
    let _dog = watchdog();
    let child = Process::spawn(test, ()).expect("cannot start a process for the test");
    if let Err(error) = child.join() {
        panic!("{error}");
    }
}

/// The resources of a process, to be compared before and after a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// The number of open descriptors.
    pub descriptors: usize,
    /// The number of children, including zombies.
    pub children: usize,
    /// The number of mapped regions of this library.
    pub mappings: usize,
}

impl Census {
    /// Counts the resources of this process.
    ///
    /// # Panics
    ///
    /// If `/proc` cannot be read.
    #[must_use]
    pub fn take() -> Self {
        let read = |path: &str| fs::read_to_string(path).expect("cannot read /proc");
        let entries = |path: &str| fs::read_dir(path).expect("cannot read /proc");
        let children = entries("/proc/self/task")
            .filter_map(Result::ok)
            // A thread may end between the two reads.
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .map(|children| children.split_whitespace().count())
            .sum();
        Self {
            // One of them is the open directory.
            descriptors: entries("/proc/self/fd").count() - 1,
            children,
            mappings: read("/proc/self/maps").matches("memfd:multiproc:").count(),
        }
    }
}

/// Polls `condition` every millisecond until it returns `true`, without a limit: use a
/// [`watchdog`]. For states that no message reports, such as a process that sleeps or a death that
/// the kernel has noticed.
pub fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns `true` if a process exists and is not a zombie.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    // "ID (NAME) STATE …", where the name may contain any characters.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.starts_with(" Z")))
}

/// Calls `condition` for three recheck intervals, in which waiters would notice a death. Returns
/// `true` if it returned `true` each time.
pub fn stays(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + 3 * RECHECK;
    while Instant::now() < end {
        if !condition() {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Returns `true` if all threads of a process sleep in the kernel (on a futex, a pipe or a timer).
#[must_use]
pub fn is_asleep(pid: u32) -> bool {
    are_all_threads(pid, " S")
}

/// Returns `true` if all threads of a process are in this state of proc_pid_stat(5).
fn are_all_threads(pid: u32, state: &str) -> bool {
    let Ok(mut threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.all(|thread| {
        // "ID (NAME) STATE …", where the name may contain any characters.
        thread
            .and_then(|thread| fs::read_to_string(thread.path().join("stat")))
            .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(state)))
    })
}

/// A process that is stopped (SIGSTOP). Dropping this continues it.
#[derive(Debug)]
#[must_use = "the process continues as soon as this is dropped"]
pub struct Stopped(Pid);

impl Stopped {
    /// Stops a process, and waits until all of its threads are stopped.
    ///
    /// # Panics
    ///
    /// Panics if there is no such process.
    pub fn new(pid: u32) -> Self {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(raw, Signal::STOP).expect("the process exists");
        until(|| are_all_threads(pid, " T"));
        Self(raw)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // This fails if the process was killed.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Returns the signals that each thread of this process blocks: its name, a space, and the set as a
/// hexadecimal number whose lowest bit is signal 1.
///
/// # Panics
///
/// If `/proc` cannot be read.
#[must_use]
pub fn blocked_signals() -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").expect("cannot read /proc");
    let statuses =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a status lacks a field").trim().to_owned()
    };
    statuses
        .map(|status| format!("{} {}", field(&status, "Name:"), field(&status, "SigBlk:")))
        .collect()
}

/// Kills this process with SIGKILL when it reaches a failpoint for the `visit`th time.
///
/// # Panics
///
/// If the tests were built without `--cfg multiproc_faults`, since no failpoint would be reached.
pub fn die_at(point: &str, visit: u32) {
    #[cfg(multiproc_faults)]
    multiproc_shm::failpoint::arm(point, visit);
    #[cfg(not(multiproc_faults))]
    panic!("failpoints are not compiled in ({point}, visit {visit}): use `cargo xtask faults`");
}

/// Returns the path of the program of an example of the crate `multiproc`.
///
/// # Panics
///
/// If it was not built: `cargo test` builds the examples, `cargo test --test NAME` alone does not.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    let test = env::current_exe().expect("cannot find the path of the test program");
    // target/debug/deps/TEST is beside target/debug/examples/NAME.
    let path = test.ancestors().nth(2).expect("no target directory").join("examples").join(name);
    assert!(path.exists(), "{} does not exist: run `cargo build --examples` first", path.display());
    path
}

/// Returns the path of the test program `tests/NAME.rs` of the crate that is being tested. If there
/// are several, it is the newest.
///
/// # Panics
///
/// If it was not built: `cargo test` builds all tests, `cargo test --test NAME` only one.
#[must_use]
pub fn test_program(name: &str) -> PathBuf {
    let test = env::current_exe().expect("cannot find the path of the test program");
    let folder = test.parent().expect("the test program is in a directory");
    let files = fs::read_dir(folder).expect("cannot read the directory").flatten();
    // NAME-HASH, beside NAME-HASH.d.
    let programs = files.filter(|file| {
        let file = file.file_name();
        let hash = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('-'));
        hash.is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
    });
    let newest = programs.max_by_key(|file| file.metadata().and_then(|file| file.modified()).ok());
    newest
        .unwrap_or_else(|| panic!("{name} does not exist: run `cargo test --no-run` first"))
        .path()
}
