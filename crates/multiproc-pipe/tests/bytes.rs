//! Messages of bytes, `poll`, and iterators.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc_pipe::{
    Bytes, Connection, Descriptor, Receiver, RecvBytesError, RecvError, Sender, duplex, simplex,
};
use multiproc_testkit::{Census, alone, watchdog};

multiproc::enable_in_tests!();

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 + n / 251).to_le_bytes()[0]).collect()
}

#[test]
fn bytes_of_all_lengths_arrive() {
    let _dog = watchdog();
    let (reader, writer) = simplex::<()>().unwrap();
    let (left, right) = duplex::<(), ()>().unwrap();
    let lengths = [0, 1, 2, 4083, 4084, 4085, 65_523, 65_524, 65_525, 1_000_000, 5_000_001];
    let sender = thread::spawn(move || {
        for length in lengths {
            writer.send_bytes(&pattern(length)).unwrap();
            left.send_bytes(&pattern(length)).unwrap();
        }
    });
    for length in lengths {
        assert!(reader.recv_bytes().unwrap() == pattern(length), "{length} over a pipe");
        assert!(right.recv_bytes().unwrap() == pattern(length), "{length} over a socket");
    }
    sender.join().unwrap();
    assert!(reader.recv_bytes().unwrap_err().is_disconnected());
    assert!(right.try_recv_bytes().unwrap_err().is_disconnected());
}

#[test]
fn bytes_and_values_can_share_a_stream() {
    let (left, right) = duplex::<(u8, String), ()>().unwrap();
    left.send_bytes(b"raw").unwrap();
    left.send((7, "typed".to_owned())).unwrap();
    left.send((1, "x".to_owned())).unwrap();
    let right = right.retype::<(), (u8, String)>();
    assert_eq!(right.recv_bytes().unwrap(), b"raw");
    assert_eq!(right.recv().unwrap().1, "typed");
    // A value that `send` wrote can be forwarded without decoding it.
    let (onward, end) = duplex::<(), (u8, String)>().unwrap();
    let end = end.retype::<(), (u8, String)>();
    onward.send_bytes(&right.recv_bytes().unwrap()).unwrap();
    assert_eq!(end.recv().unwrap(), (1, "x".to_owned()));
    // Bytes that are not an encoded value are a decode error, and nothing else breaks.
    left.send_bytes(&[0xff]).unwrap();
    left.send((2, String::new())).unwrap();
    assert!(matches!(right.recv(), Err(RecvError::Decode(_))));
    assert_eq!(right.recv().unwrap().0, 2);
}

