//! Sending without blocking, and completing a message that was sent partially.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc_pipe::{
    Bytes, Connection, Descriptor, Receiver, RecvError, RecvTimeoutError, SendTimeoutError, Sender,
    TrySendError, duplex, simplex,
};
use multiproc_testkit::{Census, alone, is_asleep, until, watchdog};
use rustix::process::{Resource, Rlimit, Uid, getrlimit, setrlimit};

multiproc::enable_in_tests!();

/// Larger than any buffer.
const LARGE: usize = 10_000_000;

fn large() -> Bytes {
    Bytes((0..LARGE).map(|n| n.to_le_bytes()[1]).collect())
}

/// Fills the buffer with small messages and returns their number.
fn fill(mut try_send: impl FnMut(u64) -> Result<(), TrySendError<u64>>) -> u64 {
    for n in 0.. {
        match try_send(n) {
            Ok(()) => {}
            Err(TrySendError::Full(value)) => {
                assert_eq!(value, n);
                return n;
            }
            Err(error) => panic!("a small message is never cut: {error}"),
        }
    }
    unreachable!()
}

#[test]
fn full_connection_refuses_whole_messages_and_recovers() {
    let _dog = watchdog();
    let (reader, writer) = simplex::<u64>().unwrap();
    let (left, right) = duplex::<u64, ()>().unwrap();
    let in_pipe = fill(|n| writer.try_send(n));
    let in_socket = fill(|n| left.try_send(n));
    assert!(in_pipe > 100 && in_socket > 100, "{in_pipe} {in_socket}");

    let start = Instant::now();
    let timeout = Duration::from_millis(20);
    assert!(matches!(writer.send_timeout(1, timeout), Err(SendTimeoutError::Timeout(1))));
    assert!(matches!(left.send_timeout(1, timeout), Err(SendTimeoutError::Timeout(1))));
    assert!(start.elapsed() >= 2 * timeout);
    let past = Instant::now();
    assert!(writer.send_deadline(1, past).unwrap_err().is_timeout());
    assert!(left.send_timeout(1, Duration::ZERO).unwrap_err().is_timeout());

    for n in 0..in_pipe {
        assert_eq!(reader.recv().unwrap(), n);
    }
    for n in 0..in_socket {
        assert_eq!(right.recv().unwrap(), n);
    }
    // There is room again, and the refused messages left nothing behind.
    writer.send_deadline(8, past).unwrap();
    left.send_timeout(9, Duration::MAX).unwrap();
    assert_eq!((reader.recv().unwrap(), right.recv().unwrap()), (8, 9));
    assert!(reader.try_recv().unwrap_err().is_empty());
}

#[test]
fn message_that_fits_is_sent_without_waiting() {
    let (reader, writer) = simplex::<Bytes>().unwrap();
    writer.try_send(Bytes(vec![5; 60_000])).unwrap();
    assert_eq!(reader.recv().unwrap().0, vec![5; 60_000]);
    let (left, right) = duplex::<Bytes, ()>().unwrap();
    left.send_timeout(Bytes(vec![6; 100_000]), Duration::ZERO).unwrap();
    assert_eq!(right.recv().unwrap().0, vec![6; 100_000]);
}

/// The next send completes a partially sent message, over a pipe and over a socket.
#[test]
fn partial_message_is_completed_by_the_next_send() {
    let _dog = watchdog();
    let (reader, writer) = simplex::<Bytes>().unwrap();
    let error = writer.try_send(large()).unwrap_err();
    assert!(error.is_unfinished() && !error.is_full(), "{error}");
    assert_eq!(error.into_inner(), large());
    let error = writer.try_send(Bytes(vec![1])).unwrap_err();
    assert!(error.is_full(), "the rest of the first one is in the way: {error}");
    let error = writer.flush_timeout(Duration::from_millis(5)).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    let sender = thread::spawn(move || writer.send(Bytes(vec![2; 3])).unwrap());
    assert!(reader.recv().unwrap() == large());
    assert_eq!(reader.recv().unwrap().0, [2; 3]);
    assert!(reader.recv().unwrap_err().is_disconnected());
    sender.join().unwrap();

    let (left, right) = duplex::<Bytes, Bytes>().unwrap();
    let error = left.send_timeout(large(), Duration::from_millis(5)).unwrap_err();
    assert!(error.is_unfinished() && !error.is_timeout(), "{error}");
    let error = left.send_bytes_timeout(b"more", Duration::from_millis(5)).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    let sender = thread::spawn(move || {
        left.flush().unwrap();
        left.flush().unwrap(); // nothing is left to send
        left
    });
    assert!(right.recv().unwrap() == large());
    let left = sender.join().unwrap();
    left.try_send(Bytes(vec![3])).unwrap();
    assert_eq!(right.recv().unwrap().0, [3]);
    assert!(right.try_recv().unwrap_err().is_empty());
}

