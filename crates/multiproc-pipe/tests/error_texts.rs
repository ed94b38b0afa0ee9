//! The words of the errors, one test for each type. Other tests assert variants and predicates.

use std::error::Error;
use std::io;

use multiproc_pipe::{
    DecodeError, EncodeError, HandshakeError, RecvBytesError, RecvError, RecvTimeoutError,
    SendError, SendTimeoutError, TryRecvError, TrySendError,
};

const SEND_DISCONNECTED: &str = "sending failed: the other side is gone";
const SEND_ENCODE: &str = "sending failed: a value of type `u8` cannot be sent: out of ink";
const SEND_UNFINISHED: &str = "only a part of the message was sent before the deadline; the rest \
                               precedes the next message, or is sent by `flush`";
const SEND_IO: &str = "sending failed: refused";

const RECV_DISCONNECTED: &str =
    "receiving failed: the other side is gone and everything it sent was received";
const RECV_DECODE: &str = "receiving failed: cannot decode the message as `u8`: it ends 1 bytes \
                           too early; do both sides use the same type and version?";
const RECV_CORRUPTED: &str = "receiving failed: the stream is corrupted: why; drop this connection";
const RECV_IO: &str = "receiving failed: refused";

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "refused")
}

fn encode() -> EncodeError {
    EncodeError::new::<u8>("out of ink")
}

fn decode() -> DecodeError {
    multiproc_pipe::message::decode::<u8>(&[], Vec::new()).unwrap_err()
}

/// Asserts the text of each error, which `Debug` prints as well.
fn assert_texts<const N: usize>(errors: [(&dyn Error, &str); N]) {
    for (error, text) in errors {
        assert_eq!(error.to_string(), text);
        assert_eq!(format!("{error:?}"), text);
    }
}

#[test]
fn errors_with_a_cause_have_a_source() {
    let errors: [&dyn Error; 4] = [
        &SendError::Encode((), encode()),
        &TrySendError::Encode((), encode()),
        &SendError::Io((), refused()),
        &RecvError::Io(refused()),
    ];
    for error in errors {
        let source = error.source().expect("a source").to_string();
        assert!(error.to_string().ends_with(&source), "{error}");
    }
    assert!(SendError::Disconnected(()).source().is_none());
}

#[test]
fn text_of_each_send_error() {
    assert_texts([
        (&SendError::Disconnected(()), SEND_DISCONNECTED),
        (&SendError::Encode((), encode()), SEND_ENCODE),
        (&SendError::Io((), refused()), SEND_IO),
    ]);
}

#[test]
fn text_of_each_try_send_error() {
    assert_texts([
        (&TrySendError::Full(()), "there is no room for a message at present"),
        (&TrySendError::Unfinished(()), SEND_UNFINISHED),
        (&TrySendError::Disconnected(()), SEND_DISCONNECTED),
        (&TrySendError::Encode((), encode()), SEND_ENCODE),
        (&TrySendError::Io((), refused()), SEND_IO),
    ]);
}

#[test]
fn text_of_each_send_timeout_error() {
    assert_texts([
        (&SendTimeoutError::Timeout(()), "there was no room for a message before the deadline"),
        (&SendTimeoutError::Unfinished(()), SEND_UNFINISHED),
        (&SendTimeoutError::Disconnected(()), SEND_DISCONNECTED),
        (&SendTimeoutError::Encode((), encode()), SEND_ENCODE),
        (&SendTimeoutError::Io((), refused()), SEND_IO),
    ]);
}

#[test]
fn text_of_each_recv_error() {
    assert_texts([
        (&RecvError::Disconnected, RECV_DISCONNECTED),
        (&RecvError::Decode(decode()), RECV_DECODE),
        (&RecvError::Corrupted("why".to_owned()), RECV_CORRUPTED),
        (&RecvError::Io(refused()), RECV_IO),
    ]);
}

#[test]
fn text_of_each_try_recv_error() {
    assert_texts([
        (&TryRecvError::Empty, "no message has arrived yet"),
        (&TryRecvError::Disconnected, RECV_DISCONNECTED),
        (&TryRecvError::Decode(decode()), RECV_DECODE),
        (&TryRecvError::Corrupted("why".to_owned()), RECV_CORRUPTED),
        (&TryRecvError::Io(refused()), RECV_IO),
    ]);
}