#[test]
fn descriptors_of_a_message_taken_as_bytes_are_closed() {
    alone(|()| {
        let (left, right) = duplex::<Descriptor, ()>().unwrap();
        let before = Census::take();
        left.send(std::fs::File::open("/dev/null").unwrap().into()).unwrap();
        assert_eq!(right.recv_bytes().unwrap(), [0; 4]);
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn message_longer_than_the_buffer_is_returned_in_the_error() {
    let _dog = watchdog();
    let (reader, writer) = simplex::<()>().unwrap();
    let lengths = [11, 70_000, 3_000_000];
    let sender = thread::spawn(move || {
        for length in lengths {
            writer.send_bytes(&pattern(length)).unwrap();
            writer.send_bytes(b"0123456789").unwrap();
        }
    });
    for length in lengths {
        let mut buffer = [9; 10];
        let error = reader.recv_bytes_into(&mut buffer).unwrap_err();
        assert!(matches!(error, RecvBytesError::TooLong(bytes) if bytes == pattern(length)));
        assert_eq!(buffer, [9; 10], "nothing was written into it");
        assert_eq!(reader.recv_bytes_into(&mut buffer).unwrap(), 10, "the next message arrives");
        assert_eq!(&buffer, b"0123456789");
    }
    sender.join().unwrap();
}

#[test]
fn byte_operations_respect_their_timeouts() {
    let _dog = watchdog();
    let (left, right) = duplex::<(), ()>().unwrap();
    assert!(right.try_recv_bytes().unwrap_err().is_empty());
    let start = Instant::now();
    assert!(right.recv_bytes_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
    assert!(start.elapsed() >= Duration::from_millis(20));
    left.try_send_bytes(b"a").unwrap();
    left.send_bytes_timeout(b"b", Duration::MAX).unwrap();
    assert_eq!(right.try_recv_bytes().unwrap(), b"a");
    assert_eq!(right.recv_bytes_timeout(Duration::MAX).unwrap(), b"b");
}

#[test]
fn poll_reports_only_whole_messages_and_ends() {
    let _dog = watchdog();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let ours = Connection::<(), String>::from_socket(ours.into()).unwrap();
    assert!(!ours.poll(Duration::ZERO).unwrap());
    let message = [&[3_u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], b"\x02hi"].concat();
    for cut in 1..message.len() {
        theirs.write_all(&message[..cut]).unwrap();
        assert!(!ours.poll(Duration::ZERO).unwrap(), "{cut} bytes of it");
        assert!(!ours.poll(Duration::from_millis(1)).unwrap(), "{cut} bytes of it");
        theirs.write_all(&message[cut..]).unwrap();
        assert!(ours.poll(Duration::ZERO).unwrap());
        assert!(ours.poll(Duration::MAX).unwrap(), "poll consumes nothing");
        assert_eq!(ours.recv().unwrap(), "hi");
    }
    // Several messages are read ahead at once and remain available to later calls.
    theirs.write_all(&[&message[..], &message, &message[..5]].concat()).unwrap();
    assert_eq!(ours.recv().unwrap(), "hi");
    assert!(ours.poll(Duration::ZERO).unwrap());
    assert_eq!(ours.recv().unwrap(), "hi");
    assert!(!ours.poll(Duration::ZERO).unwrap());
    drop(theirs);
    assert!(ours.poll(Duration::MAX).unwrap(), "an end is ready");
    assert!(matches!(ours.recv(), Err(RecvError::Corrupted(_))), "it ended inside a message");
    assert!(ours.poll(Duration::ZERO).unwrap());

    let (reader, writer) = simplex::<u8>().unwrap();
    let start = Instant::now();
    assert!(!reader.poll(Duration::from_millis(20)).unwrap());
    assert!(start.elapsed() >= Duration::from_millis(20));
    drop(writer);
    assert!(reader.poll(Duration::ZERO).unwrap());
    assert!(reader.recv().unwrap_err().is_disconnected());
    assert!(reader.poll(Duration::MAX).unwrap());
}

#[test]
fn iterators_end_when_the_peer_is_dropped() {
    let (mut reader, writer) = simplex::<u32>().unwrap();
    for n in 0..6 {
        writer.send(n).unwrap();
    }
    drop(writer);
    assert_eq!(reader.iter().next().unwrap().unwrap(), 0);
    assert_eq!((&reader).into_iter().next().unwrap().unwrap(), 1);
    assert_eq!((&mut reader).into_iter().next().unwrap().unwrap(), 2);
    assert_eq!(reader.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [3, 4, 5]);

    let (left, right) = duplex::<u8, u8>().unwrap();
    left.send(1).unwrap();
    drop(left);
    assert_eq!((&right).into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1]);
}

#[test]
fn iterator_continues_after_a_decode_error_and_ends_at_corruption() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let sender = Sender::<bool>::from_fd(theirs.try_clone().unwrap().into()).unwrap();
    let ours = Receiver::<bool>::from_fd(ours.into()).unwrap();
    sender.send(true).unwrap();
    sender.send_bytes(&[7]).unwrap();
    sender.send(false).unwrap();
    theirs.write_all(&[0xff; 12]).unwrap();
    let items: Vec<_> = ours.iter().collect();
    assert!(
        matches!(
            &items[..],
            [Ok(true), Err(RecvError::Decode(_)), Ok(false), Err(RecvError::Corrupted(_))]
        ),
        "{items:?}"
    );
}

#[test]
fn try_iter_ends_at_the_last_complete_message() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let sender = Sender::<u8>::from_fd(theirs.try_clone().unwrap().into()).unwrap();
    let ours = Receiver::<u8>::from_fd(ours.into()).unwrap();
    assert!(ours.try_iter().next().is_none());
    sender.send(1).unwrap();
    sender.send_bytes(&[]).unwrap();
    sender.send(2).unwrap();
    theirs.write_all(&[1]).unwrap(); // a part of the next one
    let items: Vec<_> = ours.try_iter().collect();
    assert!(matches!(&items[..], [Ok(1), Err(RecvError::Decode(_)), Ok(2)]), "{items:?}");
    theirs.write_all(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]).unwrap();
    assert_eq!(ours.try_iter().map(Result::unwrap).collect::<Vec<_>>(), [3]);
    drop((sender, theirs));
    assert!(ours.try_iter().next().is_none());
}

/// Returns the number of page faults of this process so far.
fn faults() -> usize {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(") ").next().unwrap();
    after_name.split(' ').nth(7).unwrap().parse().unwrap()
}

/// Fresh memory for each message made large messages five times as slow as messages of half their
/// size.
#[test]
fn large_messages_reuse_the_memory_of_earlier_ones() {
    // The allocator obtains a block of this size from the kernel and returns it each time.
    const LENGTH: usize = 40 << 20;
    const PAGES: usize = LENGTH / 4096;
    /// The number of leading messages that may use fresh memory.
    const FIRST: usize = 2;
    const COUNT: usize = 5;
    alone(|()| {
        let (left, right) = duplex::<Bytes, ()>().unwrap();
        let receives = |right: Connection<(), Bytes>| {
            let mut messages = right.iter().map(Result::unwrap);
            messages.by_ref().take(FIRST).for_each(drop);
            let before = faults();
            assert_eq!(messages.count(), COUNT);
            faults() - before
        };
        let receiver = Process::spawn(receives, right).unwrap();
        let message = vec![7; LENGTH];
        let mut before = 0;
        for n in 0..FIRST + COUNT {
            if n == FIRST {
                before = faults();
            }
            left.send(Bytes(message.clone())).unwrap();
        }
        let sent = (faults() - before) / COUNT;
        drop(left);
        let received = receiver.join().unwrap() / COUNT;
        let text = format!(
            "{sent} pages a message were fresh for the sender, {received} for the receiver"
        );
        println!("{text}");
        // One allocation is the program's own: the copy that is sent, or the bytes that are
        // received.
        assert!(sent < PAGES * 3 / 2 && received < PAGES * 3 / 2, "{text}");
    });
}
