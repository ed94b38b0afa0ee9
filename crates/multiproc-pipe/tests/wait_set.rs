//! A set of sources that is kept from call to call.

use std::fs::File;
use std::rc::Rc;
use std::time::Duration;

use multiproc::{Consumer, Process, Producer, Queue};
use multiproc_pipe::{Connection, Receiver, Source, WaitSet, duplex, simplex, wait};
use multiproc_testkit::{Census, alone, is_asleep, until, watchdog};

multiproc::enable_in_tests!();

const NOW: Option<Duration> = Some(Duration::ZERO);
const MOMENT: Option<Duration> = Some(Duration::from_millis(20));

#[test]
fn tokens_stay_valid_when_others_are_removed() {
    let _dog = watchdog();
    let mut set = WaitSet::new();
    let mut senders = Vec::new();
    let mut tokens = Vec::new();
    for _ in 0..5 {
        let (receiver, sender) = simplex::<u32>().unwrap();
        tokens.push(set.add(receiver));
        senders.push(sender);
    }
    assert!(set.wait(NOW).unwrap().is_empty());
    for n in [4, 1, 3] {
        senders[n].send(u32::try_from(n).unwrap()).unwrap();
    }
    assert_eq!(set.wait(None).unwrap(), [tokens[1], tokens[3], tokens[4]]);
    let removed = set.remove(tokens[1]).unwrap();
    assert_eq!(removed.recv().unwrap(), 1);
    set.remove(tokens[0]).unwrap();
    assert_eq!(set.wait(Some(Duration::MAX)).unwrap(), [tokens[3], tokens[4]]);
    assert_eq!(set[tokens[3]].recv().unwrap(), 3);
    assert_eq!(set.wait(None).unwrap(), [tokens[4]]);

    // A removed token is not reused, also if its source comes back.
    assert!(set.remove(tokens[1]).is_none() && set.get(tokens[1]).is_none());
    let again = set.add(removed);
    assert!(!tokens.contains(&again));
    senders[1].send(7).unwrap();
    assert_eq!(set.wait(None).unwrap(), [tokens[4], again]);
    assert_eq!(set.len(), 4);
    let all: Vec<_> = set.iter().map(|(token, _)| token).collect();
    assert_eq!(all, [tokens[2], tokens[3], tokens[4], again]);
}

#[test]
fn empty_set_returns_at_once_and_is_never_ready_in_another() {
    let _dog = watchdog();
    let empty = WaitSet::<Receiver<u8>>::new();
    assert!(empty.is_empty());
    assert!(empty.wait(None).unwrap().is_empty());
    assert!(wait([&empty], MOMENT).unwrap().is_empty());
}

#[test]
#[should_panic(expected = "is not in the set")]
fn index_by_a_removed_token_panics() {
    let mut set = WaitSet::new();
    let token = set.add(File::open("/dev/null").unwrap());
    set.remove(token);
    let _ = &set[token];
}

#[test]
fn killed_peer_makes_its_source_ready() {
    let _dog = watchdog();
    let mut set = WaitSet::<Box<dyn Source>>::new();
    let mut children = Vec::new();
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let (ours, theirs) = duplex::<(), u32>().unwrap();
        let child = Process::spawn(|end: Connection<u32, ()>| drop(end.recv()), theirs).unwrap();
        let child = Rc::new(child);
        tokens.push((set.add(Box::new(ours)), set.add(Box::new(Rc::clone(&child)))));
        children.push(child);
    }
    assert!(set.wait(NOW).unwrap().is_empty());
    until(|| is_asleep(children[1].pid()));
    children[1].kill().unwrap();
    let (connection, process) = tokens[1];
    // The connection is closed before the process counts as terminated.
    until(|| set.wait(None).unwrap() == [connection, process]);
    set.remove(connection);
    set.remove(process);
    assert!(set.wait(NOW).unwrap().is_empty());
    for child in [0, 2] {
        children[child].kill().unwrap();
        children[child].wait();
    }
    assert_eq!(set.wait(None).unwrap().len(), 4);
}

