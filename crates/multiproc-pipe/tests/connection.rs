//! Connections within one process and between several.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc_pipe::{
    Bytes, Connection, Descriptor, Receiver, RecvError, SendError, Sender, TryRecvError, duplex,
    message, simplex, wait,
};
use multiproc_testkit::{Census, alone, is_asleep, until, watchdog};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

multiproc::enable_in_tests!();

/// A connection, and the bare socket at its other end.
fn bare() -> (Connection<(), String>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Connection::from_socket(ours.into()).unwrap(), theirs)
}

fn frame(length: u64, descriptors: u32, body: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes()[..], &descriptors.to_le_bytes(), body].concat()
}

#[test]
fn values_are_sent_both_ways() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Point,
        Circle { radius: f64 },
        Path(Vec<(i32, i32)>),
    }
    let shapes = [
        Shape::Point,
        Shape::Circle { radius: -0.5 },
        Shape::Path(vec![(i32::MIN, i32::MAX), (0, -1)]),
    ];
    let (left, right) = duplex::<Shape, Option<String>>().unwrap();
    for shape in &shapes {
        left.send(shape.clone()).unwrap();
    }
    for shape in &shapes {
        assert_eq!(&right.recv().unwrap(), shape);
    }
    right.send(None).unwrap();
    right.send(Some("ä".repeat(1000))).unwrap();
    assert_eq!(left.recv().unwrap(), None);
    assert_eq!(left.recv().unwrap(), Some("ä".repeat(1000)));
}

#[test]
fn large_message_passes_a_small_buffer() {
    let _dog = watchdog();
    let bytes: Vec<u8> = (0..20_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let expected = bytes.clone();
    let (left, right) = duplex::<Bytes, ()>().unwrap();
    let (reader, writer) = simplex::<Bytes>().unwrap();
    let sender = thread::spawn(move || {
        left.send(Bytes(bytes.clone())).unwrap();
        writer.send(Bytes(bytes)).unwrap();
    });
    assert!(right.recv().unwrap().0 == expected);
    assert!(reader.recv().unwrap().0 == expected);
    sender.join().unwrap();
}

#[test]
fn try_recv_without_message_is_empty_and_recv_timeout_expires() {
    let _dog = watchdog();
    let (receiver, sender) = simplex::<u8>().unwrap();
    assert!(receiver.try_recv().unwrap_err().is_empty());
    let start = Instant::now();
    assert!(receiver.recv_timeout(Duration::from_millis(30)).unwrap_err().is_timeout());
    assert!(start.elapsed() >= Duration::from_millis(30));
    let past = Instant::now();
    assert!(receiver.recv_deadline(past).unwrap_err().is_timeout());
    sender.send(1).unwrap();
    assert_eq!(receiver.recv_timeout(Duration::MAX).unwrap(), 1);
    sender.send(2).unwrap();
    assert_eq!(receiver.recv_deadline(past).unwrap(), 2, "what is there comes, however late");
}

#[test]
fn timeout_within_a_message_loses_nothing() {
    let _dog = watchdog();
    let (ours, mut theirs) = bare();
    let message = frame(6, 0, b"\x05hello");
    for cut in 1..message.len() {
        theirs.write_all(&message[..cut]).unwrap();
        assert!(ours.try_recv().unwrap_err().is_empty());
        assert!(ours.recv_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
        theirs.write_all(&message[cut..]).unwrap();
        assert_eq!(ours.recv().unwrap(), "hello");
    }
}

#[test]
fn closed_end_is_disconnected_and_returns_the_value() {
    let (left, right) = duplex::<String, u8>().unwrap();
    right.send(1).unwrap();
    right.send(2).unwrap();
    drop(right);
    assert_eq!((left.recv().unwrap(), left.recv().unwrap()), (1, 2));
    assert!(left.recv().unwrap_err().is_disconnected());
    assert!(left.try_recv().unwrap_err().is_disconnected());
    let error = left.send("kept".to_owned()).unwrap_err();
    assert!(error.is_disconnected());
    assert_eq!(error.into_inner(), "kept");

    let (receiver, sender) = simplex::<u8>().unwrap();
    drop(receiver);
    assert!(sender.send(1).unwrap_err().is_disconnected());
}

#[test]
fn close_with_an_unread_message_is_disconnected() {
    let (left, right) = duplex::<u8, u8>().unwrap();
    left.send(1).unwrap();
    drop(right); // the kernel answers this with a reset
    assert!(left.recv().unwrap_err().is_disconnected());
}

#[test]
fn message_of_another_type_is_an_error_and_the_next_one_arrives() {
    let (left, right) = duplex::<(u8, u8), ()>().unwrap();
    let right = right.retype::<(), String>();
    left.send((5, b'x')).unwrap();
    let error = right.recv().unwrap_err();
    assert!(matches!(error, RecvError::Decode(_)));
    let text = error.to_string();
    assert!(text.contains("alloc::string::String") && text.contains("same type"), "{text}");

    left.send((1, b'y')).unwrap(); // happens to be a string
    assert_eq!(right.recv().unwrap(), "y");
}

#[test]
fn unserialisable_value_is_returned_and_the_connection_continues() {
    #[derive(Debug, Deserialize)]
    struct Even(u32);
    impl Serialize for Even {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if self.0 % 2 == 1 {
                return Err(serde::ser::Error::custom(format!("{} is odd", self.0)));
            }
            self.0.serialize(serializer)
        }
    }
    let (left, right) = duplex::<(String, Even), ()>().unwrap();
    let error = left.send(("half way".to_owned(), Even(3))).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("3 is odd") && text.contains("Even"), "{text}");
    assert_eq!(error.into_inner().1.0, 3);
    left.send((String::new(), Even(4))).unwrap();
    assert_eq!(right.recv().unwrap().1.0, 4);
    assert!(right.try_recv().unwrap_err().is_empty(), "nothing of the refused one was sent");
}

