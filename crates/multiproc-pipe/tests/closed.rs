//! Other code in the process closes the descriptors of connections: no file of the program is
//! affected.
//!
//! Opens `unsafe` to close descriptors behind the library's back.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use multiproc_pipe::{Listener, RecvError, SendError, WaitSet, connect, duplex, simplex};
use multiproc_testkit::alone;
use rustix::io::fcntl_dupfd_cloexec;

multiproc::enable_in_tests!();

/// Closes a descriptor number, as a C library does that closes all descriptors.
fn close(end: &impl AsFd) -> RawFd {
    let number = end.as_fd().as_raw_fd();
    let unsigned = libc::c_long::from(number);
    // SAFETY: the descriptor belongs to the library, and its reaction is the subject of the test.
    assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, unsigned, unsigned, 0) }, 0);
    number
}

/// Closes the descriptor of an end and reuses its number for a file of the program.
fn replace(end: &impl AsFd, by: impl AsFd) -> OwnedFd {
    let number = close(end);
    let file = fcntl_dupfd_cloexec(by, number).unwrap();
    assert_eq!(file.as_raw_fd(), number);
    file
}

/// Asserts that dropping an end does not affect the file that now has its number.
fn assert_drop_is_harmless<E: AsFd>(end: E) {
    let original = File::open("/dev/zero").unwrap();
    let file = File::from(replace(&end, &original));
    drop(end);
    let found = file.metadata().expect("the file is open");
    assert_eq!(found.rdev(), original.metadata().unwrap().rdev());
}

#[test]
fn dropping_an_end_whose_number_was_reused_leaves_the_file_open() {
    alone(|()| {
        let (left, right) = duplex::<u32, u32>().unwrap();
        assert_drop_is_harmless(left);
        assert!(right.recv().unwrap_err().is_disconnected());
        let (receiver, sender) = simplex::<u32>().unwrap();
        assert_drop_is_harmless(receiver);
        assert_drop_is_harmless(sender);
        let (left, _right) = duplex::<u32, u32>().unwrap();
        let (sender, receiver) = left.split();
        assert_drop_is_harmless(sender);
        drop(receiver);
        let address = format!("@multiproc-closed-{}", std::process::id());
        let listener = Listener::bind(&address).unwrap();
        assert_drop_is_harmless(connect::<u32, u32>(&address).unwrap());
        assert_drop_is_harmless(listener.accept::<u32, u32>().unwrap());
        assert_drop_is_harmless(listener);
    });
}

/// Dropping a half shuts its direction down, but not that of an unrelated socket with its number.
#[test]
fn dropping_a_half_whose_number_was_reused_leaves_the_socket_connected() {
    alone(|()| {
        let (left, _right) = duplex::<u32, u32>().unwrap();
        let (sender, receiver) = left.split();
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let ours = UnixStream::from(replace(&sender, ours));
        drop((sender, receiver));
        peer.write_all(b"x").unwrap();
        (&ours).write_all(b"y").unwrap();
    });
}

#[test]
fn operation_on_a_closed_descriptor_reports_the_cause() {
    fn tells(error: &io::Error) {
        // The error of a connection wraps the one of its descriptor.
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
        assert_eq!(inner.unwrap_or(error).kind(), io::ErrorKind::NotConnected, "{error}");
    }
    alone(|()| {
        // The number is closed.
        let (left, right) = duplex::<u32, u32>().unwrap();
        close(&left);
        let Err(SendError::Io(7, error)) = left.send(7) else { panic!("it is closed") };
        tells(&error);
        let Err(RecvError::Io(error)) = left.recv() else { panic!("it is closed") };
        tells(&error);
        drop((left, right));
        // The number belongs to a socket whose peer is gone, while the connection's peer is not.
        let (left, right) = duplex::<u32, u32>().unwrap();
        let _socket = replace(&left, UnixStream::pair().unwrap().0);
        let Err(SendError::Io(7, error)) = left.send(7) else { panic!("it is not connected") };
        tells(&error);
        let Err(RecvError::Io(error)) = left.recv() else { panic!("it is not connected") };
        tells(&error);
        multiproc_message::encode(&left, &mut Vec::new()).expect_err("it cannot be sent either");
        drop((left, right));
        let address = format!("@multiproc-closed-{}", std::process::id());
        let listener = Listener::bind(&address).unwrap();
        let other = Listener::bind(format!("{address}-other")).unwrap();
        let _socket = replace(&listener, &other);
        tells(&listener.try_accept::<u32, u32>().unwrap_err());
    });
}

#[test]
fn closed_descriptor_makes_its_source_in_a_set_ready() {
    alone(|()| {
        let (receiver, _sender) = simplex::<u32>().unwrap();
        let (other, _kept) = simplex::<u32>().unwrap();
        let mut set = WaitSet::new();
        set.add(other);
        let token = set.add(receiver);
        assert!(set.wait(Some(Duration::ZERO)).unwrap().is_empty());
        close(&set[token].as_fd());
        assert_eq!(set.wait(None).unwrap(), [token]);
        assert!(matches!(set[token].recv(), Err(RecvError::Io(_))));
        // Its number is reused by a file that is always readable.
        let (reader, _writer) = simplex::<u32>().unwrap();
        let again = set.add(reader);
        set.remove(token);
        let _file = replace(&set[again].as_fd(), File::open("/dev/zero").unwrap());
        assert_eq!(set.wait(None).unwrap(), [again]);
    });
}
