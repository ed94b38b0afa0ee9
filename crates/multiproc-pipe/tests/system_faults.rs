//! System calls that fail according to a script. Run by `cargo xtask faults`, which compiles the
//! scripts in.
//!
//! The random tests print their seed. `--seed N` repeats it, and `--soak SECONDS` sets the
//! duration.
#![cfg(multiproc_faults)]
// Resets SIGPIPE.
#![allow(unsafe_code)]

use std::env;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use multiproc_pipe::syscall_script::{Call, Errno, Fault, left, script};
use multiproc_pipe::{Bytes, Descriptor, RecvError, SendError, duplex, simplex};
use multiproc_testkit::{Census, alone, watchdog};
use serde::{Deserialize, Serialize};

use random::Random;

#[path = "support/random.rs"]
mod random;

multiproc::enable_in_tests!();

const INTERRUPTED: Fault = Fault::Error(Errno::INTR);

/// No descriptors or no memory: a later attempt may succeed.
const EXHAUSTED: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];

fn null() -> Descriptor {
    File::open("/dev/null").unwrap().into()
}

/// Returns a pipe whose reading end yields `n`, to distinguish descriptors.
fn numbered(n: usize) -> Descriptor {
    let (reader, mut writer) = std::io::pipe().unwrap();
    write!(writer, "{n}").unwrap();
    OwnedFd::from(reader).into()
}

fn number_of(descriptor: Descriptor) -> usize {
    let mut text = String::new();
    File::from(descriptor).read_to_string(&mut text).unwrap();
    text.parse().unwrap()
}

#[test]
fn interrupted_calls_are_repeated() {
    let _dog = watchdog();
    let twice = |call| [(call, INTERRUPTED), (call, INTERRUPTED)];

    let (receiver, sender) = simplex::<Bytes>().unwrap();
    script(&[twice(Call::Write), twice(Call::Read), twice(Call::Poll)].concat());
    sender.send(Bytes(vec![1; 100])).unwrap();
    assert_eq!(receiver.recv_timeout(Duration::MAX).unwrap().0, [1; 100]);
    assert_eq!(left(), 2, "without a deadline there is no poll");
    sender.send(Bytes(vec![2])).unwrap();
    assert_eq!(receiver.recv_timeout(Duration::from_secs(100)).unwrap().0, [2]);
    assert_eq!(left(), 0);

    // The body is larger than the read-ahead buffer, so it is received by other calls.
    let (ours, theirs) = duplex::<(Option<Descriptor>, Bytes), ()>().unwrap();
    let calls = [Call::SendMsg, Call::Send, Call::RecvMsg, Call::Recv];
    script(&calls.map(twice).concat());
    ours.send((Some(numbered(7)), Bytes(vec![3; 100_000]))).unwrap();
    ours.send((None, Bytes(vec![4]))).unwrap();
    let (descriptor, bytes) = theirs.recv().unwrap();
    assert!(number_of(descriptor.unwrap()) == 7 && bytes.0 == [3; 100_000]);
    assert_eq!(theirs.recv().unwrap().1.0, [4]);
    assert_eq!(left(), 0);
}

/// A kernel without the flag for quiet writes.
#[test]
fn sigpipe_of_a_write_is_consumed_and_the_signal_mask_kept() {
    /// Returns the blocked and pending signals of this thread, as /proc shows them.
    fn masks() -> Vec<String> {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let is_mask =
            |line: &&str| ["SigPnd", "ShdPnd", "SigBlk"].iter().any(|m| line.starts_with(m));
        status.lines().filter(is_mask).map(str::to_owned).collect()
    }
    fn pipe_only() -> libc::sigset_t {
        // SAFETY: initialises an empty set and adds an existing signal.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGPIPE);
            set
        }
    }
    alone(|()| {
        // SAFETY: the default is a valid disposition.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let (receiver, sender) = simplex::<u8>().unwrap();
        let refused = [(Call::QuietWrite, Fault::Error(Errno::OPNOTSUPP))];
        let before = masks();
        script(&refused);
        sender.send(1).unwrap();
        assert_eq!(receiver.recv().unwrap(), 1);
        drop(receiver);
        script(&refused);
        assert!(sender.send(2).unwrap_err().is_disconnected());
        assert_eq!((masks(), left()), (before, 0));

        // A pending SIGPIPE of the program is kept.
        let pipe = pipe_only();
        // SAFETY: the sets are valid. The signal is blocked and therefore stays pending.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, std::ptr::null_mut());
            libc::raise(libc::SIGPIPE);
        }
        let before = masks();
        script(&refused);
        assert!(sender.send(3).unwrap_err().is_disconnected());
        assert_eq!((masks(), left()), (before, 0));
    });
}