#[test]
fn undecodable_type_is_refused_and_returned() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u32),
        Text(String),
    }
    let number = || vec![(1, Either::Number(7))];
    let (left, right) = duplex::<Vec<(u8, Either)>, ()>().unwrap();
    let refused = left.send(number()).unwrap_err();
    assert!(matches!(&refused, SendError::Encode(_, error) if error.reason().contains("`Json`")));
    assert_eq!(refused.into_inner(), number());
    assert_eq!(left.try_send(number()).unwrap_err().into_inner(), number());
    let moment = Duration::from_millis(1);
    assert_eq!(left.send_timeout(number(), moment).unwrap_err().into_inner(), number());
    assert_eq!(left.send_deadline(Vec::new(), Instant::now()).unwrap_err().into_inner(), []);
    let (receiver, sender) = simplex::<Either>().unwrap();
    sender.send(Either::Text("x".to_owned())).unwrap_err();
    drop((left, sender));
    assert!(right.recv().unwrap_err().is_disconnected(), "nothing was sent");
    assert!(receiver.recv().unwrap_err().is_disconnected());
}

#[test]
fn serialize_only_type_can_be_sent() {
    fn pass_on<T: Serialize>(left: &Connection<T, ()>, sender: &Sender<T>, make: impl Fn() -> T) {
        left.send(make()).unwrap();
        left.try_send(make()).unwrap();
        sender.send_timeout(make(), Duration::from_secs(1)).unwrap();
        sender.send_deadline(make(), Instant::now() + Duration::from_secs(1)).unwrap();
    }
    let (left, right) = duplex::<&str, ()>().unwrap();
    let (receiver, sender) = simplex::<&str>().unwrap();
    pass_on(&left, &sender, || "text");
    left.send("text").unwrap();
    sender.send("bytes").unwrap();
    let right = right.retype::<(), String>();
    assert_eq!([(); 3].map(|()| right.recv().unwrap()), ["text"; 3]);
    assert_eq!([(); 3].map(|()| receiver.recv_bytes().unwrap().len()), [5, 5, 6]);
}

