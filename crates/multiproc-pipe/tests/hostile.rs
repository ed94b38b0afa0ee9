//! A peer that does not use `Connection` writes arbitrary data with arbitrary descriptors. Each
//! stream ends with the specific error, no descriptor leaks, and no receiver hangs.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::{slice, thread};

use multiproc_pipe::{
    Bytes, Connection, Descriptor, Receiver, RecvError, Sender, TryRecvError, message, simplex,
};
use multiproc_testkit::{Census, alone, watchdog};
use random::Random;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use streams::{Value, frame, mutate, stream, value};

#[path = "support/random.rs"]
mod random;
#[path = "support/streams.rs"]
mod streams;

multiproc::enable_in_tests!();

/// Returns a connection that receives `R`, and the raw socket at its other end.
fn bare<R>() -> (Connection<(), R>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Connection::from_socket(ours.into()).unwrap(), theirs)
}

/// Writes bytes, with descriptors attached to the first of them.
fn write_with(socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let bytes = [IoSlice::new(bytes)];
    let count = sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(count, bytes[0].len());
}

/// Decodes a stream of messages without descriptors in the simplest way.
fn expected(mut stream: &[u8]) -> (Vec<Option<Value>>, bool) {
    let mut values = Vec::new();
    while let Some((header, rest)) = stream.split_first_chunk::<12>() {
        let length = u64::from_le_bytes(header[..8].try_into().unwrap());
        let has_descriptors = header[8..] != [0; 4];
        let Some(length) = usize::try_from(length).ok().filter(|n| *n <= rest.len()) else { break };
        if has_descriptors {
            break;
        }
        values.push(message::decode(&rest[..length], Vec::new()).ok());
        stream = &rest[length..];
    }
    (values, stream.is_empty())
}

/// Receives until the end. Returns the values, with `None` for undecodable ones, and whether the
/// stream ended cleanly.
fn received<R: DeserializeOwned>(connection: &Connection<(), R>) -> (Vec<Option<R>>, bool) {
    let mut values = Vec::new();
    loop {
        match connection.recv() {
            Ok(value) => values.push(Some(value)),
            Err(RecvError::Decode(_)) => values.push(None),
            Err(RecvError::Disconnected) => return (values, true),
            Err(RecvError::Corrupted(_)) => return (values, false),
            Err(error) => panic!("{error}"),
        }
    }
}

fn encoded(values: &[Option<Value>]) -> Vec<Option<Vec<u8>>> {
    values.iter().map(|value| value.as_ref().map(|value| stream(slice::from_ref(value)))).collect()
}

#[test]
fn broken_streams_end_with_the_expected_error() {
    alone(|()| {
        let mut random = Random::new(random::seed());
        let before = Census::take();
        let (mut ended, mut corrupted, mut refused) = (0, 0, 0);
        for n in 0..5000 {
            let values: Vec<_> = (0..1 + random.below(6)).map(|_| value(&mut random, 4)).collect();
            let mut broken = stream(&values);
            for _ in 0..n % 4 {
                mutate(&mut broken, &mut random);
            }
            if n % 10 == 9 {
                broken = (0..random.below(500)).flat_map(|_| random.next().to_le_bytes()).collect();
            }
            // The whole stream fits into the socket's buffer.
            let (ours, mut theirs) = bare::<Value>();
            let cut = random.below(broken.len() + 1);
            theirs.write_all(&broken[..cut]).unwrap();
            theirs.write_all(&broken[cut..]).unwrap();
            drop(theirs);
            let came = received(&ours);
            let (wanted, is_end) = expected(&broken);
            // Values are compared by their encoding, because a damaged number may be a NaN, which
            // equals nothing.
            assert_eq!(encoded(&came.0), encoded(&wanted), "{broken:?}");
            assert_eq!(came.1, is_end, "{broken:?}");
            if n % 4 == 0 && n % 10 != 9 {
                assert_eq!(came, (values.into_iter().map(Some).collect(), true));
            }
            refused += came.0.iter().filter(|value| value.is_none()).count();
            if came.1 { ended += 1 } else { corrupted += 1 }
        }
        println!("{ended} ended, {corrupted} corrupted, {refused} values refused");
        assert!(ended > 500 && corrupted > 500 && refused > 100);
        assert_eq!(Census::take(), before);
    });
}

/// Cuts a stream at every byte: between two messages this is a clean end, elsewhere a truncation.
#[test]
fn truncation_at_any_byte_is_distinguished_from_a_clean_end() {
    let values = [Value::Text("first".to_owned()), Value::Nothing, Value::Number(-1)];
    let whole = stream(&values);
    let borders: Vec<_> = (0..=3).map(|count| stream(&values[..count]).len()).collect();
    for end in 0..=whole.len() {
        let (ours, mut theirs) = bare::<Value>();
        theirs.write_all(&whole[..end]).unwrap();
        drop(theirs);
        let (came, is_end) = received(&ours);
        let complete = borders.iter().filter(|border| **border <= end).count() - 1;
        assert_eq!(came.len(), complete);
        assert_eq!(is_end, borders.contains(&end), "cut at {end} of {}", whole.len());
    }
}

