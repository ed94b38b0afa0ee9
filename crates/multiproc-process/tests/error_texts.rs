//! The texts of the errors. Other tests assert variants.

use std::error::Error;
use std::io;
use std::time::Duration;

use multiproc_pipe::simplex;
use multiproc_process::{
    ExitStatus, JoinError, JoinTimeoutError, Process, RemoteError, SpawnError,
};
use multiproc_testkit::watchdog;

multiproc_process::enable_in_tests!();

#[test]
fn spawn_error_texts() {
    for (error, text) in [
        (
            SpawnError::NotInitialized,
            "cannot start a process: call `multiproc::init()` first, as the first statement of \
             `main`: `let _runtime = multiproc::init();` (in a test program, put \
             `multiproc::enable_in_tests!();` at its top level)",
        ),
        (
            SpawnError::NotInExecutable,
            "cannot start a process from here: a child runs the executable of this process \
             (/proc/self/exe) again, but the function is in a library that the program has loaded; \
             move the function into the program, or let the library start a separate program with \
             `std::process::Command`",
        ),
        (
            SpawnError::Privileged,
            "cannot start a process from a program with more privileges than the user who started it \
             (set-user-ID, set-group-ID or file capabilities); let a program without these \
             privileges start processes, or grant them by other means (sudo, a service manager, \
             ambient capabilities)",
        ),
        (SpawnError::Io(io::Error::other("no memory")), "cannot start a process: no memory"),
    ] {
        assert_eq!(error.to_string(), text);
        assert_eq!(format!("{error:?}"), text);
        assert_eq!(error.source().is_some(), matches!(error, SpawnError::Io(_)));
    }
}

#[test]
fn spawn_error_has_the_encode_error_as_its_source() {
    // Its `Serialize` always fails.
    let error = Process::spawn(|_: Unencodable| (), Unencodable).unwrap_err();
    let SpawnError::Encode(source) = &error else { panic!("{error}") };
    assert_eq!(error.to_string(), format!("cannot start a process: {source}"));
    assert_eq!(error.source().unwrap().to_string(), source.to_string());
}

struct Unencodable;

impl serde::Serialize for Unencodable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no form"))
    }
}

impl<'de> serde::Deserialize<'de> for Unencodable {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self)
    }
}

#[test]
fn join_error_texts() {
    let panicked = JoinError::Panicked {
        message: "no ink".to_owned(),
        location: "src/main.rs:7:9".to_owned(),
        backtrace: None,
    };
    for (error, text) in [
        (panicked, "the process panicked at src/main.rs:7:9: no ink"),
        (JoinError::Exited(0), "the process exited with code 0 before its function returned"),
        (JoinError::Exited(3), "the process exited with code 3"),
        (JoinError::Signaled(9, false), "the process was killed by SIGKILL (9)"),
        (JoinError::Signaled(11, true), "the process was killed by SIGSEGV (11), core dumped"),
        (JoinError::Signaled(40, false), "the process was killed by signal (40)"),
        (
            JoinError::ArgumentsLost("why".to_owned()),
            "the function of the process was not called: why",
        ),
        (JoinError::Failed(RemoteError::from("no ink")), "no ink"),
        (JoinError::ResultLost("why".to_owned()), "the result of the process was lost: why"),
        (
            JoinError::Unknown,
            "the process ended without a result, and other code in this process collected its exit \
             status (by a wait for any child, or because SIGCHLD is ignored)",
        ),
    ] {
        assert_eq!(error.to_string(), text);
        assert_eq!(format!("{error:?}"), text);
        let error = JoinTimeoutError::<()>::Failed(error);
        assert_eq!(error.to_string(), text);
        assert_eq!(format!("{error:?}"), text);
    }
}

#[test]
fn join_timeout_error_text() {
    let _dog = watchdog();
    let (end, _keep_alive) = simplex::<()>().unwrap();
    let wait = |end: multiproc_pipe::Receiver<()>| drop(end.recv());
    let worker = Process::builder().name("worker").spawn(wait, end).unwrap();
    let pid = worker.pid();
    let error = worker.join_timeout(Duration::ZERO).unwrap_err();
    let text = format!("worker (pid {pid}) has not ended before the timeout");
    assert_eq!(error.to_string(), text);
    let worker = error.into_process().unwrap();
    worker.kill().unwrap();
    worker.wait();
}

#[test]
fn exit_status_texts() {
    for (status, text) in [
        (ExitStatus::Exited(0), "exited with code 0"),
        (ExitStatus::Signaled { signal: 15, core_dumped: false }, "killed by SIGTERM (15)"),
        (
            ExitStatus::Signaled { signal: 6, core_dumped: true },
            "killed by SIGABRT (6), core dumped",
        ),
        (ExitStatus::Unknown, "ended, and other code collected its exit status"),
    ] {
        assert_eq!(status.to_string(), text);
    }
}