#[test]
fn panic_in_deserialize_is_a_decode_error_and_the_next_message_arrives() {
    #[derive(Debug, PartialEq, Serialize)]
    struct Small(u32);
    impl<'de> Deserialize<'de> for Small {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let number = u32::deserialize(deserializer)?;
            assert!(number < 10, "out of range: {number}");
            Ok(Self(number))
        }
    }
    alone(|()| {
        let (left, right) = duplex::<(Descriptor, Small), ()>().unwrap();
        let file = || Descriptor(File::open("/dev/null").unwrap().into());
        let before = Census::take();
        left.send((file(), Small(11))).unwrap();
        left.send((file(), Small(3))).unwrap();
        let Err(RecvError::Decode(error)) = right.recv() else { panic!("it cannot be decoded") };
        assert!(error.reason().contains("out of range: 11"), "{error}");
        assert_eq!(right.recv().unwrap().1, Small(3));
        assert_eq!(Census::take(), before);
    });
}

thread_local! {
    /// The connection that `Curious` comes over.
    static OWN: RefCell<Option<Rc<Connection<(), Curious>>>> = const { RefCell::new(None) };
}

/// Asks for the next message while it is received itself.
#[derive(Debug, PartialEq, Serialize)]
struct Curious(u32);

impl<'de> Deserialize<'de> for Curious {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        let own = OWN.with_borrow(|own| own.clone().unwrap());
        let texts = [
            own.recv().unwrap_err().to_string(),
            own.recv_timeout(Duration::from_millis(1)).unwrap_err().to_string(),
            own.try_recv_bytes().unwrap_err().to_string(),
            message::encode(&*own, &mut Vec::new()).unwrap_err().to_string(),
        ];
        for text in texts {
            assert!(text.contains("uses the same connection"), "{text}");
        }
        assert!(own.poll(Duration::ZERO).unwrap(), "receiving returns its error at once");
        assert_eq!(wait([&*own], None).unwrap(), [0]);
        own.send(()).unwrap();
        Ok(Self(number))
    }
}

#[test]
fn deserialize_that_receives_on_its_own_connection_gets_an_error() {
    let _dog = watchdog();
    let (left, right) = duplex::<Curious, ()>().unwrap();
    let right = Rc::new(right);
    OWN.set(Some(Rc::clone(&right)));
    for number in 0..3 {
        left.send(Curious(number)).unwrap();
    }
    for number in 0..3 {
        assert_eq!(right.recv().unwrap(), Curious(number));
        left.recv().unwrap();
    }
    assert!(right.try_recv().unwrap_err().is_empty());
}

#[test]
fn descriptors_arrive_and_belong_to_the_receiver() {
    let (left, right) = duplex::<Vec<Descriptor>, ()>().unwrap();
    let mut files = Vec::new();
    for n in 0..1000 {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writeln!(writer, "{n}").unwrap();
        files.push(Descriptor(OwnedFd::from(reader)));
    }
    left.send(files).unwrap();
    left.send(Vec::new()).unwrap();
    for (n, file) in right.recv().unwrap().into_iter().enumerate() {
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{n}\n"));
    }
    assert!(right.recv().unwrap().is_empty());
}

#[test]
fn message_with_too_many_descriptors_is_refused() {
    alone(|()| {
        rustix_limit(10_000);
        let null = || Descriptor(File::open("/dev/null").unwrap().into());
        let (left, right) = duplex::<Vec<Descriptor>, ()>().unwrap();
        let error = left.send((0..4000).map(|_| null()).collect()).unwrap_err();
        assert!(error.to_string().contains("more than 3036 descriptors"), "{error}");
        left.send(vec![null()]).unwrap();
        assert_eq!(right.recv().unwrap().len(), 1);
    });
}

fn rustix_limit(descriptors: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), maximum }).unwrap();
}

