//! The texts of the errors. Other tests assert variants.

use std::error::Error;
use std::io;

use multiproc_manager::{Diagnosis, ManagerError, ObjectKind};
use multiproc_pipe::Address;
use multiproc_process::{ExitStatus, SpawnError};

#[test]
fn manager_error_texts() {
    let name = || "jobs".to_owned();
    let mismatch = |asked: &str| ManagerError::TypeMismatch {
        name: name(),
        asked: asked.to_owned(),
        is: "u8".to_owned(),
    };
    let capacity =
        |kind, asked, is| ManagerError::CapacityMismatch { name: name(), kind, asked, is };
    for (error, text) in [
        (
            ManagerError::ManagerGone,
            "no manager listens at the address; check the address, or start a manager there \
             (`multiproc manager serve ADDRESS`, or `Manager::builder().address(..).start()`)",
        ),
        (
            ManagerError::NoAnswer,
            "the manager did not answer within 10 s; it may be stopped (SIGSTOP, a debugger): resume \
             it, or start another one",
        ),
        (
            ManagerError::NotAllowed { manager: 1, user: 2 },
            "the manager runs as user 1 and this process as user 2; each side accepts only its own \
             user, and a client also a manager of root, unless it allows the other one \
             (`Manager::builder().allow_user(..)`)",
        ),
        (
            ManagerError::Version { ours: 1, theirs: 9 },
            "the manager uses version 9 of the protocol, and this program version 1; build both with \
             the same version of multiproc",
        ),
        (
            ManagerError::TooManyClients(5),
            "the manager has reached its limit of 5 clients; drop unused handles, or raise the limit \
             (`Manager::builder().max_clients(..)`)",
        ),
        (
            ManagerError::TooManyObjects(5),
            "the manager has reached its limit of 5 objects; remove some, or raise the limit \
             (`Manager::builder().max_objects(..)`)",
        ),
        (
            ManagerError::InvalidName { name: "x".repeat(300), reason: "why".to_owned() },
            "the name \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"… is not valid: why; a name has 1 to \
             255 printable bytes",
        ),
        (
            ManagerError::NoSuchName(name()),
            "the manager has no object named \"jobs\"; `list` returns all names",
        ),
        (
            ManagerError::NoSuchObject {
                name: name(),
                kind: ObjectKind::Queue,
                existing: vec!["a".to_owned(), "b".to_owned()],
                others: 3,
            },
            "the manager has no queue named \"jobs\": those of this kind are \"a\", \"b\" and 3 more; \
             check the name, or create the object first",
        ),
        (
            ManagerError::NoSuchObject {
                name: name(),
                kind: ObjectKind::Atomic,
                existing: vec!["a".to_owned()],
                others: 0,
            },
            "the manager has no atomic number named \"jobs\": those of this kind are \"a\"; check the \
             name, or create the object first",
        ),
        (
            ManagerError::NoSuchObject {
                name: name(),
                kind: ObjectKind::Mutex,
                existing: vec![],
                others: 0,
            },
            "the manager has no mutex named \"jobs\": it has no object of this kind; check the name, \
             or create the object first",
        ),
        (
            ManagerError::KindMismatch {
                name: name(),
                asked: ObjectKind::Lock,
                is: ObjectKind::JoinableQueue,
            },
            "expected \"jobs\" to be a lock, but it is a joinable queue; use another name, or remove \
             this one first",
        ),
        (
            mismatch("String"),
            "expected the items of \"jobs\" to be `String`, but they are `u8`; use another name, or \
             remove this one first",
        ),
        (
            mismatch("u8"),
            "expected the items of \"jobs\" to be `u8`, but their type of the same name has other \
             fields or variants; build both programs from the same source",
        ),
        (
            capacity(ObjectKind::Queue, Some(3), None),
            "expected the queue \"jobs\" to have the capacity 3, but it has no capacity; request the \
             same, or use another name",
        ),
        (
            capacity(ObjectKind::Semaphore, Some(2), Some(1)),
            "expected the semaphore \"jobs\" to have the initial value 2, but it has the initial value \
             1; request the same, or use another name",
        ),
        (
            capacity(ObjectKind::BoundedSemaphore, Some(2), Some(1)),
            "expected the bounded semaphore \"jobs\" to have 2 permits, but it has 1 permits; request \
             the same, or use another name",
        ),
        (
            capacity(ObjectKind::Barrier, Some(2), Some(1)),
            "expected the barrier \"jobs\" to have 2 parties, but it has 1 parties; request the same, \
             or use another name",
        ),
        (
            capacity(ObjectKind::Shared, Some(2), Some(1)),
            "expected the shared table \"jobs\" to have 2 values, but it has 1 values; request the \
             same, or use another name",
        ),
        (
            ManagerError::MaxBytesMismatch {
                name: name(),
                kind: ObjectKind::Queue,
                asked: 5,
                is: 6,
            },
            "expected the queue \"jobs\" to have max_bytes 5, but it has max_bytes 6; request the same, \
             or use another name",
        ),
        (
            ManagerError::MaxAttemptsMismatch { name: name(), asked: 5, is: 6 },
            "expected the joinable queue \"jobs\" to have max_attempts 5, but it has max_attempts 6; \
             request the same, or use another name",
        ),
        (
            ManagerError::Failed { name: Some(name()), reason: "why".to_owned() },
            "cannot open \"jobs\": why",
        ),
        (
            ManagerError::Failed { name: None, reason: "why".to_owned() },
            "cannot create the object: why",
        ),
        (
            ManagerError::AddressInUse(Address::from("@jobs")),
            "another process already listens at @jobs; connect to it, or choose another address",
        ),
        (
            ManagerError::Died(ExitStatus::Exited(1)),
            "the process of the manager ended before it could serve: exited with code 1",
        ),
    ] {
        assert_eq!(error.to_string(), text);
        assert_eq!(format!("{error:?}"), text);
        assert!(error.source().is_none());
    }
    // The text contains the version of the protocol.
    let text = ManagerError::NotAManager.to_string();
    let start =
        "the process that listens at the address is not a manager (expected protocol version ";
    assert!(text.starts_with(start) && text.ends_with("); check the address"), "{text}");
}

