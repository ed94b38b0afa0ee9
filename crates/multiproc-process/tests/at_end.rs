//! Processes that are started at the very end of a thread or of a process, or that end there.

// Exit handlers.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::process::Stdio;
use std::sync::{Mutex, OnceLock};
use std::thread;

use multiproc_pipe::{Descriptor, Sender, simplex};
use multiproc_process::{JoinError, Process};
use multiproc_testkit::watchdog;
use rustix::process::{Signal, getpid, kill_process};

multiproc_process::enable_in_tests!();

/// Starts a process with arguments and a result of every kind, and returns its result.
fn start() -> u32 {
    let work = |(number, file, large): (u32, Descriptor, multiproc_pipe::Bytes)| {
        drop(std::fs::File::from(file));
        assert_eq!(large.0.len(), 1_000_000);
        (number + 1, large)
    };
    let file = Descriptor::from(std::fs::File::open("/dev/null").unwrap());
    let large = multiproc_pipe::Bytes(vec![1; 1_000_000]);
    let builder = Process::builder().name("late").stderr(Stdio::null());
    let child = builder.spawn(work, (1, file, large)).unwrap();
    // And one whose handle is dropped while it runs.
    let (end, _wait) = simplex::<()>().unwrap();
    drop(Process::spawn(|end: multiproc_pipe::Receiver<()>| drop(end.recv()), end).unwrap());
    child.join().unwrap().0
}

/// Sends the result of `start` when it is dropped.
struct Late(Sender<u32>);

impl Drop for Late {
    fn drop(&mut self) {
        self.0.send(start()).unwrap();
    }
}

thread_local! {
    static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
}

/// The order in which thread-locals are destroyed depends on whether this one was used before or
/// after those of the library.
#[test]
fn thread_local_destructor_can_start_a_process() {
    let _dog = watchdog();
    for is_first in [true, false] {
        let (results, send) = simplex().unwrap();
        let thread = thread::spawn(move || {
            if !is_first {
                start();
            }
            LATE.with_borrow_mut(|late| *late = Some(Late(send)));
            if is_first {
                start();
            }
        });
        thread.join().unwrap();
        assert_eq!(results.recv().unwrap(), 2, "{is_first}");
    }
}

static RESULTS: OnceLock<Mutex<Sender<u32>>> = OnceLock::new();

extern "C" fn starts() {
    RESULTS.get().unwrap().lock().unwrap().send(start()).unwrap();
}

#[test]
fn exit_handler_can_start_a_process() {
    let _dog = watchdog();
    let (results, send) = simplex().unwrap();
    let register = |send: Sender<u32>| {
        start();
        assert!(RESULTS.set(Mutex::new(send)).is_ok());
        // SAFETY: the handler may be called at any time.
        assert_eq!(unsafe { libc::atexit(starts) }, 0);
    };
    let child = Process::spawn(register, send).unwrap();
    assert_eq!(results.recv().unwrap(), 2);
    assert_eq!(child.join(), Ok(()));
}

/// A copy of a child, made by a bare fork(2) in its function, is not the child.
#[test]
fn forked_copy_of_a_child_sends_no_result() {
    let _dog = watchdog();
    for panics in [false, true] {
        let work = |panics: bool| {
            // SAFETY: the copy only uses what its single thread has.
            let copy = unsafe { libc::fork() };
            if copy == 0 {
                assert!(!panics, "in the copy");
                return 1;
            }
            // SAFETY: it has no preconditions.
            assert_eq!(unsafe { libc::waitpid(copy, std::ptr::null_mut(), 0) }, copy);
            2
        };
        assert_eq!(Process::spawn(work, panics).unwrap().join(), Ok(2), "panics: {panics}");
    }
}

extern "C" fn aborts() {
    std::process::abort();
}

extern "C" fn is_killed() {
    kill_process(getpid(), Signal::KILL).unwrap();
}

extern "C" fn exits() {
    // SAFETY: it has no preconditions.
    unsafe { libc::_exit(7) }
}

/// A failure after the result was sent is not hidden by the result.
#[test]
fn failure_after_the_result_is_reported_by_join() {
    let _dog = watchdog();
    let join = |which| {
        let end_by = |which: u32| -> String {
            let handlers: [extern "C" fn(); 3] = [aborts, is_killed, exits];
            // SAFETY: the handler may be called at any time.
            assert_eq!(unsafe { libc::atexit(handlers[which as usize]) }, 0);
            "a result".to_owned()
        };
        Process::spawn(end_by, which).unwrap().join()
    };
    assert!(matches!(join(0), Err(JoinError::Signaled(6, _))));
    assert_eq!(join(1), Err(JoinError::Signaled(9, false)));
    assert_eq!(join(2), Err(JoinError::Exited(7)));
}