#[test]
fn interruptions_do_not_extend_a_deadline() {
    let _dog = watchdog();
    let (receiver, _sender) = simplex::<u8>().unwrap();
    script(&[(Call::Poll, INTERRUPTED); 1000]);
    let start = Instant::now();
    assert!(receiver.recv_timeout(Duration::from_millis(30)).unwrap_err().is_timeout());
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(left(), 0);
    script(&[(Call::Poll, INTERRUPTED)]);
    assert!(receiver.try_recv().unwrap_err().is_empty());
}

#[test]
fn message_moved_in_small_pieces_arrives_whole() {
    let _dog = watchdog();
    let (receiver, sender) = simplex::<Bytes>().unwrap();
    let (ours, theirs) = duplex::<Bytes, ()>().unwrap();
    for piece in [1, 3, 11, 12, 13, 100] {
        let short = |call| [(call, Fault::Short(piece)); 40];
        let calls = [Call::Write, Call::Read, Call::Send, Call::RecvMsg, Call::Recv];
        script(&calls.map(short).concat());
        for length in [0, 1, 50, 30_000] {
            sender.send(Bytes(vec![5; length])).unwrap();
            assert_eq!(receiver.recv().unwrap().0, vec![5; length]);
            ours.send(Bytes(vec![6; length])).unwrap();
            assert_eq!(theirs.recv().unwrap().0, vec![6; length]);
        }
        ours.send(Bytes(vec![7; 70_000])).unwrap();
        assert_eq!(theirs.recv().unwrap().0, vec![7; 70_000]);
    }
    script(&[]);
}