#[test]
fn lost_descriptors_are_an_error_with_the_reason() {
    alone(|()| {
        let null = || Descriptor(File::open("/dev/null").unwrap().into());
        let (left, right) = duplex::<Vec<Descriptor>, ()>().unwrap();
        left.send(Vec::new()).unwrap();
        left.send(vec![null()]).unwrap();
        left.send(Vec::new()).unwrap();
        left.send((0..20).map(|_| null()).collect()).unwrap();
        left.send(Vec::new()).unwrap();
        let before = Census::take();
        rustix_limit(before.descriptors as u64 + 10);
        for count in [0, 1, 0] {
            assert_eq!(right.recv().unwrap().len(), count, "what came before them is still good");
        }
        let error = right.recv().unwrap_err();
        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
        assert!(matches!(right.recv(), Err(RecvError::Corrupted(_))), "it cannot go on");
        assert_eq!(Census::take(), before, "those that came are closed");
        let (mail, _mailbox) = duplex::<Connection<(), Vec<Descriptor>>, ()>().unwrap();
        let error = mail.send(right).unwrap_err();
        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
    });
}

#[test]
fn pipe_refuses_descriptors_before_writing() {
    let (receiver, sender) = simplex::<Option<Descriptor>>().unwrap();
    let error = sender.send(Some(File::open("/dev/null").unwrap().into())).unwrap_err();
    assert!(error.to_string().contains("`duplex`"), "{error}");
    assert!(matches!(error, SendError::Encode(Some(_), _)));
    sender.send(None).unwrap();
    assert!(receiver.recv().unwrap().is_none());
}