#[test]
fn partial_bytes_message_is_completed_by_the_next_send() {
    let _dog = watchdog();
    let (reader, writer) = simplex::<()>().unwrap();
    let (left, right) = duplex::<(), ()>().unwrap();
    assert!(writer.try_send_bytes(&large().0).unwrap_err().is_unfinished());
    assert!(left.try_send_bytes(&large().0).unwrap_err().is_unfinished());
    let sender = thread::spawn(move || {
        writer.send_bytes(b"end").unwrap();
        left.send_bytes(b"end").unwrap();
    });
    assert!(reader.recv_bytes().unwrap() == large().0);
    assert_eq!(reader.recv_bytes().unwrap(), b"end");
    assert!(right.recv_bytes().unwrap() == large().0);
    assert_eq!(right.recv_bytes().unwrap(), b"end");
    sender.join().unwrap();
}

/// Repeated short attempts transfer a large message piece by piece.
#[test]
fn repeated_flushes_complete_a_partial_message() {
    let _dog = watchdog();
    let (reader, writer) = simplex::<Bytes>().unwrap();
    let receiver = thread::spawn(move || reader.recv().unwrap());
    assert!(writer.try_send(large()).unwrap_err().is_unfinished());
    while let Err(error) = writer.flush_timeout(Duration::ZERO) {
        assert!(error.is_timeout(), "{error}");
    }
    assert!(receiver.join().unwrap() == large());
}

#[test]
fn descriptors_of_a_partial_message_arrive() {
    let _dog = watchdog();
    let files = |count: usize| -> Vec<Descriptor> {
        let files = (0..count).map(|n| {
            let (reader, mut writer) = std::io::pipe().unwrap();
            writeln!(writer, "{n}").unwrap();
            Descriptor(OwnedFd::from(reader))
        });
        files.collect()
    };
    let check = |files: Vec<Descriptor>| {
        for (n, file) in files.into_iter().enumerate() {
            let mut text = String::new();
            File::from(file).read_to_string(&mut text).unwrap();
            assert_eq!(text, format!("{n}\n"));
        }
    };
    // The message is cut off after its descriptors, which are sent with its first bytes.
    type Message = (Vec<Descriptor>, Bytes);
    let (left, right) = duplex::<Message, ()>().unwrap();
    assert!(left.try_send((files(300), large())).unwrap_err().is_unfinished());
    assert!(left.try_send((files(3), Bytes::default())).unwrap_err().is_full());
    let sender = thread::spawn(move || left.send((files(2), Bytes::default())).unwrap());
    let (came, bytes) = right.recv().unwrap();
    assert_eq!(came.len(), 300);
    check(came);
    assert!(bytes == large());
    let (came, _) = right.recv().unwrap();
    assert_eq!(came.len(), 2);
    check(came);
    assert!(right.recv().unwrap_err().is_disconnected());
    sender.join().unwrap();
}