#[test]
fn descriptors_arrive_once_despite_short_calls() {
    alone(|()| {
        let (ours, theirs) = duplex::<(Vec<Descriptor>, String), ()>().unwrap();
        let before = Census::take();
        // One packet of descriptors, and two.
        for count in [1, 260] {
            for piece in [1, 5, 12, 13, 14] {
                script(&[
                    (Call::SendMsg, Fault::Short(piece)),
                    (Call::SendMsg, INTERRUPTED),
                    (Call::SendMsg, Fault::Short(piece)),
                    (Call::SendMsg, Fault::Short(piece)),
                    (Call::Send, Fault::Short(1)),
                    (Call::RecvMsg, Fault::Short(piece)),
                    (Call::RecvMsg, Fault::Short(1)),
                ]);
                ours.send(((0..count).map(numbered).collect(), "first".to_owned())).unwrap();
                ours.send((vec![numbered(9)], "second".to_owned())).unwrap();
                let (descriptors, text) = theirs.recv().unwrap();
                let numbers: Vec<_> = descriptors.into_iter().map(number_of).collect();
                assert_eq!(numbers, (0..count).collect::<Vec<_>>());
                assert_eq!(text, "first");
                let (mut descriptors, text) = theirs.recv().unwrap();
                assert_eq!(number_of(descriptors.pop().unwrap()), 9);
                assert!(descriptors.is_empty() && text == "second");
            }
        }
        script(&[]);
        assert!(theirs.try_recv().unwrap_err().is_empty());
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn send_to_a_lost_peer_returns_the_value() {
    for error in [Errno::PIPE, Errno::CONNRESET] {
        let (_receiver, sender) = simplex::<String>().unwrap();
        let (ours, theirs) = duplex::<(Option<Descriptor>, String), ()>().unwrap();
        script(&[Call::Write, Call::Send, Call::SendMsg].map(|call| (call, Fault::Error(error))));
        let result = sender.send("back".to_owned()).unwrap_err();
        assert!(matches!(&result, SendError::Disconnected(value) if value == "back"), "{result:?}");
        for descriptor in [None, Some(null())] {
            let result = ours.send((descriptor, "back".to_owned())).unwrap_err();
            assert!(result.is_disconnected(), "{result:?}");
            assert_eq!(result.into_inner().1, "back");
        }
        assert_eq!(left(), 0);

        // A peer lost in the middle of a message stays lost.
        script(&[(Call::Send, Fault::Short(5)), (Call::Send, Fault::Error(error))]);
        assert!(ours.send((None, "half".to_owned())).unwrap_err().is_disconnected());
        drop(theirs);
        assert!(ours.send((None, "next".to_owned())).unwrap_err().is_disconnected());
    }
    let (ours, _theirs) = duplex::<(), u8>().unwrap();
    script(&[(Call::RecvMsg, Fault::Error(Errno::CONNRESET))]);
    assert!(ours.recv().unwrap_err().is_disconnected());
}

#[test]
fn exhausted_resources_lose_no_message() {
    let _dog = watchdog();
    for error in EXHAUSTED {
        let fails = |call| (call, Fault::Error(error));
        let is_same = |io: &std::io::Error| io.raw_os_error() == Some(error.raw_os_error());

        script(&[Call::SocketPair, Call::Pipe].map(fails));
        assert!(is_same(&duplex::<(), ()>().unwrap_err()));
        assert!(is_same(&simplex::<()>().unwrap_err()));

        let (receiver, sender) = simplex::<String>().unwrap();
        let (ours, theirs) = duplex::<(Option<Descriptor>, Bytes), ()>().unwrap();
        script(&[Call::Write, Call::Read, Call::Poll].map(fails));
        let refused = sender.send("again".to_owned()).unwrap_err();
        assert!(matches!(&refused, SendError::Io(_, io) if is_same(io)), "{refused:?}");
        sender.send(refused.into_inner()).unwrap();
        assert!(matches!(receiver.recv(), Err(RecvError::Io(io)) if is_same(&io)));
        receiver.recv_timeout(Duration::from_secs(100)).unwrap_err();
        assert_eq!(receiver.recv().unwrap(), "again");

        script(&[Call::Send, Call::SendMsg, Call::RecvMsg, Call::Recv].map(fails));
        for descriptor in [None, Some(numbered(8))] {
            let refused = ours.send((descriptor, Bytes(vec![8; 100_000]))).unwrap_err();
            assert!(matches!(&refused, SendError::Io(_, io) if is_same(io)), "{refused:?}");
            ours.send(refused.into_inner()).unwrap();
        }
        // One failure before the message and one in the middle of it.
        for _ in 0..2 {
            assert!(matches!(theirs.recv(), Err(RecvError::Io(io)) if is_same(&io)));
        }
        let (descriptor, bytes) = theirs.recv().unwrap();
        assert!(descriptor.is_none() && bytes.0 == [8; 100_000]);
        let (descriptor, bytes) = theirs.recv().unwrap();
        assert!(number_of(descriptor.unwrap()) == 8 && bytes.0 == [8; 100_000]);
        assert_eq!(left(), 0);
    }
}

/// Whatever the sender does next, the receiver never takes the following message for the rest of
/// this one.
#[test]
fn send_that_fails_in_the_middle_is_never_hidden_from_the_receiver() {
    let _dog = watchdog();
    for error in EXHAUSTED {
        let (ours, theirs) = duplex::<String, ()>().unwrap();
        script(&[(Call::Send, Fault::Short(15)), (Call::Send, Fault::Error(error))]);
        let first = ours.send("a".repeat(100));
        assert!(matches!(first, Err(SendError::Io(..))), "{first:?}");
        let _ = ours.send("b".repeat(100));
        drop(ours);
        loop {
            match theirs.recv() {
                Ok(text) => assert!(text == "a".repeat(100) || text == "b".repeat(100), "{text}"),
                Err(RecvError::Corrupted(_) | RecvError::Disconnected) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn lost_descriptors_corrupt_the_stream() {
    alone(|()| {
        let (ours, theirs) = duplex::<Option<Descriptor>, ()>().unwrap();
        let before = Census::take();
        ours.send(None).unwrap();
        ours.send(Some(null())).unwrap();
        ours.send(None).unwrap();
        script(&[(Call::RecvMsg, Fault::Truncated)]);
        assert!(theirs.recv().unwrap().is_none(), "it arrived whole before the loss");
        assert!(theirs.poll(Duration::ZERO).unwrap(), "an error is ready to be received");
        for _ in 0..2 {
            let error = theirs.recv().unwrap_err();
            assert!(matches!(error, RecvError::Corrupted(_)), "{error}");
        }
        assert_eq!(Census::take(), before);
    });
}

/// Returns random results for some of the next system calls.
fn faults(random: &mut Random, calls: &[Call]) -> Vec<(Call, Fault)> {
    let fault = |random: &mut Random| match random.below(4) {
        0 => Fault::Nothing,
        1 => INTERRUPTED,
        2 => Fault::Short(random.pick(&[1, 2, 11, 12, 13, 14, 100])),
        _ => Fault::Short(random.pick(&[4096, 65_535, 65_536, 65_537])),
    };
    (0..random.below(200)).map(|_| (random.pick(calls), fault(random))).collect()
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Plan {
    number: usize,
    length: usize,
    descriptors: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Message {
    plan: Plan,
    content: Bytes,
    descriptors: Vec<Descriptor>,
}

impl Message {
    fn of(plan: Plan) -> Self {
        let content = Bytes(plan.content());
        Self { plan, content, descriptors: (0..plan.descriptors).map(numbered).collect() }
    }

    fn check(self, number: usize) {
        let Self { plan, content, descriptors } = self;
        assert_eq!(plan.number, number, "out of order");
        assert!(content.0 == plan.content(), "{plan:?}");
        assert_eq!(descriptors.len(), plan.descriptors);
        for (n, descriptor) in descriptors.into_iter().enumerate() {
            assert_eq!(number_of(descriptor), n, "{plan:?}");
        }
    }
}

impl Plan {
    fn content(self) -> Vec<u8> {
        (0..self.length).map(|n| (n ^ self.number).to_le_bytes()[0]).collect()
    }
}

/// Runs both sides of a conversation, each a thread with its own random scripts.
fn converse(seed: u64) {
    let _dog = watchdog();
    const MESSAGES: usize = 60;
    let send = [Call::Send, Call::SendMsg, Call::Write];
    let receive = [Call::RecvMsg, Call::Recv, Call::Read, Call::Poll];
    let (ours, theirs) = duplex::<Message, ()>().unwrap();
    let (receiver, sender) = simplex::<Message>().unwrap();
    let other = thread::spawn(move || {
        let mut random = Random::new(!seed);
        for number in 0..MESSAGES {
            let length = random.pick(&[0, 1, 5, 100, 65_500, 65_536, 200_000]);
            let mut plan = Plan { number, length, descriptors: 0 };
            script(&faults(&mut random, &send));
            sender.send(Message::of(plan)).unwrap();
            plan.descriptors = random.pick(&[0, 0, 1, 3, 252, 253, 254]);
            script(&faults(&mut random, &send));
            ours.send(Message::of(plan)).unwrap();
            if plan.descriptors > 100 {
                ours.recv().unwrap(); // otherwise too many would be in flight
            }
        }
    });
    let mut random = Random::new(seed);
    for number in 0..MESSAGES {
        script(&faults(&mut random, &receive));
        receiver.recv_timeout(Duration::from_secs(200)).unwrap().check(number);
        script(&faults(&mut random, &receive));
        let patience = Duration::from_millis(random.pick(&[0, 1]));
        let message = loop {
            match theirs.recv_timeout(patience) {
                Ok(message) => break message,
                Err(error) => assert!(error.is_timeout(), "{error}"),
            }
        };
        if message.plan.descriptors > 100 {
            theirs.send(()).unwrap();
        }
        message.check(number);
    }
    other.join().unwrap();
    script(&[]);
    assert!(receiver.recv().unwrap_err().is_disconnected());
    assert!(theirs.recv().unwrap_err().is_disconnected());
}

#[test]
fn conversations_survive_random_interruptions_and_short_counts() {
    let soak = env::var("MULTIPROC_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(soak.unwrap_or(2));
    let mut seed = random::seed();
    while Instant::now() < end {
        println!("conversation with MULTIPROC_SEED={seed}");
        converse(seed);
        seed = seed.wrapping_add(1);
    }
}