#[test]
fn descriptors_of_a_failed_send_are_not_sent_later() {
    alone(|()| {
        struct Fails;
        impl Serialize for Fails {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("no"))
            }
        }
        let (left, right) = duplex::<(Descriptor, Fails), ()>().unwrap();
        let file = || Descriptor(File::open("/dev/null").unwrap().into());
        let before = Census::take();
        for _ in 0..100 {
            left.send((file(), Fails)).unwrap_err();
        }
        let left = left.retype::<u8, ()>();
        left.send(1).unwrap();
        let right = right.retype::<(), u8>();
        assert_eq!(right.recv().unwrap(), 1);
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn sent_ends_keep_what_they_have_read_ahead() {
    let (receiver, sender) = simplex::<u32>().unwrap();
    for n in 0..100 {
        sender.send(n).unwrap();
    }
    assert_eq!(receiver.recv().unwrap(), 0); // and the other 99 are in its buffer now
    let (mail, mailbox) = duplex::<(Receiver<u32>, Sender<u32>), ()>().unwrap();
    mail.send((receiver, sender)).unwrap();
    let (receiver, sender) = mailbox.recv().unwrap();
    sender.send(100).unwrap();
    drop(sender);
    for n in 1..=100 {
        assert_eq!(receiver.recv().unwrap(), n);
    }
    assert!(receiver.recv().unwrap_err().is_disconnected());
}

#[test]
fn sent_connection_keeps_descriptors_read_ahead() {
    let (ours, theirs) = duplex::<u8, Option<Descriptor>>().unwrap();
    theirs.send(None).unwrap();
    theirs.send(Some(File::open("/dev/null").unwrap().into())).unwrap();
    theirs.send(None).unwrap();
    assert!(ours.recv().unwrap().is_none());
    let (mail, mailbox) = duplex::<Connection<u8, Option<Descriptor>>, ()>().unwrap();
    mail.send(ours).unwrap();
    let ours = mailbox.recv().unwrap();
    assert!(ours.recv().unwrap().is_some());
    assert!(ours.recv().unwrap().is_none());
    ours.send(9).unwrap();
    assert_eq!(theirs.recv().unwrap(), 9);
}

#[test]
fn other_bytes_are_corrupted() {
    for (bytes, what) in [
        (frame(1 << 63, 0, b""), "length"),
        (frame(0, 5000, b""), "5000 descriptors"),
        (frame(1, 2, b"x"), "2 descriptors, 0 came"),
        (frame(100, 0, b"only this"), "ended inside a message"),
        (frame(1 << 40, 0, &[7; 100_000]), "ended inside a message"),
        (vec![1, 2, 3], "ended inside a message"),
    ] {
        let (ours, mut theirs) = bare();
        theirs.write_all(&bytes).unwrap();
        drop(theirs);
        let error = ours.recv().unwrap_err();
        assert!(matches!(error, RecvError::Corrupted(_)), "{error}");
        assert!(error.to_string().contains(what), "{error}");
        assert!(matches!(ours.try_recv(), Err(TryRecvError::Corrupted(_))), "and it stays so");
    }
}

#[test]
fn connection_from_another_descriptor_is_refused() {
    let error = Connection::<(), ()>::from_socket(File::open("/dev/null").unwrap().into());
    let text = error.unwrap_err().to_string();
    assert!(text.contains("expected a Unix stream socket, got"), "{text}");
    let (reader, _writer) = std::io::pipe().unwrap();
    let error = Connection::<(), ()>::from_socket(reader.into());
    assert!(error.unwrap_err().to_string().contains("got a pipe"));
}

#[test]
fn debug_and_display_name_the_end() {
    let (receiver, sender) = simplex::<u8>().unwrap();
    let (connection, _) = duplex::<u8, u8>().unwrap();
    let debug = format!("{receiver:?} {sender:?} {connection:?}");
    for part in ["Receiver { fd: ", "mode: ReadOnly", "mode: WriteOnly", "mode: ReadWrite"] {
        assert!(debug.contains(part), "{debug}");
    }
    assert!(receiver.to_string().starts_with("ReadOnly connection "));
}

#[test]
fn sender_killed_within_a_message_is_corrupted() {
    let _dog = watchdog();
    let (receiver, sender) = simplex::<Bytes>().unwrap();
    let child = Process::spawn(
        |sender: Sender<Bytes>| {
            sender.send(Bytes(vec![1; 10])).unwrap();
            // More than the pipe holds: it blocks in there.
            let _ = sender.send(Bytes(vec![2; 10_000_000]));
        },
        sender,
    )
    .unwrap();
    assert_eq!(receiver.recv().unwrap().0.len(), 10);
    until(|| is_asleep(child.pid()));
    child.kill().unwrap();
    let result = receiver.recv();
    assert!(matches!(result, Err(RecvError::Corrupted(_))), "{result:?}");
    child.wait();
}

#[test]
fn killed_receiver_disconnects_a_blocked_sender() {
    let _dog = watchdog();
    let (left, right) = duplex::<Bytes, ()>().unwrap();
    let child = Process::spawn(
        |end: Connection<(), Bytes>| {
            end.send(()).unwrap();
            std::thread::park();
        },
        right,
    )
    .unwrap();
    left.recv().unwrap();
    let sender = thread::spawn(move || left.send(Bytes(vec![0; 10_000_000])).unwrap_err());
    child.kill().unwrap();
    assert!(sender.join().unwrap().is_disconnected());
    child.wait();
}

#[test]
fn connections_leak_no_descriptor() {
    alone(|()| {
        let before = Census::take();
        for _ in 0..1000 {
            let (left, right) = duplex::<Sender<u8>, ()>().unwrap();
            let (receiver, sender) = simplex().unwrap();
            left.send(sender).unwrap();
            right.recv().unwrap().send(1).unwrap();
            receiver.recv().unwrap();
            let (_, sender) = simplex().unwrap();
            left.send(sender).unwrap(); // never received
        }
        assert_eq!(Census::take(), before);
    });
}

/// Large and small ones follow each other without a gap: the memory of a large one, which is used
/// again, takes nothing of what comes behind it.
#[test]
fn messages_of_all_sizes_arrive() {
    const SIZES: [usize; 9] =
        [200_000, 5, 70_000, 70_001, 1_000_000, 66_000, 0, 3_000_000, 131_072];
    let content = |n: usize| vec![n.to_le_bytes()[0]; SIZES[n % SIZES.len()] + n];
    let (receiver, sender) = simplex::<Bytes>().unwrap();
    let (ours, theirs) = duplex::<Bytes, ()>().unwrap();
    let theirs = theirs.retype::<(), Bytes>();
    let sending = std::thread::spawn(move || {
        for n in 0..100 {
            sender.send(Bytes(content(n))).unwrap();
            ours.send(Bytes(content(n))).unwrap();
        }
    });
    for n in 0..100 {
        assert!(receiver.recv().unwrap().0 == content(n), "message {n}");
        assert!(theirs.recv().unwrap().0 == content(n), "message {n}");
    }
    sending.join().unwrap();
}
