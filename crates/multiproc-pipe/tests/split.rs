//! The two halves of a connection, and ends made from descriptors.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use multiproc::Process;
use multiproc_pipe::{
    Bytes, Connection, Descriptor, Listener, Receiver, RecvBytesError, RecvError, SendTimeoutError,
    Sender, TrySendError, duplex, simplex,
};
use multiproc_testkit::{Census, alone, watchdog};
use serde::{Serialize, Serializer};

multiproc::enable_in_tests!();

#[test]
fn halves_continue_where_the_connection_stopped() {
    let _dog = watchdog();
    let (left, right) = duplex::<u32, Option<Descriptor>>().unwrap();
    for _ in 0..3 {
        right.send(Some(File::open("/dev/null").unwrap().into())).unwrap();
    }
    assert!(left.recv().unwrap().is_some()); // two more are read ahead
    let (sender, receiver) = left.split();
    let debug = format!("{sender:?} {receiver:?}");
    assert!(debug.contains("WriteOnly") && debug.contains("ReadOnly"), "{debug}");
    assert_eq!(sender.to_string()[9..], receiver.to_string()[8..], "both halves use one socket");
    let other = thread::spawn(move || {
        for n in 0..1000 {
            sender.send(n).unwrap();
        }
    });
    assert!(receiver.recv().unwrap().is_some());
    assert!(receiver.recv().unwrap().is_some());
    right.send(None).unwrap();
    assert!(receiver.recv().unwrap().is_none());
    assert_eq!(right.iter().map(Result::unwrap).sum::<u32>(), 499_500);
    other.join().unwrap();
}

#[test]
fn dropped_half_closes_its_direction() {
    let _dog = watchdog();
    let (left, right) = duplex::<u8, u8>().unwrap();
    let (sender, receiver) = left.split();
    sender.send(1).unwrap();
    drop(sender);
    assert_eq!(right.recv().unwrap(), 1);
    assert!(right.recv().unwrap_err().is_disconnected());
    right.send(2).unwrap(); // the other direction stays open
    assert_eq!(receiver.recv().unwrap(), 2);
    drop(receiver);
    assert!(right.send(3).unwrap_err().is_disconnected());

    let (left, right) = duplex::<u8, u8>().unwrap();
    let (sender, receiver) = left.split();
    drop(receiver);
    let error = right.send(3).unwrap_err();
    assert!(error.is_disconnected());
    assert_eq!(error.into_inner(), 3);
    sender.send(4).unwrap();
    assert_eq!(right.recv().unwrap(), 4);

    // Dropping an iterator that owns the receiver has the same effect.
    let (left, right) = duplex::<u8, u8>().unwrap();
    let (_sender, receiver) = left.split();
    drop(receiver.into_iter());
    assert!(right.send(3).unwrap_err().is_disconnected());
}

#[test]
fn half_dropped_with_a_partial_message_corrupts_the_stream() {
    let _dog = watchdog();
    let (left, right) = duplex::<Bytes, ()>().unwrap();
    assert!(left.try_send(Bytes(vec![1; 10_000_000])).unwrap_err().is_unfinished());
    let (sender, receiver) = left.split();
    drop(sender);
    assert!(matches!(right.recv(), Err(RecvError::Corrupted(_))));
    right.send(()).unwrap();
    receiver.recv().unwrap();
}

#[test]
fn sent_half_closes_its_direction_when_its_new_owner_drops_it() {
    let _dog = watchdog();
    let (left, right) = duplex::<u32, u32>().unwrap();
    let (sender, receiver) = left.split();
    let (go, went) = simplex::<()>().unwrap();
    let child = Process::spawn(
        |(sender, go): (Sender<u32>, Receiver<()>)| {
            sender.send(1).unwrap();
            go.recv().unwrap();
            sender.send(2).unwrap();
        },
        (sender, go),
    )
    .unwrap();
    // The handle that remained here was dropped without closing the direction.
    assert_eq!(right.recv().unwrap(), 1);
    assert!(right.try_recv().unwrap_err().is_empty());
    went.send(()).unwrap();
    assert_eq!(right.recv().unwrap(), 2);
    // Dropping the child's half closed the direction, though the socket is still open here.
    assert!(right.recv().unwrap_err().is_disconnected());
    child.join().unwrap();
    right.send(3).unwrap();
    assert_eq!(receiver.recv().unwrap(), 3);

    // The other half, sent over a connection.
    let (mail, mailbox) = duplex::<Receiver<u32>, ()>().unwrap();
    mail.send(receiver).unwrap();
    right.send(4).unwrap();
    let receiver = mailbox.recv().unwrap();
    assert_eq!(receiver.recv().unwrap(), 4);
    drop(receiver);
    assert!(right.send(5).unwrap_err().is_disconnected());
}