/// With a small buffer, a message with many packets of descriptors is cut between two of them.
#[test]
fn partial_message_cut_between_descriptor_packets_loses_none() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    alone(|()| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(20_000), maximum }).unwrap();
        let before = Census::take();
        let null = File::open("/dev/null").unwrap();
        let files = || (0..3000).map(|_| null.try_clone().unwrap().into()).collect();
        let (left, right) = duplex::<Vec<Descriptor>, ()>().unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&left, 1).unwrap();
        let error = left.try_send(files()).unwrap_err();
        assert!(error.is_unfinished(), "{error}");
        drop(error);
        // The first packets, with 253 descriptors each, were sent. The others are kept with the
        // rest.
        let kept = Census::take().descriptors - before.descriptors - 3;
        assert!(kept > 0 && kept < 3000 && (3000 - kept).is_multiple_of(253), "{kept} are kept");
        let sender = thread::spawn(move || left.send(Vec::new()).unwrap());
        assert_eq!(right.recv().unwrap().len(), 3000);
        assert!(right.recv().unwrap().is_empty());
        assert!(right.recv().unwrap_err().is_disconnected());
        sender.join().unwrap();
        drop((right, null));
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn rest_of_a_partial_message_moves_with_its_end() {
    let _dog = watchdog();
    let (left, right) = duplex::<(Descriptor, Bytes), ()>().unwrap();
    let null = || Descriptor::from(File::open("/dev/null").unwrap());
    assert!(left.try_send((null(), large())).unwrap_err().is_unfinished());
    let (mail, mailbox) = duplex::<Connection<(Descriptor, Bytes), ()>, ()>().unwrap();
    let sender = thread::spawn(move || {
        mail.send(left).unwrap(); // large, because it contains the rest
    });
    let left = mailbox.recv().unwrap();
    sender.join().unwrap();
    let sender = thread::spawn(move || left.send((null(), Bytes(vec![7]))).unwrap());
    assert!(right.recv().unwrap().1 == large());
    assert_eq!(right.recv().unwrap().1.0, [7]);
    sender.join().unwrap();

    let (reader, writer) = simplex::<Bytes>().unwrap();
    assert!(writer.try_send(large()).unwrap_err().is_unfinished());
    let child =
        Process::spawn(|writer: Sender<Bytes>| writer.send(Bytes(vec![8])).unwrap(), writer);
    assert!(reader.recv().unwrap() == large());
    assert_eq!(reader.recv().unwrap().0, [8]);
    assert!(reader.recv().unwrap_err().is_disconnected());
    child.unwrap().join().unwrap();
}

#[test]
fn end_dropped_with_a_partial_message_corrupts_the_stream() {
    let _dog = watchdog();
    let (reader, writer) = simplex::<Bytes>().unwrap();
    writer.send(Bytes(vec![1])).unwrap();
    assert!(writer.try_send(large()).unwrap_err().is_unfinished());
    drop(writer);
    assert_eq!(reader.recv().unwrap().0, [1]);
    assert!(matches!(reader.recv(), Err(RecvError::Corrupted(_))));
}

#[test]
fn killed_peer_disconnects_a_sender_waiting_for_room() {
    let _dog = watchdog();
    let (left, right) = duplex::<Bytes, ()>().unwrap();
    let (reader, writer) = simplex::<Bytes>().unwrap();
    let child = Process::spawn(
        |(right, reader): (Connection<(), Bytes>, Receiver<Bytes>)| {
            right.send(()).unwrap();
            thread::park();
            drop(reader);
        },
        (right, reader),
    )
    .unwrap();
    left.recv().unwrap();
    let over_socket = thread::spawn(move || {
        let error = left.send_timeout(large(), Duration::MAX).unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        assert!(error.into_inner() == large());
        assert!(left.try_send(Bytes::default()).unwrap_err().is_disconnected());
    });
    let over_pipe = thread::spawn(move || {
        let error = writer.send_timeout(large(), Duration::from_secs(200)).unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        assert!(error.into_inner() == large());
    });
    child.kill().unwrap();
    over_socket.join().unwrap();
    over_pipe.join().unwrap();
    child.wait();
}

/// While the rest of a message is pending, every call reports the loss of the peer.
#[test]
fn sender_with_a_partial_message_is_disconnected_by_the_peer() {
    let (reader, writer) = simplex::<Bytes>().unwrap();
    assert!(writer.try_send(large()).unwrap_err().is_unfinished());
    drop(reader);
    assert!(writer.flush().unwrap_err().is_disconnected());
    assert!(writer.flush_timeout(Duration::ZERO).unwrap_err().is_disconnected());
    let error = writer.send(Bytes(vec![1])).unwrap_err();
    assert!(error.is_disconnected());
    assert_eq!(error.into_inner().0, [1]);
    assert!(writer.try_send(Bytes(vec![2])).unwrap_err().is_disconnected());
}

/// The reader takes a little at a time, so no single wait is long. The deadline applies
/// nevertheless.
#[test]
fn deadline_bounds_the_whole_call() {
    let _dog = watchdog();
    for over_pipe in [true, false] {
        let (writer, mut end): (Sender<Bytes>, File) = if over_pipe {
            let (reader, writer) = simplex::<Bytes>().unwrap();
            (writer, OwnedFd::from(reader).into())
        } else {
            let (left, right) = duplex::<Bytes, ()>().unwrap();
            (left.split().0, OwnedFd::from(right).into())
        };
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let slow = thread::spawn(move || {
            let mut buffer = vec![0; 1000];
            while stopped.recv_timeout(Duration::from_millis(1)).is_err() {
                end.read_exact(&mut buffer).unwrap();
            }
        });
        let start = Instant::now();
        let error = writer.send_timeout(large(), Duration::from_millis(100)).unwrap_err();
        let elapsed = start.elapsed();
        assert!(error.is_unfinished(), "{error}");
        assert!(elapsed >= Duration::from_millis(100), "{elapsed:?}");
        // At 1000 bytes per millisecond the message would take 10 s.
        assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
        stop.send(()).unwrap();
        slow.join().unwrap();
    }
}

