//! The memory of a queue: its use, its release, and its exhaustion.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, process};

use multiproc::pipe::{Bytes, Connection, duplex};
use multiproc::{JoinError, Process};
use multiproc_queue::{Consumer, JoinableQueue, PutError, Queue, Shutdown};
use multiproc_testkit::{Census, alone, until, watchdog};
use serde::{Deserialize, Serialize};

use common::{RECOVERY, memory, within};

multiproc::enable_in_tests!();

const MIB: usize = 1 << 20;

/// Returns how much of a queue's memory is allocated.
fn taken(memory: &File) -> u64 {
    memory.metadata().unwrap().blocks() * 512
}

/// Returns `true` if this much memory is available without disturbing other programs.
fn has_memory(bytes: u64) -> bool {
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let available = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024;
    let has = available > 2 * bytes;
    if !has {
        eprintln!("left out: it takes {bytes} bytes, and {available} are available");
    }
    has
}

/// Returns `true` in a long run (`cargo xtask faults --soak SECONDS`), in which all sizes are the
/// intended ones.
fn is_soak() -> bool {
    env::var_os("MULTIPROC_SOAK_SECONDS").is_some()
}

/// 64 bytes, and mostly the same number encoded.
#[derive(Serialize, Deserialize, Clone, Copy)]
struct Item {
    number: u64,
    rest: ([u8; 32], [u8; 24]),
}

#[test]
fn small_queue_uses_little_memory() {
    alone(|()| {
        let before = Census::take();
        let queue = Queue::<u8>::unbounded().unwrap();
        let one = Census::take();
        assert!(one.descriptors - before.descriptors <= 4);
        assert_eq!(one.mappings - before.mappings, 1);
        assert!(taken(&memory(&queue)) <= 100 * 1024, "{}", taken(&memory(&queue)));
        let consumer = queue.consumer();
        drop((queue.clone(), queue.producer()));
        assert_eq!(Census::take(), one);
        drop(queue);
        let _ = consumer.try_get();
        assert!(Census::take().descriptors < one.descriptors);
    });
}

#[test]
fn queue_holds_millions_of_unread_items() {
    let _dog = watchdog();
    let count = if is_soak() { 10_000_000 } else { 500_000 };
    if !has_memory(count * 112) {
        return;
    }
    let queue = Queue::unbounded().unwrap();
    let item = |number| Item { number, rest: ([1; 32], [2; 24]) };
    queue.put_many((0..count).map(item)).unwrap();
    assert_eq!(queue.len() as u64, count);
    let mut next = 0;
    while next < count {
        for item in queue.get_many(128).unwrap() {
            assert_eq!((item.number, item.rest), (next, ([1; 32], [2; 24])));
            next += 1;
        }
    }
    assert!(queue.is_empty());
}

#[test]
fn queue_holds_gigabytes_of_unread_items() {
    let _dog = watchdog();
    let count: u64 = if is_soak() { 4200 } else { 300 };
    if !has_memory(count * MIB as u64) {
        return;
    }
    let queue = Queue::unbounded().unwrap();
    let memory = memory(&queue);
    for n in 0..count {
        let mut item = vec![7; MIB];
        item[..8].copy_from_slice(&n.to_le_bytes());
        queue.put(Bytes(item)).unwrap_or_else(|error| panic!("item {n}: {error}"));
    }
    assert!(taken(&memory) >= count * MIB as u64);
    for n in 0..count {
        let Bytes(bytes) = queue.get().unwrap();
        assert_eq!((&bytes[..8], bytes.len(), bytes[MIB - 1]), (&n.to_le_bytes()[..], MIB, 7));
    }
    assert!(taken(&memory) < 2 * MIB as u64, "{} bytes are kept", taken(&memory));
    // The queue works as before.
    assert!(queue.try_get().unwrap_err().is_empty());
    queue.put(Bytes(vec![1; 3 * MIB])).unwrap();
    assert_eq!(queue.get().unwrap().0, vec![1; 3 * MIB]);
}

/// Much data has passed, at a low or a bursty fill level: its memory is released.
#[test]
fn memory_of_got_items_is_released() {
    let _dog = watchdog();
    let queue = Queue::<Bytes>::unbounded().unwrap();
    let memory = memory(&queue);
    let passes = if is_soak() { 64 } else { 4 };
    for pass in 0..passes {
        let put = |queue: Queue<Bytes>| {
            (0..256).for_each(|_| queue.put(Bytes(vec![5; MIB / 4])).unwrap());
        };
        let producer = Process::spawn(put, queue.clone()).unwrap();
        if pass % 2 == 0 {
            assert_eq!(producer.wait().code(), Some(0));
        }
        for _ in 0..256 {
            assert_eq!(queue.get().unwrap().0.len(), MIB / 4);
        }
        producer.join().unwrap();
        // A consumer that waits for the next item releases what the last get has left.
        let _ = queue.get_timeout(Duration::from_millis(120));
        assert!(taken(&memory) < 2 * MIB as u64, "{} bytes are kept", taken(&memory));
    }
}

