//! The hello of `Listener` and `connect`: which connections are refused, and when.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use multiproc::Process;
use multiproc_pipe::{
    Address, Connection, Descriptor, HandshakeError, Listener, RecvError, RecvTimeoutError,
    SendError, connect, duplex, wait,
};
use multiproc_testkit::watchdog;
use serde::{Deserialize, Serialize};

multiproc::enable_in_tests!();

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("multiproc-hello-{}-{next}", std::process::id())
}

fn bound() -> (Listener, Address) {
    let address = Address::abstract_name(unique());
    (Listener::bind(&address).unwrap(), address)
}

/// A client that is no `Connection`.
fn bare(address: &Address) -> UnixStream {
    let name = address.to_string();
    let address = SocketAddr::from_abstract_name(name.strip_prefix('@').unwrap()).unwrap();
    UnixStream::connect_addr(&address).unwrap()
}

fn reason(error: &std::io::Error) -> HandshakeError {
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    error.get_ref().and_then(|error| error.downcast_ref::<HandshakeError>()).unwrap().clone()
}

fn refused<S, R>(connection: &Connection<S, R>) -> HandshakeError
where
    R: serde::de::DeserializeOwned + std::fmt::Debug,
{
    match connection.recv() {
        Err(RecvError::Io(error)) => reason(&error),
        other => panic!("{other:?}"),
    }
}

fn types(sends: &str, receives: &str, peer_sends: &str, peer_receives: &str) -> HandshakeError {
    HandshakeError::Types {
        sends: sends.to_owned(),
        receives: receives.to_owned(),
        peer_sends: peer_sends.to_owned(),
        peer_receives: peer_receives.to_owned(),
    }
}

fn frame(length: u64, body: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes()[..], &[0; 4], body].concat()
}

#[test]
fn other_types_are_refused_on_both_sides() {
    let _dog = watchdog();
    let (listener, address) = bound();
    let client = connect::<u32, u8>(&address).unwrap();
    let error = listener.accept::<u8, u64>().unwrap_err();
    assert_eq!(reason(&error), types("u8", "u64", "u32", "u8"));
    for _ in 0..2 {
        assert_eq!(refused(&client), types("u32", "u8", "u8", "u64"));
    }
    // The listener is not affected.
    let client = connect::<u64, u8>(&address).unwrap();
    let server = listener.accept::<u8, u64>().unwrap();
    client.send(7).unwrap();
    assert_eq!(server.recv().unwrap(), 7);
}

/// Two versions of one type, as two programs may have them: their names are the same.
#[test]
fn type_of_the_same_name_with_another_field_is_refused() {
    macro_rules! version {
        ($side:ident $($fields:tt)*) => {
            mod $side {
                #[derive(Debug, serde::Serialize, serde::Deserialize)]
                pub(super) struct Item { $($fields)* }
            }
        };
    }
    version!(old pub(super) id: u32);
    version!(new pub(super) id: u32, pub(super) name: String);
    let _dog = watchdog();
    let (listener, address) = bound();
    let client = connect::<old::Item, ()>(&address).unwrap();
    let error = listener.accept::<(), new::Item>().unwrap_err();
    assert!(matches!(reason(&error), HandshakeError::Types { .. }));
    assert!(matches!(refused(&client), HandshakeError::Types { .. }));
}

#[test]
fn client_in_another_process_is_refused_by_connect_or_its_first_call() {
    let _dog = watchdog();
    let (listener, address) = bound();
    let child = Process::spawn(
        |address: Address| match connect::<String, ()>(&address) {
            Err(error) => reason(&error).to_string(),
            Ok(connection) => refused(&connection).to_string(),
        },
        address,
    )
    .unwrap();
    // The client has connected, but its hello may arrive later.
    let error = match listener.accept::<(), Vec<String>>() {
        Err(error) => reason(&error),
        Ok(connection) => refused(&connection),
    };
    assert!(matches!(error, HandshakeError::Types { .. }), "{error}");
    let expected =
        types("alloc::string::String", "()", "()", "alloc::vec::Vec<alloc::string::String>");
    assert_eq!(child.join().unwrap(), expected.to_string());
}

#[test]
fn messages_have_the_format_of_postcard() {
    let _dog = watchdog();
    let (listener, address) = bound();
    let client = connect::<(u32, Option<Descriptor>), ()>(&address).unwrap();
    let server = listener.accept::<(), (u32, Option<Descriptor>)>().unwrap();
    client.send((300, None)).unwrap();
    assert_eq!(server.recv_bytes().unwrap(), [0xac, 0x02, 0]);
    // Handles travel, and it stays so in another phase of the protocol.
    client.send((300, Some(File::open("/dev/zero").unwrap().into()))).unwrap();
    let (number, descriptor) = server.recv().unwrap();
    let mut bytes = [1; 4];
    File::from(descriptor.unwrap()).read_exact(&mut bytes).unwrap();
    assert_eq!((number, bytes), (300, [0; 4]));
    let client = client.retype::<u64, ()>();
    client.send(300).unwrap();
    assert_eq!(server.retype::<(), u64>().recv_bytes().unwrap(), [0xac, 0x02]);
    // `duplex` keeps the native format.
    let (left, right) = duplex::<u32, ()>().unwrap();
    left.send(300).unwrap();
    assert_eq!(right.recv_bytes().unwrap(), [0x2c, 1, 0, 0]);
}