/// Receives one hand-made message with `riding` descriptors attached.
fn with_descriptors<R: DeserializeOwned>(
    announced: u32,
    body: &[u8],
    riding: usize,
) -> (Result<R, RecvError>, Connection<(), R>, UnixStream) {
    let null = File::open("/dev/null").unwrap();
    let (ours, theirs) = bare::<R>();
    let bytes = frame(u64::try_from(body.len()).unwrap(), announced, body);
    write_with(&theirs, &bytes, &vec![null.as_fd(); riding]);
    (ours.recv(), ours, theirs)
}

/// Returns the encoding of descriptor indices in a body.
fn indices(indices: &[u32]) -> Vec<u8> {
    indices.iter().flat_map(|index| index.to_le_bytes()).collect()
}

#[test]
fn forged_descriptor_indices_are_refused_and_the_next_message_arrives() {
    alone(|()| {
        type Two = (Descriptor, Descriptor);
        let before = Census::take();
        for (body, what) in [
            (&indices(&[0, 0])[..], "descriptor 0 is used twice"),
            (&indices(&[0, 2]), "there is no descriptor 2: the message has 2"),
            (&indices(&[u32::MAX, 0]), "there is no descriptor 4294967295"),
            (&indices(&[0, 1, 1]), "4 bytes are left over"),
            (&indices(&[0]), "it ends 4 bytes too early"),
        ] {
            let (result, ours, theirs) = with_descriptors::<Two>(2, body, 2);
            let Err(RecvError::Decode(error)) = result else { panic!("{what}") };
            assert!(error.reason().contains(what), "{error}");
            let null = File::open("/dev/null").unwrap();
            write_with(&theirs, &frame(8, 2, &indices(&[1, 0])), &[null.as_fd(); 2]);
            ours.recv().unwrap();
        }
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn unclaimed_descriptors_are_closed() {
    alone(|()| {
        let before = Census::take();
        for _ in 0..10 {
            let (result, ours, theirs) =
                with_descriptors::<Option<Descriptor>>(200, &[1, 7, 0, 0, 0], 200);
            let claimed = result.unwrap();
            // The ends of the connection, and the claimed descriptor.
            assert_eq!(Census::take().descriptors, before.descriptors + 3);
            drop((ours, theirs, claimed));
            let (result, ..) = with_descriptors::<u8>(200, &[1], 200);
            assert_eq!(result.unwrap(), 1);
        }
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn unannounced_descriptors_corrupt_the_stream() {
    alone(|()| {
        let before = Census::take();
        // More than announced: this message is complete, but some descriptors belong to no message.
        let one = [1, 0, 0, 0, 0];
        let (result, ours, theirs) = with_descriptors::<Vec<Descriptor>>(1, &one, 3);
        assert_eq!(result.unwrap().len(), 1);
        assert!(matches!(ours.try_recv(), Err(TryRecvError::Corrupted(_))));
        drop((ours, theirs));
        // Fewer than announced.
        let (result, ours, theirs) = with_descriptors::<Vec<Descriptor>>(3, &one, 2);
        assert!(matches!(result, Err(RecvError::Corrupted(_))));
        assert!(matches!(ours.recv(), Err(RecvError::Corrupted(_))), "the stream stays corrupted");
        drop((ours, theirs));
        // Far more than the maximum.
        for announced in [3037, u32::MAX] {
            let (result, ..) = with_descriptors::<Vec<Descriptor>>(announced, &one, 1);
            assert!(matches!(result, Err(RecvError::Corrupted(_))), "{announced} descriptors");
        }
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn descriptors_on_the_wrong_byte_corrupt_the_stream_or_are_closed() {
    alone(|()| {
        type Message = (Option<Descriptor>, Bytes);
        let null = File::open("/dev/null").unwrap();
        let before = Census::take();
        // On the body of a message that fits into the read-ahead buffer.
        let (ours, mut theirs) = bare::<Message>();
        theirs.write_all(&frame(2, 0, &[])).unwrap();
        write_with(&theirs, &[0, 0], &[null.as_fd()]);
        ours.recv().unwrap();
        assert!(matches!(ours.try_recv(), Err(TryRecvError::Corrupted(_))));
        drop((ours, theirs));

        // In the middle of a large message, which is read without room for descriptors: the kernel
        // closes them.
        for announced in [0, 1] {
            let mut body = Vec::new();
            let value: Message = (None, Bytes(vec![1; 150_000]));
            assert!(message::encode(&value, &mut body).unwrap().is_empty());
            let bytes = frame(u64::try_from(body.len()).unwrap(), announced, &body);
            let (ours, mut theirs) = bare::<Message>();
            theirs.write_all(&bytes[..100_000]).unwrap();
            assert!(ours.try_recv().unwrap_err().is_empty());
            write_with(&theirs, &bytes[100_000..], &[null.as_fd(); 100]);
            match ours.recv() {
                Ok((_, content)) => assert!(announced == 0 && content.0 == vec![1; 150_000]),
                Err(error) => assert!(announced == 1 && matches!(error, RecvError::Corrupted(_))),
            }
        }
        assert_eq!(Census::take(), before);
    });
}

/// A message that never ends carries more and more descriptors.
#[test]
fn flood_of_descriptors_corrupts_the_stream() {
    alone(|()| {
        let null = File::open("/dev/null").unwrap();
        let before = Census::take();
        let (ours, mut theirs) = bare::<Bytes>();
        theirs.write_all(&frame(60_000, 0, &[])).unwrap();
        let mut packets = 0;
        let error = loop {
            match ours.try_recv() {
                Err(error) if error.is_empty() => {}
                other => break other.unwrap_err(),
            }
            write_with(&theirs, &[0], &[null.as_fd(); 253]);
            packets += 1;
            assert!(packets < 20, "more packets than a message can have");
        };
        assert!(matches!(error, TryRecvError::Corrupted(_)), "{error}");
        drop((ours, theirs));
        assert_eq!(Census::take(), before);
    });
}

/// Receives an end in its encoded form: a descriptor, the flag for a half (unset), and nothing read
/// ahead or unsent, each as no bytes and no descriptors.
fn receive_end<E: DeserializeOwned>(fd: impl AsFd) -> Result<E, RecvError> {
    let (ours, theirs) = bare::<E>();
    write_with(&theirs, &frame(9, 1, &[0; 9]), &[fd.as_fd()]);
    ours.recv()
}

#[test]
fn receiving_an_unsuitable_descriptor_as_an_end_is_an_error() {
    alone(|()| {
        let before = Census::take();
        let null = || File::open("/dev/null").unwrap();
        let (reader, writer) = simplex::<u8>().unwrap();
        receive_end::<Receiver<u8>>(reader).unwrap();
        receive_end::<Connection<u8, u8>>(UnixStream::pair().unwrap().0).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let datagram = UnixDatagram::pair().unwrap().0;
        for result in [
            receive_end::<Receiver<u8>>(null()).map(drop),
            receive_end::<Sender<u8>>(null()).map(drop),
            receive_end::<Connection<u8, u8>>(null()).map(drop),
            receive_end::<Receiver<u8>>(datagram).map(drop),
            receive_end::<Sender<u8>>(tcp).map(drop),
            receive_end::<Connection<u8, u8>>(writer).map(drop),
        ] {
            assert!(matches!(result, Err(RecvError::Decode(_))), "{result:?}");
        }
        drop(listener);
        assert_eq!(Census::take(), before);
    });
}

/// The data that an end claims to have read ahead is trusted no more than the data it reads.
#[test]
fn forged_read_ahead_is_checked_like_a_stream() {
    let ahead = [frame(1, 0, &[5]), frame(1 << 50, 0, &[6])].concat();
    let (writer, reader) = UnixStream::pair().unwrap();
    let (ours, theirs) = bare::<Receiver<u8>>();
    let mut body = vec![0, 0, 0, 0, 0, u8::try_from(ahead.len()).unwrap()];
    body.extend_from_slice(&ahead);
    body.extend_from_slice(&[0; 3]);
    let bytes = frame(u64::try_from(body.len()).unwrap(), 1, &body);
    write_with(&theirs, &bytes, &[reader.as_fd()]);
    let receiver = ours.recv().unwrap();
    drop((writer, reader));
    assert_eq!(receiver.recv().unwrap(), 5);
    assert!(matches!(receiver.recv(), Err(RecvError::Corrupted(_))));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Tree>),
}

#[test]
fn deeply_nested_value_does_not_overflow_the_stack() {
    let _dog = watchdog();
    let (ours, mut theirs) = bare::<Tree>();
    let sender = thread::spawn(move || {
        let deep = b"\x01\x04Node".repeat(500_000);
        theirs.write_all(&frame(3_000_000, 0, &deep)).unwrap();
        theirs.write_all(&frame(12, 0, b"\x01\x04Node\x00\x04Leaf")).unwrap();
    });
    let Err(RecvError::Decode(error)) = ours.recv() else { panic!("it is nested too deeply") };
    assert!(error.reason().contains("256"), "{error}");
    assert_eq!(ours.recv().unwrap(), Tree::Node(Box::new(Tree::Leaf)));
    sender.join().unwrap();
}