/// A shrinking backlog releases memory before it is empty.
#[test]
fn shrinking_backlog_releases_memory_before_it_is_empty() {
    let _dog = watchdog();
    if !has_memory(512 * MIB as u64) {
        return;
    }
    let queue = Queue::<Bytes>::unbounded().unwrap();
    let memory = memory(&queue);
    (0..400).for_each(|_| queue.put(Bytes(vec![5; MIB])).unwrap());
    let most = taken(&memory);
    (0..350).for_each(|_| drop(queue.get().unwrap()));
    assert_eq!(queue.len(), 50);
    assert!(taken(&memory) < most / 2, "{} of {most} bytes are kept", taken(&memory));
    // It continues in memory that was released, and in memory that was not.
    (0..200).for_each(|n| queue.put(Bytes(vec![n; MIB])).unwrap());
    (0..50).for_each(|_| assert_eq!(queue.get().unwrap().0, vec![5; MIB]));
    (0..200).for_each(|n| assert_eq!(queue.get().unwrap().0, vec![n; MIB]));
}

/// Discarded items release their memory at once, and not only with the last handle.
#[test]
fn shutdown_now_releases_the_memory_of_discarded_items() {
    let _dog = watchdog();
    for by_producer in [false, true] {
        let queue = Queue::<Bytes>::unbounded().unwrap();
        let memory = memory(&queue);
        (0..64).for_each(|_| queue.put(Bytes(vec![1; MIB])).unwrap());
        assert!(taken(&memory) > 64 * MIB as u64);
        if by_producer {
            queue.producer().shutdown(Shutdown::Now);
        } else {
            queue.shutdown(Shutdown::Now);
        }
        assert!(taken(&memory) < 2 * MIB as u64, "{} bytes are kept", taken(&memory));
        assert_eq!(queue.inspect().2.map(|(put, got)| put - got), Some(0));
    }
}