#[test]
fn manager_errors_with_a_cause_have_a_source() {
    let error = ManagerError::Io(io::Error::other("why"));
    assert_eq!(error.to_string(), "cannot connect to an address, or listen there: why");
    assert_eq!(error.source().unwrap().to_string(), "why");

    let cause = SpawnError::Io(io::Error::other("why"));
    let error = ManagerError::Spawn(cause);
    assert_eq!(error.to_string(), "the manager was not started: cannot start a process: why");
    assert_eq!(error.source().unwrap().to_string(), "cannot start a process: why");
}

#[test]
fn diagnosis_texts() {
    for (diagnosis, text) in [
        (Diagnosis::Listening, "a process listens there; it may not be a manager"),
        (
            Diagnosis::NoSuchPath,
            "the path does not exist; start a manager there (`multiproc manager serve ADDRESS`), or \
             check the path",
        ),
        (
            Diagnosis::NotASocket,
            "the path exists and is not a socket; check the path: a manager cannot listen there",
        ),
        (
            Diagnosis::Stale,
            "the path is a socket on which no process listens, as a killed manager leaves it; start \
             another manager there (`multiproc manager serve ADDRESS`), which replaces it",
        ),
        (
            Diagnosis::NoSuchName,
            "no process listens at this abstract name; start a manager there (`multiproc manager serve \
             ADDRESS`), or check the name and the network namespace (a container has its own)",
        ),
        (
            Diagnosis::OtherUser { manager: 1, user: 2 },
            "it belongs to user 1, and this process runs as user 2; start the manager with \
             `--allow-user 2` at an address that both users can reach",
        ),
        (Diagnosis::Unreachable("why".to_owned()), "the address cannot be reached: why"),
    ] {
        assert_eq!(diagnosis.to_string(), text);
    }
}
