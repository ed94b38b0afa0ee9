//! Waiting for the first of many sources.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc_pipe::{Bytes, Connection, Receiver, Sender, Source, duplex, simplex, wait};
use multiproc_testkit::{Census, alone, is_asleep, until, watchdog};

multiproc::enable_in_tests!();

const NOW: Option<Duration> = Some(Duration::ZERO);

#[test]
fn wait_returns_all_ready_sources_in_order() {
    let _dog = watchdog();
    let pairs: Vec<_> = (0..10_u32).map(|_| simplex::<u32>().unwrap()).collect();
    let (receivers, senders): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    assert!(wait(&receivers, NOW).unwrap().is_empty());
    for n in [8, 2, 5] {
        senders[n].send(1).unwrap();
    }
    assert_eq!(wait(&receivers, NOW).unwrap(), [2, 5, 8]);
    assert_eq!(wait(&receivers, None).unwrap(), [2, 5, 8], "wait consumes nothing");
    assert_eq!(wait(&receivers, Some(Duration::MAX)).unwrap(), [2, 5, 8]);
    assert_eq!(receivers[5].recv().unwrap(), 1);
    assert_eq!(wait(receivers.iter().rev(), None).unwrap(), [1, 7], "indices into the sources");
    drop(senders);
    assert_eq!(wait(&receivers, None).unwrap(), (0..10).collect::<Vec<_>>(), "an end is ready");
}

#[test]
fn source_with_read_ahead_messages_is_ready() {
    let _dog = watchdog();
    let (reader, writer) = simplex::<u8>().unwrap();
    let (left, right) = duplex::<u8, u8>().unwrap();
    let (_other, nothing) = duplex::<u8, u8>().unwrap();
    for n in 0..2 {
        writer.send(n).unwrap();
        left.send(n).unwrap();
    }
    reader.recv().unwrap();
    right.recv().unwrap();
    // The kernel's buffers are empty, so the descriptors are not ready.
    assert!(wait([reader.as_fd(), right.as_fd()], NOW).unwrap().is_empty());
    let sources: [&dyn Source; 3] = [&nothing, &reader, &right];
    assert_eq!(wait(sources, None).unwrap(), [1, 2]);
    reader.recv().unwrap();
    right.recv().unwrap();
    assert!(wait(sources, NOW).unwrap().is_empty());
    // A source that is ready by its read-ahead does not hide one that is ready in the kernel.
    writer.send(3).unwrap();
    writer.send(4).unwrap();
    reader.recv().unwrap();
    left.send(5).unwrap();
    assert_eq!(wait(sources, None).unwrap(), [1, 2]);
}

#[test]
fn partial_message_is_not_ready_and_does_not_spin() {
    let _dog = watchdog();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let ours = Connection::<(), String>::from_socket(ours.into()).unwrap();
    theirs.write_all(&[3, 0, 0, 0, 0]).unwrap();
    let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (start, before) = (Instant::now(), cpu());
    let timeout = Duration::from_millis(300);
    assert!(wait([&ours], Some(timeout)).unwrap().is_empty());
    assert!(start.elapsed() >= timeout);
    let used = cpu() - before;
    assert!(used.tv_sec == 0 && used.tv_nsec < 150_000_000, "it slept: {used:?}");
    theirs.write_all(&[0, 0, 0, 0, 0, 0, 0, 2, b'h']).unwrap();
    assert!(wait([&ours], NOW).unwrap().is_empty());
    theirs.write_all(b"i").unwrap();
    assert_eq!(wait([&ours], None).unwrap(), [0]);
    assert_eq!(ours.recv().unwrap(), "hi");
    theirs.write_all(&[3]).unwrap();
    assert!(wait([&ours], NOW).unwrap().is_empty());
    drop(theirs);
    assert_eq!(wait([&ours], None).unwrap(), [0], "a corrupted stream is ready");
    assert_eq!(wait([&ours], None).unwrap(), [0], "it stays ready");
}

#[test]
fn message_in_small_pieces_does_not_extend_the_deadline() {
    let _dog = watchdog();
    let (reader, writer) = std::io::pipe().unwrap();
    let reader = Receiver::<Bytes>::from_fd(reader.into()).unwrap();
    let mut writer = File::from(OwnedFd::from(writer));
    writer.write_all(&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap(); // announces 4 GiB
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let drip = thread::spawn(move || {
        while stopped.recv_timeout(Duration::from_millis(1)).is_err() {
            writer.write_all(&[0; 10]).unwrap();
        }
    });
    let start = Instant::now();
    assert!(wait([&reader], Some(Duration::from_millis(50))).unwrap().is_empty());
    assert!(!reader.poll(Duration::from_millis(50)).unwrap());
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(100) && elapsed < Duration::from_secs(10));
    stop.send(()).unwrap();
    drip.join().unwrap();
}

#[test]
fn every_kind_of_source_can_be_waited_for() {
    let _dog = watchdog();
    let (connection, _peer) = duplex::<u8, u8>().unwrap();
    let (receiver, _sender) = simplex::<u8>().unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    let (pipe, _end): (PipeReader, _) = std::io::pipe().unwrap();
    let zero = File::open("/dev/zero").unwrap();
    let owned = OwnedFd::from(zero.try_clone().unwrap());
    let borrowed = owned.as_fd();
    let child = Process::spawn(|()| (), ()).unwrap();
    child.wait();
    let sources: &[&dyn Source] =
        &[&connection, &receiver, &stream, &pipe, &zero, &owned, &borrowed, &child];
    assert_eq!(wait(sources, None).unwrap(), [4, 5, 6, 7]);
    assert_eq!(wait([&*child as &multiproc::Child], NOW).unwrap(), [0]);
    assert_eq!(wait([connection.as_fd(), zero.as_fd()], None).unwrap(), [1]);
    assert_eq!(wait([&zero as &dyn AsFd, &pipe], None).unwrap(), [0]);
    assert!(wait(&[&connection, &connection], NOW).unwrap().is_empty());
    assert_eq!(wait(vec![Box::new(&zero)], NOW).unwrap(), [0]);
}

