//! The words of the errors. Other tests assert variants and predicates.

use std::error::Error;
use std::io;

use multiproc_pipe::{
    EncodeError, HandshakeError, RecvBytesError, RecvError, RecvTimeoutError, SendError,
    SendTimeoutError, TryRecvError, TrySendError,
};

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "refused")
}

/// Returns the texts of errors. Their `Debug` has the same.
fn texts<const N: usize>(errors: [&dyn Error; N]) -> [String; N] {
    errors.map(|error| {
        assert_eq!(format!("{error:?}"), error.to_string());
        error.to_string()
    })
}

#[test]
fn errors_with_a_cause_have_a_source() {
    let encode = EncodeError::new::<u8>("out of ink");
    let errors: [&dyn Error; 4] = [
        &SendError::Encode((), encode.clone()),
        &TrySendError::Encode((), encode),
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
fn send_errors() {
    let encode = EncodeError::new::<u8>("out of ink");
    assert_eq!(
        texts([
            &SendError::Disconnected(()),
            &SendError::Encode((), encode),
            &SendError::Io((), refused()),
            &TrySendError::Full(()),
            &TrySendError::Unfinished(()),
            &SendTimeoutError::Timeout(()),
        ]),
        [
            "sending failed: the other side is gone",
            "sending failed: a value of type `u8` cannot be sent: out of ink",
            "sending failed: refused",
            "there is no room for a message at present",
            "only a part of the message was sent before the deadline; the rest precedes the next \
             message, or is sent by `flush`",
            "there was no room for a message before the deadline",
        ]
    );
}

#[test]
fn receive_errors() {
    let (left, right) = multiproc_pipe::duplex::<u8, ()>().unwrap();
    left.send_bytes(&[]).unwrap();
    let decode = right.recv().unwrap_err();
    assert_eq!(
        texts([
            &RecvError::Disconnected,
            &decode,
            &RecvError::Corrupted("why".to_owned()),
            &RecvError::Io(refused()),
            &TryRecvError::Empty,
            &RecvTimeoutError::Timeout,
            &RecvBytesError::TooLong(vec![0; 3]),
        ]),
        [
            "receiving failed: the other side is gone and everything it sent was received",
            "receiving failed: cannot decode the message as `u8`: it ends 1 bytes too early; do \
             both sides use the same type and version?",
            "receiving failed: the stream is corrupted: why; drop this connection",
            "receiving failed: refused",
            "no message has arrived yet",
            "no message arrived before the deadline",
            "the message has 3 bytes, more than the buffer; the error contains the message",
        ]
    );
}

#[test]
fn handshake_errors() {
    let types = |peer_sends: &str| HandshakeError::Types {
        sends: "A".to_owned(),
        receives: "B".to_owned(),
        peer_sends: peer_sends.to_owned(),
        peer_receives: "A".to_owned(),
    };
    assert_eq!(
        texts([
            &HandshakeError::NotAHello,
            &HandshakeError::Version { ours: 1, theirs: 2 },
            &HandshakeError::Format { ours: 1, theirs: 2 },
            &types("C"),
            &types("B"),
        ]),
        [
            "the other side does not speak the protocol of `Listener` and `connect`: check the \
             address, and that both programs use this version of multiproc or a later one",
            "the other side has version 2 of the protocol, and this side version 1: build both \
             programs with the same version of multiproc",
            "the other side has format 2 of messages, and this side format 1: build both programs \
             with the same version of multiproc",
            "this side sends `A` and receives `B`, and the other side sends `C` and receives `A`: \
             build both programs with the same types",
            "this side sends `A` and receives `B`, and the other side sends `B` and receives `A`, \
             of the same names with other fields or variants: build both programs with the same \
             types",
        ]
    );
}