/// A failed send returns the half, and dropping it still closes its direction.
#[test]
fn half_returned_by_a_failed_send_is_unchanged() {
    struct Fails;
    impl Serialize for Fails {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let _dog = watchdog();
    let (left, right) = duplex::<u8, u8>().unwrap();
    let (sender, _receiver) = left.split();

    let (mail, _mailbox) = duplex::<(Sender<u8>, Fails), ()>().unwrap();
    let (sender, _) = mail.send((sender, Fails)).unwrap_err().into_inner();
    let (mail, mailbox) = duplex::<Sender<u8>, ()>().unwrap();
    drop(mailbox);
    let sender = mail.send(sender).unwrap_err().into_inner();
    let (_reader, mail) = simplex::<Sender<u8>>().unwrap();
    let sender = mail.send(sender).unwrap_err().into_inner();
    let (mail, _mailbox) = duplex::<Sender<u8>, ()>().unwrap();
    while mail.try_send_bytes(&[0; 100]).is_ok() {}
    while mail.try_send_bytes(&[]).is_ok() {}
    let sender = mail.try_send(sender).unwrap_err().into_inner();

    sender.send(1).unwrap();
    assert_eq!(right.recv().unwrap(), 1);
    assert!(right.try_recv().unwrap_err().is_empty());
    drop(sender);
    assert!(right.recv().unwrap_err().is_disconnected());
}

#[test]
fn halves_converted_to_descriptors_leave_the_connection_open() {
    alone(|()| {
        let before = Census::take();
        let (left, right) = duplex::<u8, u8>().unwrap();
        let (sender, receiver) = left.split();
        let number = receiver.to_string();
        let one = OwnedFd::from(sender); // a duplicate
        let other = OwnedFd::from(receiver); // the last half gets the original descriptor
        assert!(number.ends_with(&format!(" {}", other.as_raw_fd())), "{number}");
        assert_eq!(Census::take().descriptors, before.descriptors + 3);
        // Neither closes a direction any more.
        drop(one);
        let whole = Connection::<u8, u8>::from_socket(other).unwrap();
        whole.send(1).unwrap();
        right.send(2).unwrap();
        assert_eq!((right.recv().unwrap(), whole.recv().unwrap()), (1, 2));
        drop((whole, right));
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn ends_convert_from_and_to_descriptors() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let receiver = Receiver::<u8>::from_fd(reader.into()).unwrap();
    writer.write_all(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 42]).unwrap();
    assert_eq!(receiver.recv().unwrap(), 42);
    let sender = Sender::<u8>::from(OwnedFd::from(writer));
    sender.send(43).unwrap();
    assert_eq!(receiver.recv().unwrap(), 43);
    let mut writer = File::from(OwnedFd::from(sender));
    writer.write_all(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 44]).unwrap();
    let receiver = Receiver::<u8>::from(OwnedFd::from(receiver));
    assert_eq!(receiver.recv().unwrap(), 44);

    let (a, b) = UnixStream::pair().unwrap();
    let a = Connection::<Descriptor, ()>::from(OwnedFd::from(a));
    let b = Receiver::<Descriptor>::from(OwnedFd::from(b));
    a.send(File::open("/dev/zero").unwrap().into()).unwrap();
    let mut byte = [1];
    File::from(b.recv().unwrap()).read_exact(&mut byte).unwrap();
    assert_eq!(byte, [0]);
}

/// Unsuitable descriptors are refused by the constructors, and after `From` by the first use.
#[test]
fn unsuitable_descriptor_is_an_error_with_the_expected_kind() {
    let _dog = watchdog();
    let file = || OwnedFd::from(File::open("/dev/null").unwrap());
    let pipe = || {
        let (reader, writer) = std::io::pipe().unwrap();
        (OwnedFd::from(reader), OwnedFd::from(writer))
    };
    let datagram = || OwnedFd::from(UnixDatagram::unbound().unwrap());
    let listening = || {
        let name = format!("multiproc-test-{}-split", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        OwnedFd::from(UnixListener::bind_addr(&address).unwrap())
    };
    let tcp = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        OwnedFd::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap())
    };
    let check = |text: String, expected: &str, got: &str| {
        assert!(text.contains(&format!("expected {expected}, got {got}")), "{text}");
    };

    let socket = "a Unix stream socket";
    for (make, got) in [
        (&file as &dyn Fn() -> OwnedFd, "a descriptor of kind CharacterDevice"),
        (&|| pipe().0, "a pipe"),
        (&datagram, "a socket of another family or type"),
        (&tcp, "a socket of another family or type"),
        (&listening, "a socket that listens"),
    ] {
        check(Connection::<(), ()>::from_socket(make()).unwrap_err().to_string(), socket, got);
        let end = Connection::<u8, u8>::from(make());
        let error = end.send(5).unwrap_err();
        check(error.to_string(), socket, got);
        assert_eq!(error.into_inner(), 5);
        check(end.recv().unwrap_err().to_string(), socket, got);
        check(end.try_recv().unwrap_err().to_string(), socket, got);
        check(end.try_send(5).unwrap_err().to_string(), socket, got);
        check(end.send_bytes(b"x").unwrap_err().to_string(), socket, got);
        check(end.poll(Duration::ZERO).unwrap_err().to_string(), socket, got);
        let (mail, _mailbox) = duplex::<Connection<u8, u8>, ()>().unwrap();
        check(mail.send(end).unwrap_err().to_string(), socket, got);
    }

    let reading = "the reading end of a pipe or a Unix stream socket";
    let writing = "the writing end of a pipe or a Unix stream socket";
    check(Sender::<u8>::from_fd(pipe().0).unwrap_err().to_string(), writing, "the other end");
    check(Receiver::<u8>::from_fd(pipe().1).unwrap_err().to_string(), reading, "the other end");
    check(Sender::<u8>::from(file()).send(1).unwrap_err().to_string(), writing, "a descriptor");
    check(Receiver::<u8>::from(file()).recv().unwrap_err().to_string(), reading, "a descriptor");
    let (a, b) = pipe();
    check(Sender::<u8>::from(a).send(1).unwrap_err().to_string(), writing, "the other end");
    check(Receiver::<u8>::from(b).recv().unwrap_err().to_string(), reading, "the other end");
    let sender = Sender::<Descriptor>::from(file());
    let error = sender.send(Descriptor(file())).unwrap_err();
    check(error.to_string(), writing, "a descriptor");
}

#[test]
fn ends_are_send_and_errors_are_send_and_static() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    fn is_error<T: std::error::Error + Send + Sync + 'static>() {}
    is_send::<Connection<u8, u8>>();
    is_send::<Sender<u8>>();
    is_send::<Receiver<u8>>();
    is_send::<Listener>();
    is_sync::<Listener>();
    is_error::<TrySendError<u8>>();
    is_error::<SendTimeoutError<u8>>();
    is_error::<RecvBytesError>();
}

#[test]
fn halves_leak_nothing() {
    alone(|()| {
        let before = Census::take();
        for _ in 0..1000 {
            let (left, right) = duplex::<Sender<u8>, Receiver<u8>>().unwrap();
            let (mail, mailbox) = left.split();
            let (a, b) = duplex::<u8, u8>().unwrap();
            let (sender, receiver) = a.split();
            mail.send(sender).unwrap();
            right.send(receiver).unwrap();
            right.recv().unwrap().send(1).unwrap();
            b.send(2).unwrap();
            assert_eq!(b.recv().unwrap(), 1);
            assert_eq!(mailbox.recv().unwrap().recv().unwrap(), 2);
        }
        assert_eq!(Census::take(), before);
    });
}