#[test]
fn wait_without_sources_returns_at_once() {
    let _dog = watchdog();
    let none: [&dyn Source; 0] = [];
    assert!(wait(none, None).unwrap().is_empty());
    assert!(wait(none, Some(Duration::MAX)).unwrap().is_empty());
}

#[test]
fn wait_sleeps_until_a_source_is_ready() {
    let _dog = watchdog();
    let (ours, theirs) = duplex::<(), u32>().unwrap();
    let (reader, writer) = simplex::<u32>().unwrap();
    let child = Process::spawn(
        |(end, _writer): (Connection<u32, ()>, Sender<u32>)| {
            end.recv().unwrap();
            end.send(5).unwrap();
            end.recv().unwrap();
        },
        (theirs, writer),
    )
    .unwrap();
    let all: [&dyn Source; 3] = [&ours, &reader, &child];
    assert!(wait(all, NOW).unwrap().is_empty());
    ours.send(()).unwrap();
    assert_eq!(wait(all, None).unwrap(), [0]);
    assert_eq!(ours.recv().unwrap(), 5);
    until(|| is_asleep(child.pid()));
    assert!(wait(all, NOW).unwrap().is_empty());
    child.kill().unwrap();
    // Its ends are closed before it counts as terminated.
    until(|| wait(all, None).unwrap() == [0, 1, 2]);
    assert!(ours.recv().unwrap_err().is_disconnected());
    child.wait();
}

/// A child whose result is larger than a buffer cannot exit before the result is read.
#[test]
fn wait_for_a_child_reads_its_result() {
    let _dog = watchdog();
    let child = Process::spawn(|()| Bytes(vec![7; 5_000_000]), ()).unwrap();
    assert_eq!(wait([&child], None).unwrap(), [0]);
    assert!(child.join().unwrap().0 == vec![7; 5_000_000]);
    let child = Process::spawn(|()| Bytes(vec![8; 5_000_000]), ()).unwrap();
    assert_eq!(wait([&*child], None).unwrap(), [0]);
    assert!(child.join().unwrap().0 == vec![8; 5_000_000]);
}

/// More descriptors than select(2) supports.
#[test]
fn thousands_of_sources_can_be_waited_for() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    alone(|()| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(10_000), maximum }).unwrap();
        let before = Census::take();
        let pairs: Vec<_> = (0..2000_u32).map(|_| simplex::<u32>().unwrap()).collect();
        let sources = || pairs.iter().map(|(receiver, _)| receiver);
        assert!(wait(sources(), NOW).unwrap().is_empty());
        pairs[1999].1.send(1).unwrap();
        pairs[1500].1.send(1).unwrap();
        assert_eq!(wait(sources(), None).unwrap(), [1500, 1999]);
        drop(pairs);
        assert_eq!(Census::take(), before);
    });
}

/// Stopping and continuing the process does not move the deadline.
#[test]
fn stopped_process_does_not_extend_the_deadline() {
    alone(|()| {
        let (reader, _writer) = simplex::<u8>().unwrap();
        let tick = Duration::from_millis(2);
        let pid = rustix::process::getpid();
        let child = Process::spawn(
            |(pid, tick): (i32, Duration)| {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                for _ in 0..100 {
                    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
                    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
                    thread::sleep(tick);
                }
            },
            (pid.as_raw_nonzero().get(), tick),
        )
        .unwrap();
        let start = Instant::now();
        let timeout = Duration::from_millis(100);
        assert!(wait([&reader], Some(timeout)).unwrap().is_empty());
        let elapsed = start.elapsed();
        assert!(elapsed >= timeout && elapsed < Duration::from_secs(10), "{elapsed:?}");
        child.join().unwrap();
    });
}

/// A source implemented by the program: it is prepared, is woken twice without being ready, and
/// then is ready.
#[test]
fn custom_source_decides_when_it_is_ready() {
    struct Picky {
        reader: PipeReader,
        prepared: Cell<u32>,
        woken: Cell<u32>,
    }
    impl Source for Picky {
        fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
            add(self.reader.as_fd());
        }

        fn prepare(&self) -> io::Result<bool> {
            self.prepared.set(self.prepared.get() + 1);
            Ok(false)
        }

        fn woken(&self) -> io::Result<bool> {
            self.woken.set(self.woken.get() + 1);
            if self.woken.get() == 4 {
                Err(io::Error::other("enough"))
            } else {
                Ok(self.woken.get() == 3)
            }
        }
    }
    let _dog = watchdog();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let picky = Picky { reader, prepared: Cell::new(0), woken: Cell::new(0) };
    writer.write_all(&[1]).unwrap();
    assert_eq!(wait([&picky], None).unwrap(), [0]);
    assert_eq!((picky.prepared.get(), picky.woken.get()), (3, 3));
    assert_eq!(wait([&picky], None).unwrap_err().to_string(), "enough");
}