#[test]
fn client_without_a_hello_holds_up_nobody() {
    let _dog = watchdog();
    let (listener, address) = bound();
    let mut silent = bare(&address);
    let server = listener.accept::<(), u8>().unwrap();
    let client = connect::<u8, ()>(&address).unwrap();
    let other = listener.accept::<(), u8>().unwrap();
    client.send(1).unwrap();
    assert_eq!(other.recv().unwrap(), 1);
    // Nor in the middle of one.
    silent.write_all(&frame(256, b"mp-hello")).unwrap();
    let timeout = Duration::from_millis(20);
    let error = server.recv_timeout(timeout).unwrap_err();
    assert!(matches!(error, RecvTimeoutError::Timeout), "{error}");
    assert!(!server.poll(timeout).unwrap());
    drop(silent);
    server.recv().unwrap_err();
}

#[test]
fn what_is_no_hello_is_refused_at_its_header() {
    let _dog = watchdog();
    let (listener, address) = bound();
    let first_bytes = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        frame(1 << 60, b""),
        frame(4097, b""),
        frame(3, b"abc"),
        frame(256, &[0xff; 256]),
        [&4_u64.to_le_bytes()[..], &1_u32.to_le_bytes(), b"mp-h"].concat(),
    ];
    for bytes in first_bytes {
        let mut client = bare(&address);
        client.write_all(&bytes).unwrap();
        let error = listener.accept::<u8, u8>().unwrap_err();
        assert_eq!(reason(&error), HandshakeError::NotAHello);
        // One that comes later.
        let mut client = bare(&address);
        let server = listener.accept::<u8, u8>().unwrap();
        client.write_all(&bytes).unwrap();
        assert_eq!(wait([&server], None).unwrap(), [0]);
        assert_eq!(refused(&server), HandshakeError::NotAHello);
    }
}

#[test]
fn another_version_is_named() {
    let _dog = watchdog();
    let (listener, address) = bound();
    let mut client = bare(&address);
    client.write_all(&frame(12, b"mp-hello\x63\0\0\0")).unwrap();
    let error = listener.accept::<u8, u8>().unwrap_err();
    assert_eq!(reason(&error), HandshakeError::Version { ours: 1, theirs: 99 });
    // What the client gets.
    let mut hello = [0; 12 + 256];
    client.read_exact(&mut hello).unwrap();
    assert_eq!(hello[..28], *b"\0\x01\0\0\0\0\0\0\0\0\0\0mp-hello\x01\0\0\0\x01\0\0\0");
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn hello_is_no_message() {
    let _dog = watchdog();
    let (listener, address) = bound();
    let client = connect::<u8, String>(&address).unwrap();
    let server = listener.accept::<String, u8>().unwrap();
    assert!(wait([&client], Some(Duration::from_millis(10))).unwrap().is_empty());
    assert!(!client.poll(Duration::ZERO).unwrap());
    assert!(client.try_recv().unwrap_err().is_empty());
    server.send("text".to_owned()).unwrap();
    assert!(client.poll(Duration::MAX).unwrap());
    assert_eq!(client.recv_bytes().unwrap(), b"\x04text");
}

#[test]
fn end_that_moves_before_the_hello_has_come_checks_it_where_it_arrives() {
    let _dog = watchdog();
    for matches in [true, false] {
        let (listener, address) = bound();
        let (mail, mailbox) = duplex::<Connection<u8, String>, ()>().unwrap();
        mail.send(connect::<u8, String>(&address).unwrap()).unwrap();
        let client = mailbox.recv().unwrap();
        if matches {
            let server = listener.accept::<String, u8>().unwrap();
            client.send(3).unwrap();
            assert_eq!(server.recv().unwrap(), 3);
            let (sender, receiver) = server.split();
            sender.send("text".to_owned()).unwrap();
            assert_eq!(client.recv().unwrap(), "text");
            drop(receiver);
        } else {
            listener.accept::<u64, u8>().unwrap_err();
            assert!(matches!(refused(&client), HandshakeError::Types { .. }));
        }
    }
}

#[test]
fn types_that_contain_themselves_or_borrow_are_connected() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Tree {
        name: String,
        children: Vec<Tree>,
    }
    let _dog = watchdog();
    let (listener, address) = bound();
    let client = thread::spawn(move || {
        let client = connect::<&str, Tree>(&address).unwrap();
        client.send("text").unwrap();
        client.recv().unwrap()
    });
    let server = listener.accept::<Tree, String>().unwrap();
    assert_eq!(server.recv().unwrap(), "text");
    let tree = |children| Tree { name: "x".to_owned(), children };
    server.send(tree(vec![tree(Vec::new())])).unwrap();
    assert_eq!(client.join().unwrap(), tree(vec![tree(Vec::new())]));
}

#[test]
fn variant_that_would_arrive_as_another_one_is_refused_by_send() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        Started,
        #[serde(skip)]
        #[allow(dead_code)]
        Local,
        Moved,
        Ended,
    }
    let _dog = watchdog();
    let (listener, address) = bound();
    let client: Connection<Event, ()> = connect(&address).unwrap();
    let server: Connection<(), Event> = listener.accept().unwrap();
    let error = client.send(Event::Moved).unwrap_err();
    assert!(matches!(error, SendError::Encode(Event::Moved, _)), "{error}");
    client.try_send(Event::Ended).unwrap_err();
    client.send(Event::Started).unwrap();
    assert_eq!(server.recv().unwrap(), Event::Started);
    // The check is for the present type.
    let client = client.retype::<(u8, Event), ()>();
    client.send((1, Event::Moved)).unwrap_err();
    client.send((2, Event::Started)).unwrap();
    let server = server.retype::<(), (u8, Event)>();
    assert_eq!(server.recv().unwrap(), (2, Event::Started));
    // A connection of one machine writes names.
    let (left, right) = duplex::<Event, ()>().unwrap();
    left.send(Event::Ended).unwrap();
    assert_eq!(right.recv().unwrap(), Event::Ended);
}