#[test]
fn items_without_a_consumer_are_discarded() {
    let _dog = watchdog();
    let hold = |(_consumer, parent): (Consumer<Bytes>, Connection<(), ()>)| {
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    for killed in [false, true] {
        for ask in [true, false] {
            let queue = Queue::<Bytes>::unbounded().unwrap();
            let memory = memory(&queue);
            let (ours, theirs) = duplex::<(), ()>().unwrap();
            let child = Process::spawn(hold, (queue.consumer(), theirs)).unwrap();
            ours.recv().unwrap();
            let producer = queue.producer();
            drop(queue);
            (0..64).for_each(|_| producer.put(Bytes(vec![1; MIB])).unwrap());
            assert_eq!(producer.len(), 64, "a consumer is left");
            if killed {
                child.kill().unwrap();
            } else {
                drop(ours);
            }
            child.wait();
            if ask {
                assert_eq!((producer.len(), producer.is_empty()), (0, true));
            }
            // A killed consumer is noticed by a periodic check.
            let error = (0..2000).find_map(|_| producer.try_put(Bytes(vec![1])).err());
            assert!(error.unwrap().is_disconnected());
            assert_eq!(producer.len(), 0);
            assert!(taken(&memory) < 2 * MIB as u64, "{} bytes are kept", taken(&memory));
        }
    }
}

/// Only queued tasks are discarded. A task in progress keeps its bytes, and can become a dead
/// letter.
#[test]
fn task_in_work_keeps_its_bytes_after_shutdown_now() {
    let _dog = watchdog();
    let queue = JoinableQueue::<Bytes>::builder().max_attempts(1).build().unwrap();
    let item = |n: u8| Bytes(vec![n; MIB]);
    (0..32).for_each(|n| queue.put(item(n)).unwrap());
    let task = queue.get().unwrap();
    queue.shutdown(Shutdown::Now);
    assert!(queue.get().unwrap_err().is_closed());
    assert_eq!((queue.len(), queue.unfinished()), (0, 1));
    drop(task);
    let letters = queue.dead_letters().unwrap();
    assert!(letters.len() == 1 && letters[0].item() == Some(&item(0)));
}

/// Tasks that came back are discarded as well: those of a live worker, and those of a dead one.
#[test]
fn returned_tasks_without_a_consumer_release_their_memory() {
    let _dog = watchdog();
    let item = || Bytes(vec![1; MIB - 100]);
    for by_end in [false, true] {
        let queue = JoinableQueue::<Bytes>::unbounded().unwrap();
        let (left, right) = duplex::<JoinableQueue<Bytes>, ()>().unwrap();
        left.send(queue.clone()).unwrap();
        let memory = File::from(right.retype::<(), common::Wire>().recv().unwrap().0.0);
        queue.put_many((0..20).map(|_| item())).unwrap();
        let tasks: Vec<_> = (0..10).map(|_| queue.get().unwrap()).collect();
        let hold = |queue: JoinableQueue<Bytes>| {
            let _tasks: Vec<_> = (0..10).map(|_| queue.get().unwrap()).collect();
            process::abort();
        };
        let worker: Process<()> = Process::spawn(hold, queue.clone()).unwrap();
        assert_eq!(worker.wait().signal(), Some(6));
        drop(tasks);
        assert!(taken(&memory) > 20 * MIB as u64 - 2000);
        let producer = queue.producer();
        if by_end {
            // A producer that asks for the length finds that no consumer is left.
            drop(queue);
            assert_eq!(producer.len(), 0);
            assert!(taken(&memory) < 3 * MIB as u64, "{} bytes are kept", taken(&memory));
        } else {
            queue.shutdown(Shutdown::Now);
            assert!(taken(&memory) < 3 * MIB as u64, "{} bytes are kept", taken(&memory));
            assert_eq!(queue.unfinished(), 0);
        }
        assert!(producer.put(item()).is_err());
    }
}

#[test]
fn items_larger_than_the_hot_ring_arrive() {
    let _dog = watchdog();
    let queue = Queue::<Bytes>::bounded(4).unwrap();
    for len in [256 << 10, (256 << 10) - 20, 65_536 - 19, 65_536, MIB, 10 * MIB, 100 * MIB] {
        let fill = len.to_le_bytes()[0] | 1;
        queue.put(Bytes(vec![0; 10])).unwrap();
        queue.put(Bytes(vec![fill; len])).unwrap();
        queue.put(Bytes(vec![1; 10])).unwrap();
        assert_eq!(queue.get().unwrap().0, [0; 10]);
        assert!(queue.get().unwrap().0 == vec![fill; len]);
        assert_eq!(queue.get().unwrap().0, [1; 10]);
    }
}

/// A process is killed while it puts or gets a large item: the others go on, and no partial item
/// appears.
#[test]
fn killed_process_leaves_no_partial_large_item() {
    let _dog = watchdog();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let put = |(queue, parent): (Queue<Bytes>, Connection<(), ()>)| {
        let item = Bytes(vec![3; 100 * MIB]);
        parent.send(()).unwrap();
        queue.put(item).unwrap();
    };
    for _ in 0..6 {
        let queue = Queue::<Bytes>::unbounded().unwrap();
        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let producer = Process::spawn(put, (queue.clone(), theirs)).unwrap();
        ours.recv().unwrap();
        std::thread::sleep(Duration::from_millis(random.u64(..150)));
        producer.kill().unwrap();
        producer.wait();
        within(RECOVERY, || queue.put(Bytes(vec![4; 100])).unwrap());
        let there = queue.len();
        assert!((1..=2).contains(&there));
        if there == 2 {
            let get = |queue: Queue<Bytes>| drop(queue.get());
            let consumer = Process::spawn(get, queue.clone()).unwrap();
            std::thread::sleep(Duration::from_millis(random.u64(..60)));
            consumer.kill().unwrap();
            consumer.wait();
            if within(RECOVERY, || queue.len()) == 2 {
                assert!(queue.get().unwrap().0 == vec![3; 100 * MIB]);
            }
        }
        within(RECOVERY, || assert_eq!(queue.get().unwrap().0, [4; 100]));
        assert!(queue.is_empty());
    }
}

#[test]
fn max_bytes_bounds_the_queued_bytes() {
    let _dog = watchdog();
    let queue = Queue::<Bytes>::builder().max_bytes(10 * MIB).build().unwrap();
    assert_eq!((queue.capacity(), queue.max_bytes()), (None, 10 * MIB));
    let put = (0..).take_while(|_| queue.try_put(Bytes(vec![1; MIB])).is_ok()).count();
    assert_eq!(put, 9, "with their headers, ten are too many");
    assert!(!queue.is_full(), "the number of items is unlimited");
    assert!(queue.put_timeout(Bytes(vec![1; MIB]), Duration::from_millis(5)).is_err());
    // There is room for smaller items, until it is used up.
    let smaller = (0..).take_while(|_| queue.try_put(Bytes(vec![1; 1000])).is_ok()).count();
    assert!((900..1100).contains(&smaller), "{smaller}");
    // A put waits for as many bytes as it needs.
    let put = |queue: Queue<Bytes>| queue.put(Bytes(vec![2; 5 * MIB])).unwrap();
    let producer = Process::spawn(put, queue.clone()).unwrap();
    for _ in 0..9 + smaller {
        queue.get().unwrap();
    }
    assert_eq!(queue.get().unwrap().0, vec![2; 5 * MIB]);
    producer.join().unwrap();
    // The largest possible item: its length takes five bytes.
    queue.put(Bytes(vec![1; 10 * MIB - 5])).unwrap();
    assert_eq!(queue.get().unwrap().0.len(), 10 * MIB - 5);
}

#[test]
fn builder_checks_max_bytes_and_keeps_the_name() {
    for bytes in [0, (1 << 40) + 1, usize::MAX] {
        let error = Queue::<u8>::builder().max_bytes(bytes).build().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    for bytes in [1, 2, 15, 16, 100, (256 << 10) - 16, 256 << 10, MIB + 1, 1 << 40] {
        let queue = Queue::<u8>::builder().max_bytes(bytes).build().unwrap();
        queue.put(1).unwrap();
        assert_eq!(queue.get().unwrap(), 1);
        assert_eq!(queue.max_bytes(), bytes);
        let child = Process::spawn(|queue: Queue<u8>| queue.put(2).unwrap(), queue.clone());
        child.unwrap().join().unwrap();
        assert_eq!(queue.get().unwrap(), 2);
    }
    let builder = Queue::<u8>::builder().capacity(3).max_bytes(9).name("jobs");
    let text = format!("{builder:?}");
    assert!(text.contains("capacity: Some(3), max_bytes: 9, name: Some(\"jobs\")"), "{text}");
    let queue = Queue::<u8>::builder().name("ü".repeat(500)).build().unwrap();
    assert_eq!(queue.name().map(str::len), Some(1000));
    let same = common::retype::<u8, u8>(&queue);
    assert_eq!(same.name(), queue.name());
}

/// A memory control group with a limit, which is removed at the end.
struct Group(PathBuf);

impl Group {
    /// Returns `None`, with a message, where control groups cannot be created.
    fn new(limit: usize) -> Option<Self> {
        let name = format!("multiproc-test-{}", process::id());
        for (root, file) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let group = Self(Path::new(root).join(&name));
            if Path::new(root).join("cgroup.procs").exists()
                && fs::create_dir(&group.0).is_ok()
                && fs::write(group.0.join(file), limit.to_string()).is_ok()
            {
                return Some(group);
            }
        }
        eprintln!("left out: this machine has no memory control groups that can be made here");
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// The kernel kills a producer that uses too much memory. The items that it had put are queued.
#[test]
fn items_of_a_producer_killed_by_the_memory_limit_are_kept() {
    let _dog = watchdog();
    let Some(group) = Group::new(64 * MIB) else { return };
    let queue = Queue::<(u32, Bytes)>::unbounded().unwrap();
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let put = |(queue, parent): (Queue<(u32, Bytes)>, Connection<(), ()>)| {
        parent.recv().unwrap();
        let refused = (0..200).find_map(|n| queue.put((n, Bytes(vec![1; MIB]))).err());
        refused.map(|error| matches!(error, PutError::OutOfMemory(_)))
    };
    let producer = Process::spawn(put, (queue.clone(), theirs)).unwrap();
    if let Err(error) = fs::write(group.0.join("cgroup.procs"), producer.pid().to_string()) {
        eprintln!("left out: {error}");
        producer.kill().unwrap();
        return;
    }
    ours.send(()).unwrap();
    match producer.join() {
        Ok(None) => eprintln!("the limit has no effect here"),
        Ok(Some(is_out_of_memory)) => assert!(is_out_of_memory, "a put failed for another reason"),
        Err(error) => assert_eq!(error, JoinError::Signaled(9, false)),
    }
    let there = queue.len();
    assert!(there >= 20, "{there}");
    queue.shutdown(Shutdown::Drain);
    within(60 * RECOVERY, || {
        for (n, item) in queue.iter().enumerate() {
            let (number, bytes) = item.unwrap();
            assert_eq!((number as usize, bytes.0.len()), (n, MIB));
        }
    });
    drop(queue);
    until(|| fs::remove_dir(&group.0).is_ok() || !group.0.exists());
}