#[test]
fn text_of_each_recv_timeout_error() {
    assert_texts([
        (&RecvTimeoutError::Timeout, "no message arrived before the deadline"),
        (&RecvTimeoutError::Disconnected, RECV_DISCONNECTED),
        (&RecvTimeoutError::Decode(decode()), RECV_DECODE),
        (&RecvTimeoutError::Corrupted("why".to_owned()), RECV_CORRUPTED),
        (&RecvTimeoutError::Io(refused()), RECV_IO),
    ]);
}

#[test]
fn text_of_each_recv_bytes_error() {
    assert_texts([
        (
            &RecvBytesError::TooLong(vec![0; 3]),
            "the message has 3 bytes, more than the buffer; the error contains the message",
        ),
        (&RecvBytesError::Disconnected, RECV_DISCONNECTED),
        (&RecvBytesError::Corrupted("why".to_owned()), RECV_CORRUPTED),
        (&RecvBytesError::Io(refused()), RECV_IO),
    ]);
}

#[test]
fn text_of_each_handshake_error() {
    let types = |peer_sends: &str| HandshakeError::Types {
        sends: "A".to_owned(),
        receives: "B".to_owned(),
        peer_sends: peer_sends.to_owned(),
        peer_receives: "A".to_owned(),
    };
    assert_texts([
        (
            &HandshakeError::NotAHello,
            "the other side does not speak the protocol of `Listener` and `connect`: check the \
             address, and that both programs use this version of multiproc or a later one",
        ),
        (
            &HandshakeError::Version { ours: 1, theirs: 2 },
            "the other side has version 2 of the protocol, and this side version 1: build both \
             programs with the same version of multiproc",
        ),
        (
            &HandshakeError::Format { ours: 1, theirs: 2 },
            "the other side has format 2 of messages, and this side format 1: build both programs \
             with the same version of multiproc",
        ),
        (
            &types("C"),
            "this side sends `A` and receives `B`, and the other side sends `C` and receives `A`: \
             build both programs with the same types",
        ),
        (
            &types("B"),
            "this side sends `A` and receives `B`, and the other side sends `B` and receives `A`, \
             of the same names with other fields or variants: build both programs with the same \
             types",
        ),
    ]);
    let error = io::Error::from(HandshakeError::NotAHello);
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(error.to_string(), HandshakeError::NotAHello.to_string());
}

/// The texts that this crate adds to errors of the operating system.
#[cfg(feature = "listener")]
#[test]
fn text_of_each_listener_error() {
    use std::fs;
    use std::os::unix::net::UnixStream;

    use multiproc_pipe::{Listener, connect};

    let text = |result: io::Result<()>| result.unwrap_err().to_string();
    let bind = |address: &str| text(Listener::bind(address).map(drop));
    let connect = |address: &str| text(connect::<(), ()>(address).map(drop));

    let free = format!("@multiproc-texts-{}", std::process::id());
    let refused = io::Error::from_raw_os_error(111);
    assert_eq!(connect(&free), format!("cannot connect to {free}: {refused}"));
    let _listener = Listener::bind(&free).unwrap();
    assert_eq!(bind(&free), format!("another listener has the address {free}"));

    assert_eq!(bind(""), "expected a path for a socket, got an empty one");
    assert_eq!(bind("@"), "expected an abstract name for a socket, got an empty one");
    let long = "x".repeat(108);
    assert_eq!(
        bind(&long),
        format!("expected a path for a socket of 107 bytes at most, got one of 108 bytes: {long}")
    );
    assert_eq!(bind("a\0b"), "expected a path for a socket, got 3 bytes with a zero in them");

    let directory = std::env::temp_dir().join(format!("multiproc-texts-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let path = directory.join("file");
    fs::write(&path, "").unwrap();
    let name = path.to_str().unwrap();
    assert_eq!(
        bind(name),
        format!(
            "expected {name} to be free or the socket of a dead listener, got a file that is no \
             socket, and is left as it is"
        )
    );
    fs::remove_dir_all(&directory).unwrap();
    let missing = io::Error::from_raw_os_error(2);
    assert_eq!(bind(name), format!("cannot listen at {name}: {missing}"));
    assert_eq!(connect(name), format!("cannot connect to {name}: {missing}"));

    let (socket, _other) = UnixStream::pair().unwrap();
    assert_eq!(
        text(Listener::from_fd(socket.into()).map(drop)),
        "expected a Unix stream socket that listens, got another descriptor"
    );
}