#[test]
fn children_are_joined_as_they_end() {
    let _dog = watchdog();
    let mut set = WaitSet::new();
    for n in 0..8_u32 {
        set.add(Process::spawn(|n: u32| n * n, n).unwrap());
    }
    let mut squares = Vec::new();
    while !set.is_empty() {
        for token in set.wait(None).unwrap() {
            squares.push(set.remove(token).unwrap().join().unwrap());
        }
    }
    squares.sort_unstable();
    assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36, 49]);
}

/// Waits for a set of queues beside a set of processes, and ends when both are over.
#[test]
fn sets_of_queues_and_processes_are_waited_for_together() {
    let _dog = watchdog();
    let mut queues = WaitSet::<Consumer<u32>>::new();
    let mut workers = WaitSet::new();
    for n in 0..3 {
        let queue = Queue::bounded(2).unwrap();
        let work = |(n, queue): (u32, Producer<u32>)| {
            for i in 0..50 {
                queue.put(n * 100 + i).unwrap();
            }
            if n == 1 {
                std::process::abort(); // as if it was killed
            }
        };
        workers.add(Process::spawn(work, (n, queue.producer())).unwrap());
        queues.add(queue.consumer());
    }
    let (mut items, mut failed) = (Vec::new(), 0);
    while !queues.is_empty() || !workers.is_empty() {
        assert!(!wait([&queues as &dyn Source, &workers], None).unwrap().is_empty());
        for token in queues.wait(NOW).unwrap() {
            match queues[token].try_get() {
                Ok(item) => items.push(item),
                Err(error) if error.is_disconnected() => drop(queues.remove(token)),
                Err(error) => assert!(error.is_empty(), "{error}"),
            }
        }
        for token in workers.wait(NOW).unwrap() {
            failed += u32::from(workers.remove(token).unwrap().join().is_err());
        }
    }
    items.sort_unstable();
    assert_eq!(items, (0..3).flat_map(|n| n * 100..n * 100 + 50).collect::<Vec<u32>>());
    assert_eq!(failed, 1);
}

#[test]
fn nested_set_with_a_partial_message_sleeps() {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    let _dog = watchdog();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut set = WaitSet::new();
    let token = set.add(Receiver::<String>::from_fd(ours.into()).unwrap());
    theirs.write_all(&[2, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let before = cpu();
    assert!(wait([&set], Some(Duration::from_millis(300))).unwrap().is_empty());
    let used = cpu() - before;
    assert!(used.tv_sec == 0 && used.tv_nsec < 150_000_000, "it slept: {used:?}");
    drop(theirs);
    assert_eq!(wait([&set], None).unwrap(), [0]);
    assert_eq!(set.wait(None).unwrap(), [token]);
}

/// More descriptors than select(2) supports, which come and go.
#[test]
fn thousands_of_sources_come_and_go() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    alone(|()| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(10_000), maximum }).unwrap();
        let before = Census::take();
        let mut set = WaitSet::new();
        let mut senders = Vec::new();
        for n in 0..2000_u32 {
            let (receiver, sender) = simplex::<u32>().unwrap();
            let token = set.add(receiver);
            senders.push((n, token, sender));
        }
        assert!(set.wait(NOW).unwrap().is_empty());
        let half: Vec<_> = senders.drain(1000..).collect();
        for (n, token, sender) in half {
            sender.send(n).unwrap();
            assert_eq!(set.wait(None).unwrap(), [token]);
            assert_eq!(set.remove(token).unwrap().recv().unwrap(), n);
        }
        assert_eq!(set.len(), 1000);
        drop(senders);
        assert_eq!(set.wait(None).unwrap().len(), 1000, "an end is ready");
        drop(set);
        assert_eq!(Census::take(), before);
    });
}