#[test]
fn send_on_a_non_blocking_descriptor_blocks() {
    let _dog = watchdog();
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    let left = Connection::<Bytes, ()>::from(OwnedFd::from(a));
    let right = Connection::<(), Bytes>::from(OwnedFd::from(b));
    let receiver = thread::spawn(move || {
        let first = right.recv().unwrap();
        (first, right.recv().unwrap_err())
    });
    left.send(large()).unwrap();
    drop(left);
    let (first, error) = receiver.join().unwrap();
    assert!(first == large() && error.is_disconnected());

    let (reader, writer) = std::io::pipe().unwrap();
    for end in [OwnedFd::from(reader.try_clone().unwrap()), writer.try_clone().unwrap().into()] {
        rustix::fs::fcntl_setfl(&end, rustix::fs::OFlags::NONBLOCK).unwrap();
    }
    let reader = Receiver::<Bytes>::from(OwnedFd::from(reader));
    let writer = Sender::<Bytes>::from(OwnedFd::from(writer));
    assert!(reader.recv_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    let receiver = thread::spawn(move || reader.recv().unwrap());
    writer.send(large()).unwrap();
    assert!(receiver.join().unwrap() == large());
}

/// The sender is killed while it is blocked in the middle of a message, with or without a timeout.
#[test]
fn sender_killed_in_the_middle_corrupts_the_stream() {
    let _dog = watchdog();
    for limit in [None, Some(100)] {
        let (left, right) = duplex::<Bytes, ()>().unwrap();
        let child = Process::spawn(
            |(left, limit): (Connection<Bytes, ()>, Option<u64>)| match limit {
                None => left.send(large()).unwrap(),
                Some(seconds) => left.send_timeout(large(), Duration::from_secs(seconds)).unwrap(),
            },
            (left, limit),
        )
        .unwrap();
        until(|| is_asleep(child.pid()));
        assert!(!right.poll(Duration::ZERO).unwrap(), "a partial message is not ready");
        until(|| is_asleep(child.pid()));
        child.kill().unwrap();
        let result = right.recv_timeout(Duration::from_secs(200));
        assert!(
            matches!(result, Err(RecvTimeoutError::Corrupted(_))),
            "half a message is an error"
        );
        child.wait();
    }
}

/// The kernel allows a user no more descriptors in flight than a process may open.
#[test]
fn send_waits_while_too_many_descriptors_are_in_flight() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become a user of its own");
        return;
    }
    alone(|()| {
        // A user that runs no other process.
        rustix::thread::set_thread_uid(Uid::from_raw(61_017)).unwrap();
        let limit = Rlimit { current: Some(64), maximum: getrlimit(Resource::Nofile).maximum };
        setrlimit(Resource::Nofile, limit).unwrap();
        let null = || Descriptor::from(File::open("/dev/null").unwrap());
        let (left, right) = duplex::<Descriptor, ()>().unwrap();
        let mut count = 0;
        while match left.try_send(null()) {
            Ok(()) => true,
            Err(error) if error.is_full() => false,
            Err(error) => panic!("after {count}: {error}"),
        } {
            count += 1;
        }
        assert!((60..100).contains(&count), "{count}");
        let before = Instant::now();
        let timeout = Duration::from_millis(30);
        assert!(left.send_timeout(null(), timeout).unwrap_err().is_timeout());
        assert!(before.elapsed() >= timeout);

        // Another connection, whose peer is gone, does not wait for descriptors of this one.
        let (other, gone) = duplex::<Descriptor, ()>().unwrap();
        drop(gone);
        assert!(other.send(null()).unwrap_err().is_disconnected());

        let main = std::process::id();
        let receives = thread::spawn(move || {
            let asleep = || fs::read_to_string(format!("/proc/{main}/task/{main}/stat"));
            until(|| asleep().unwrap().rsplit(')').next().unwrap().starts_with(" S"));
            (0..=count).for_each(|_| drop(right.recv().unwrap()));
        });
        left.send(null()).unwrap();
        receives.join().unwrap();
    });
}
