//! Kills processes at every named point of `put` and `get`. Run by `cargo xtask faults`, which
//! compiles the points in.
#![cfg(multiproc_faults)]

mod common;

use std::collections::BTreeSet;
use std::env;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use multiproc::pipe::{Bytes, Receiver, Sender, simplex};
use multiproc::{JoinError, Process};
use multiproc_queue::{
    GET_POINTS, LANE_POINTS, OVERFLOW_POINTS, PUT_POINTS, Producer, PutError, Queue, SELDOM_POINTS,
    Shutdown, TryPutError,
};
use multiproc_shm::failpoint::refuse;
use multiproc_testkit::{Census, alone, die_at, is_asleep, until, watchdog};

use common::memory;

multiproc::enable_in_tests!();

const KILLED: JoinError = JoinError::Signaled(9, false);

/// The guaranteed bound is one second for every operation. The queue's own locks are designed to be
/// recovered within about 20 ms, but the machine may be busy, so the tests use the guaranteed
/// bound.
const RECOVERY: Duration = Duration::from_secs(1);

/// Runs a process that puts 0, 1, 2… and dies at `point` of the third put.
fn doomed_producer(queue: &Queue<u32>, point: &str) {
    let put = |(queue, point): (Queue<u32>, String)| {
        die_at(&point, 3);
        (0..10).for_each(|n| queue.put(n).unwrap());
    };
    let child = Process::spawn(put, (queue.clone(), point.to_owned())).unwrap();
    assert_eq!(child.join().unwrap_err(), KILLED, "{point} was not reached");
}

/// Runs a process that gets items and dies at `point` of the third get.
fn doomed_consumer(queue: &Queue<u32>, point: &str) {
    let get = |(queue, point): (Queue<u32>, String)| {
        die_at(&point, 3);
        (0..10).for_each(|_| _ = queue.get().unwrap());
    };
    let child = Process::spawn(get, (queue.clone(), point.to_owned())).unwrap();
    assert_eq!(child.join().unwrap_err(), KILLED, "{point} was not reached");
}

fn within_recovery<R>(action: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = action();
    assert!(start.elapsed() < RECOVERY, "it took {:?}", start.elapsed());
    result
}

#[test]
fn faults_producer_killed_at_each_point_loses_no_accepted_item() {
    let _dog = watchdog();
    for &point in PUT_POINTS {
        let queue = Queue::bounded(4).unwrap();
        doomed_producer(&queue, point);
        let was_put = matches!(point, "put.committed" | "put.unlocked");
        let there = if was_put { 3 } else { 2 };
        assert_eq!(queue.len(), there, "{point}");
        within_recovery(|| queue.try_put(100).unwrap());
        // The capacity is unchanged.
        (there..3).for_each(|_| queue.try_put(101).unwrap());
        assert!(queue.is_full() && queue.try_put(102).unwrap_err().is_full(), "{point}");
        for n in 0..there {
            assert_eq!(within_recovery(|| queue.try_get().unwrap()) as usize, n, "{point}");
        }
        assert_eq!(queue.try_get().unwrap(), 100, "{point}");
    }
}

#[test]
fn faults_consumer_killed_at_each_point_loses_only_its_item() {
    let _dog = watchdog();
    for &point in GET_POINTS {
        let queue = Queue::bounded(4).unwrap();
        (0..4).for_each(|n| queue.put(n).unwrap());
        doomed_consumer(&queue, point);
        // Items that it had taken are lost with it.
        let was_taken = matches!(point, "get.committed" | "get.unlocked");
        let left = if was_taken { vec![3] } else { vec![2, 3] };
        assert_eq!(queue.len(), left.len(), "{point}");
        for n in left {
            assert_eq!(within_recovery(|| queue.try_get().unwrap()), n, "{point}");
        }
        assert!(queue.try_get().unwrap_err().is_empty(), "{point}");
        within_recovery(|| (0..4).for_each(|n| queue.try_put(n).unwrap()));
        assert!(queue.is_full(), "{point}");
    }
}

/// A consumer sleeps while producers die at each point. Then another producer puts an item.
#[test]
fn faults_sleeping_consumer_survives_killed_producers() {
    let _dog = watchdog();
    for &point in PUT_POINTS {
        let queue = Queue::bounded(4).unwrap();
        let get = |queue: Queue<u32>| loop {
            match queue.get().unwrap() {
                100 => return,
                n => assert!(n < 3),
            }
        };
        let consumer = Process::spawn(get, queue.clone()).unwrap();
        until(|| is_asleep(consumer.pid()));
        doomed_producer(&queue, point);
        within_recovery(|| {
            queue.put(100).unwrap();
            consumer.join().unwrap();
        });
        assert!(queue.is_empty(), "{point}");
    }
}

/// A producer sleeps at a full queue while consumers die at each point.
#[test]
fn faults_sleeping_producer_survives_killed_consumers() {
    let _dog = watchdog();
    for &point in GET_POINTS {
        let queue = Queue::bounded(3).unwrap();
        (0..3).for_each(|n| queue.put(n).unwrap());
        let put = |queue: Queue<u32>| queue.put(100).unwrap();
        let producer = Process::spawn(put, queue.clone()).unwrap();
        until(|| is_asleep(producer.pid()));
        doomed_consumer(&queue, point);
        within_recovery(|| {
            // Makes room if the first two gets have not done so already.
            while queue.get().unwrap() != 100 {}
            producer.join().unwrap();
        });
        assert!(queue.is_empty(), "{point}");
    }
}

/// Waiters, and the processes that wake them, die at the points of waiting.
#[test]
fn faults_wake_ups_lost_by_killed_processes_are_recovered() {
    let _dog = watchdog();
    for point in ["event_count.about_to_sleep", "event_count.woken"] {
        let queue = Queue::bounded(4).unwrap();
        let get = |(queue, point): (Queue<u32>, Option<String>)| {
            if let Some(point) = point {
                die_at(&point, 1);
            }
            queue.get().unwrap()
        };
        let doomed = Process::spawn(get, (queue.clone(), Some(point.to_owned()))).unwrap();
        until(|| !doomed.is_alive() || is_asleep(doomed.pid()));
        let other = Process::spawn(get, (queue.clone(), None)).unwrap();
        until(|| is_asleep(other.pid()));
        let got = within_recovery(|| {
            queue.put(1).unwrap();
            other.join().unwrap()
        });
        assert_eq!(got, 1);
        assert_eq!(doomed.join().unwrap_err(), KILLED, "{point} was not reached");
    }

    let queue = Queue::bounded(4).unwrap();
    let sleeper = Process::spawn(|queue: Queue<u32>| queue.get().unwrap(), queue.clone()).unwrap();
    until(|| is_asleep(sleeper.pid()));
    let put = |queue: Queue<u32>| {
        die_at("event_count.about_to_wake", 1);
        queue.put(5).unwrap();
    };
    let doomed = Process::spawn(put, queue).unwrap();
    assert_eq!(within_recovery(|| sleeper.join().unwrap()), 5);
    assert_eq!(doomed.join().unwrap_err(), KILLED);
}

/// The ring that the items are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Hot,
    Overflow,
}

/// An item: its number, N bytes, and the sender to the process that checks its arrival.
type Item = (u32, Bytes, Option<Sender<u32>>);

/// Fillers occupy the hot ring so that further items do not fit into it. At most two of them fit.
const FILLERS: u32 = 2;

fn filler(n: u32) -> Item {
    (1000 + n, Bytes(vec![9; 120_000]), None)
}

fn item(n: u32, place: Place, sender: Option<Sender<u32>>) -> Item {
    let len = if place == Place::Hot { 10 } else { 400_000 };
    (n, Bytes(vec![n.to_le_bytes()[0]; len]), sender)
}

/// Checks that the item is unchanged and that its descriptor belongs to it.
fn check(item: Item, expected: u32, place: Place, receivers: &[Option<Receiver<u32>>], what: &str) {
    let (number, bytes, sender) = item;
    assert_eq!(number, expected, "{what}");
    let same = self::item(number, place, None).1;
    assert!(bytes.0 == same.0, "{what}");
    let receiver = &receivers[number as usize];
    assert_eq!(sender.is_some(), receiver.is_some(), "{what}");
    if let (Some(sender), Some(receiver)) = (sender, receiver) {
        sender.send(number).unwrap();
        assert_eq!(receiver.recv().unwrap(), number, "{what}");
    }
}

/// Creates `count` channels, or none without descriptors.
#[allow(clippy::type_complexity)]
fn channels(
    count: usize,
    with_descriptors: bool,
) -> (Vec<Option<Sender<u32>>>, Vec<Option<Receiver<u32>>>) {
    let pair = |_| with_descriptors.then(|| simplex().unwrap());
    (0..count)
        .map(pair)
        .map(|pair| pair.map(|(receiver, sender)| (sender, receiver)).unzip())
        .unzip()
}

/// Returns the points of one side that every such item reaches.
fn points(side: &str, place: Place, with_descriptors: bool) -> Vec<&'static str> {
    let mut lists = vec![PUT_POINTS, GET_POINTS];
    if place == Place::Overflow {
        lists.push(OVERFLOW_POINTS);
    }
    if with_descriptors {
        lists.push(LANE_POINTS);
    }
    lists.concat().into_iter().filter(|point| point.starts_with(side)).collect()
}

fn put_and_die((queue, items, point): (Queue<Item>, Vec<Item>, String)) {
    for (n, item) in items.into_iter().enumerate() {
        // The first put that reserves memory is the first put of all.
        if n == 2 || point == "put.hot_reserved" {
            die_at(&point, 1);
        }
        queue.put(item).unwrap();
    }
}

fn a_producer_dies(point: &str, place: Place, with_descriptors: bool) {
    let what = &format!("{point}, {place:?}, descriptors: {with_descriptors}");
    let before = Census::take();
    let fillers = if place == Place::Hot { 0 } else { FILLERS };
    let capacity = 6 + fillers as usize;
    let queue = Queue::bounded(capacity).unwrap();
    (0..fillers).for_each(|n| queue.put(filler(n)).unwrap());
    let (senders, receivers) = channels(6, with_descriptors);
    let mut items: Vec<_> = (0..).zip(senders).map(|(n, sender)| item(n, place, sender)).collect();
    let rest = items.split_off(3);
    let args = (queue.clone(), items, point.to_owned());
    let child = Process::spawn(put_and_die, args).unwrap();
    assert_eq!(child.join().unwrap_err(), KILLED, "{what} was not reached");

    let there = match point {
        "put.hot_reserved" => 0,
        "put.committed" | "put.unlocked" => 3,
        _ => 2,
    };
    assert_eq!(queue.len(), (fillers + there) as usize, "{what}");
    // The capacity is unchanged.
    let mut all: Vec<u32> = (0..there).collect();
    for item in rest {
        all.push(item.0);
        within_recovery(|| queue.try_put(item).unwrap());
    }
    while queue.len() < capacity {
        queue.try_put(filler(0)).unwrap();
        all.push(1000);
    }
    assert!(queue.try_put(filler(0)).unwrap_err().is_full(), "{what}");
    for n in 0..fillers {
        assert_eq!(queue.try_get().unwrap().0, 1000 + n, "{what}");
    }
    for expected in all {
        let item = within_recovery(|| queue.try_get().unwrap());
        if expected == 1000 {
            assert_eq!(item.0, 1000, "{what}");
        } else {
            check(item, expected, place, &receivers, what);
        }
    }
    nothing_is_left(queue, receivers, what);
    assert_eq!(Census::take(), before, "{what}");
}

/// Checks that neither items nor descriptors remain.
fn nothing_is_left(queue: Queue<Item>, receivers: Vec<Option<Receiver<u32>>>, what: &str) {
    // This call discards what the killed processes left behind.
    assert!(within_recovery(|| queue.try_get().unwrap_err()).is_empty(), "{what}");
    for receiver in receivers.into_iter().flatten() {
        let error = receiver.recv_timeout(RECOVERY).unwrap_err();
        assert!(error.is_disconnected(), "{what}: {error}");
    }
    assert_eq!(queue.len(), 0, "{what}");
}

fn get_and_die((queue, skipped, point): (Queue<Item>, u32, String)) {
    (0..skipped).for_each(|_| drop(queue.get().unwrap()));
    die_at(&point, 1);
    drop(queue.get());
}

fn a_consumer_dies(point: &str, place: Place, with_descriptors: bool) {
    let what = &format!("{point}, {place:?}, descriptors: {with_descriptors}");
    let before = Census::take();
    let fillers = if place == Place::Hot { 0 } else { FILLERS };
    // The point is reached when the last item is got, because memory is released then. A consumer
    // checks the other side before anything else.
    let is_trim = point.starts_with("get.trim");
    let count = if is_trim { 3 } else { 5 };
    let skipped = if point == "get.seen" { 0 } else { fillers + 2 };
    let queue = Queue::bounded((fillers + count) as usize).unwrap();
    (0..fillers).for_each(|n| queue.put(filler(n)).unwrap());
    let (senders, receivers) = channels(count as usize, with_descriptors);
    for (n, sender) in (0..).zip(senders) {
        queue.put(item(n, place, sender)).unwrap();
    }
    let child = Process::spawn(get_and_die, (queue.clone(), skipped, point.to_owned())).unwrap();
    assert_eq!(child.join().unwrap_err(), KILLED, "{what} was not reached");

    let was_taken = is_trim || matches!(point, "get.committed" | "get.removed" | "get.unlocked");
    let left = fillers + count - skipped - u32::from(was_taken);
    assert_eq!(queue.len(), left as usize, "{what}");
    let fresh = queue.capacity().unwrap() - queue.len();
    (0..fresh).for_each(|_| within_recovery(|| queue.try_put(filler(0)).unwrap()));
    assert!(queue.try_put(filler(0)).unwrap_err().is_full(), "{what}");
    for expected in fillers + count - left..fillers + count {
        let item = within_recovery(|| queue.try_get().unwrap());
        match expected.checked_sub(fillers) {
            None => assert_eq!(item.0, 1000 + expected, "{what}"),
            Some(n) => check(item, n, place, &receivers, what),
        }
    }
    (0..fresh).for_each(|_| assert_eq!(queue.try_get().unwrap().0, 1000, "{what}"));
    nothing_is_left(queue, receivers, what);
    assert_eq!(Census::take(), before, "{what}");
}

/// Covers both rings, with and without descriptors, and both sides: no accepted item is lost, none
/// is delivered twice or with the descriptor of another, length and capacity are right, and no
/// descriptor leaks.
#[test]
fn faults_kill_at_each_point_of_both_rings_and_the_lane_is_recovered() {
    alone(|()| {
        for place in [Place::Hot, Place::Overflow] {
            for with_descriptors in [false, true] {
                for point in points("put.", place, with_descriptors) {
                    a_producer_dies(point, place, with_descriptors);
                }
                for point in points("get.", place, with_descriptors) {
                    a_consumer_dies(point, place, with_descriptors);
                }
            }
        }
        for with_descriptors in [false, true] {
            a_producer_dies("put.hot_reserved", Place::Hot, with_descriptors);
            a_producer_dies("put.seen", Place::Overflow, with_descriptors);
            a_consumer_dies("get.seen", Place::Hot, with_descriptors);
            a_consumer_dies("get.seen", Place::Overflow, with_descriptors);
            a_consumer_dies("get.trim_prepared", Place::Overflow, with_descriptors);
            a_consumer_dies("get.trim_committed", Place::Overflow, with_descriptors);
        }
    });
}

/// Some memory is released in the middle of a long backlog.
#[test]
fn faults_consumer_killed_while_releasing_memory_loses_no_item() {
    const COUNT: u32 = 150;
    let _dog = watchdog();
    let queue = Queue::<(u32, Bytes)>::unbounded().unwrap();
    let item = |n: u32| (n, Bytes(vec![n.to_le_bytes()[0]; 1 << 20]));
    (0..COUNT).for_each(|n| queue.put(item(n)).unwrap());
    let get = |queue: Queue<(u32, Bytes)>| -> () {
        die_at("get.trimmed_some", 1);
        while queue.try_get().is_ok() {}
    };
    let child = Process::spawn(get, queue.clone()).unwrap();
    assert_eq!(child.join().unwrap_err(), KILLED);
    let got = COUNT - u32::try_from(queue.len()).unwrap();
    assert!((10..COUNT).contains(&got), "{got}");
    (0..50).for_each(|n| within_recovery(|| queue.put(item(n)).unwrap()));
    for n in (got..COUNT).chain(0..50) {
        assert!(queue.get().unwrap() == item(n));
    }
}

/// A step of a batch is visible as a whole or not at all.
#[test]
fn faults_batch_steps_of_a_killed_producer_are_atomic() {
    let _dog = watchdog();
    for &point in PUT_POINTS {
        for visit in 1..=2 {
            let queue = Queue::bounded(10).unwrap();
            queue.put(0).unwrap();
            let put = |(queue, point, visit): (Queue<u32>, String, u32)| {
                die_at(&point, visit);
                // Two steps, one for each call: the size of a range is known.
                (0..2).for_each(|_| queue.put_many(1..4).unwrap());
            };
            let args = (queue.clone(), point.to_owned(), visit);
            let child = Process::spawn(put, args).unwrap();
            assert_eq!(child.join().unwrap_err(), KILLED, "{point} was not reached");
            let was_put = matches!(point, "put.committed" | "put.unlocked");
            // This point is reached three times within one step, once for each item.
            let steps = if point == "put.half_written" { 0 } else { visit - 1 };
            let steps = steps + u32::from(was_put);
            assert_eq!(queue.len(), 1 + 3 * steps as usize, "{point}, {visit}");
            within_recovery(|| queue.put(100).unwrap());
            let got: Vec<_> = std::iter::from_fn(|| queue.try_get().ok()).collect();
            let expected = [0].into_iter().chain((0..steps).flat_map(|_| 1..4)).chain([100]);
            assert!(got.iter().copied().eq(expected), "{point}, {visit}: {got:?}");
        }
    }
    for &point in GET_POINTS {
        let queue = Queue::bounded(10).unwrap();
        queue.put_many(0..10).unwrap();
        let get = |(queue, point): (Queue<u32>, String)| {
            assert_eq!(queue.get_many(3).unwrap(), [0, 1, 2]);
            die_at(&point, 1);
            queue.get_many(4).unwrap()
        };
        let child = Process::spawn(get, (queue.clone(), point.to_owned())).unwrap();
        assert_eq!(child.join().unwrap_err(), KILLED, "{point} was not reached");
        let was_taken = matches!(point, "get.committed" | "get.unlocked");
        let left = if was_taken { 7..10 } else { 3..10 };
        assert_eq!(queue.len(), left.len(), "{point}");
        within_recovery(|| queue.put_many(10..left.start + 10).unwrap());
        assert!(queue.is_full());
        let got: Vec<_> = std::iter::from_fn(|| queue.try_get().ok()).collect();
        assert!(got.into_iter().eq(left.start..left.start + 10), "{point}");
    }
}

/// The kernel has no memory left: the item is returned, and nothing else changes.
#[test]
fn faults_put_without_memory_returns_the_item() {
    alone(|()| {
        let queue = Queue::<Bytes>::builder().max_bytes(64 << 20).build().unwrap();
        let small = || Bytes(vec![1; 100]);
        let large = || Bytes(vec![2; 1 << 20]);
        // Neither ring has memory.
        for item in [small, large] {
            refuse("put.reserve", true);
            let error = queue.put(item()).unwrap_err();
            assert!(matches!(&error, PutError::OutOfMemory(bytes) if *bytes == item()));
            assert!(matches!(queue.try_put(item()), Err(TryPutError::OutOfMemory(_))));
            assert!(queue.put_timeout(item(), Duration::MAX).is_err());
            let error = queue.put_many([item(), item()]).unwrap_err();
            assert_eq!((error.put(), error.into_items().len()), (0, 2));
            assert!(queue.is_empty());
            refuse("put.reserve", false);
            queue.put(item()).unwrap();
            refuse("put.reserve", true);
            assert!(queue.get().unwrap() == item());
        }
        // A batch whose first items have memory and whose last items do not.
        refuse("put.reserve", false);
        (0..2).for_each(|_| queue.put(Bytes(vec![3; 100_000])).unwrap());
        (0..2).for_each(|_| drop(queue.get().unwrap()));
        refuse("put.reserve", true);
        let error = queue.put_many((0..4).map(|_| Bytes(vec![3; 100_000]))).unwrap_err();
        assert!(matches!(error.error(), PutError::OutOfMemory(_)));
        assert_eq!(error.put(), queue.len());
        assert!(error.put() < 4 && error.put() + error.into_items().len() == 4);
    });
}

/// A producer dies with memory that it has taken, and a consumer dies while it releases that
/// memory. The next item is not written to memory that was not reserved again.
#[test]
fn faults_memory_released_by_a_killed_consumer_is_reserved_again() {
    alone(|()| {
        let queue = Queue::<Item>::unbounded().unwrap();
        (0..FILLERS).for_each(|n| queue.put(filler(n)).unwrap());
        queue.put(item(0, Place::Overflow, None)).unwrap();
        let put = |queue: Queue<Item>| {
            die_at("put.block_taken", 20);
            queue.put((1, Bytes(vec![1; 3 << 20]), None)).unwrap();
        };
        let child = Process::spawn(put, queue.clone()).unwrap();
        assert_eq!(child.join().unwrap_err(), KILLED);
        let child = Process::spawn(get_and_die, (queue.clone(), 2, "get.trimmed".to_owned()));
        assert_eq!(child.unwrap().join().unwrap_err(), KILLED);
        let large = || (2, Bytes(vec![2; 1 << 20]), None);
        refuse("put.reserve", true);
        assert!(matches!(queue.put(large()), Err(PutError::OutOfMemory(_))));
        refuse("put.reserve", false);
        queue.put(large()).unwrap();
        assert!(queue.get().unwrap().1 == large().1);
        // The memory that the killed processes had is released like any other.
        assert!(queue.get_timeout(Duration::from_millis(300)).is_err());
        assert!(taken(&memory(&queue)) < 2 << 20);
    });
}

/// The process that shuts the queue down is killed while it discards the queued items. Other
/// processes complete that when they find the queue closed.
#[test]
fn faults_discarding_by_a_killed_process_is_completed_by_others() {
    let _dog = watchdog();
    for point in ["discard.committed", "get.trimmed", "get.trim_prepared", "get.trim_committed"] {
        let queue = Queue::<Item>::unbounded().unwrap();
        let memory = memory(&queue);
        let (receiver, sender) = simplex().unwrap();
        queue.put(item(0, Place::Hot, Some(sender))).unwrap();
        (1..64).for_each(|n| queue.put((n, Bytes(vec![1; 1 << 20]), None)).unwrap());
        let shut_down = |(producer, point): (Producer<Item>, String)| -> () {
            die_at(&point, 1);
            producer.shutdown(Shutdown::Now);
        };
        let child = Process::spawn(shut_down, (queue.producer(), point.to_owned())).unwrap();
        assert_eq!(child.join().unwrap_err(), KILLED, "{point}");
        assert_eq!(queue.len(), 0);
        assert!(within_recovery(|| queue.try_get()).unwrap_err().is_closed());
        assert!(receiver.recv().unwrap_err().is_disconnected());
        assert!(taken(&memory) < 2 << 20, "{point}: {} bytes are kept", taken(&memory));
    }
}

fn taken(memory: &File) -> u64 {
    memory.metadata().unwrap().blocks() * 512
}

/// A full lane is reported as a full queue.
#[test]
fn faults_full_lane_reports_a_full_queue() {
    alone(|()| {
        let queue = Queue::<Item>::bounded(4).unwrap();
        refuse("put.send", true);
        let (receiver, sender) = simplex().unwrap();
        let error = queue.try_put(item(1, Place::Hot, Some(sender))).unwrap_err();
        assert!(error.is_full());
        queue.try_put(item(2, Place::Hot, None)).unwrap();
        let timeout = Duration::from_millis(300);
        let error = queue.put_timeout(error.into_inner(), timeout).unwrap_err();
        assert!(error.is_timeout());
        refuse("put.send", false);
        queue.put(error.into_inner()).unwrap();
        assert_eq!(queue.get().unwrap().0, 2);
        queue.get().unwrap().2.unwrap().send(5).unwrap();
        assert_eq!(receiver.recv().unwrap(), 5);
    });
}

/// A poller is woken although the producer was killed before it could ring the bell.
#[test]
fn faults_bell_lost_by_a_killed_producer_is_recovered() {
    let _dog = watchdog();
    for point in ["put.committed", "put.unlocked"] {
        let queue = Queue::<u32>::bounded(4).unwrap();
        let wait = |queue: Queue<u32>| {
            multiproc::pipe::wait([&queue], None).unwrap();
            queue.try_get().unwrap()
        };
        let waiter = Process::spawn(wait, queue.clone()).unwrap();
        until(|| is_asleep(waiter.pid()));
        let put = |(queue, point): (Queue<u32>, String)| {
            die_at(&point, 1);
            queue.put(5).unwrap();
        };
        let child = Process::spawn(put, (queue.clone(), point.to_owned())).unwrap();
        assert_eq!(child.join().unwrap_err(), KILLED);
        assert_eq!(within_recovery(|| waiter.join().unwrap()), 5);
    }
}

/// The lists contain exactly the points that the code has, in any order.
#[test]
fn faults_lists_of_points_match_the_code() {
    alone(|()| {
        let queue = Queue::<Item>::unbounded().unwrap();
        for place in [Place::Hot, Place::Overflow] {
            for sender in [None, Some(simplex().unwrap().1)] {
                (0..FILLERS).for_each(|n| queue.put(filler(n)).unwrap());
                queue.put(item(1, place, sender)).unwrap();
                (0..150).for_each(|_| queue.put((0, Bytes(vec![1; 1 << 20]), None)).unwrap());
                (0..151 + FILLERS).for_each(|_| drop(queue.get().unwrap()));
                // Repeats until memory may be released once more.
                let _ = queue.get_timeout(Duration::from_millis(300));
            }
        }
        let reached: BTreeSet<_> = multiproc_shm::failpoint::seen()
            .into_iter()
            .filter(|point| point.starts_with("put.") || point.starts_with("get."))
            .collect();
        let lists = [PUT_POINTS, GET_POINTS, OVERFLOW_POINTS, LANE_POINTS, SELDOM_POINTS];
        assert_eq!(reached, lists.concat().into_iter().collect());
    });
}

/// Kills producers and consumers at random, for one second or for the duration from the environment
/// (`cargo xtask faults --soak SECONDS --seed N`). The remaining items are in order, none arrives
/// twice, and only the items that killed consumers had taken are lost.
#[test]
fn faults_soak_with_random_kills_loses_no_item() {
    let seconds = env::var("MULTIPROC_SOAK_SECONDS").map_or(1, |text| text.parse().unwrap());
    let seed =
        env::var("MULTIPROC_SEED").map_or_else(|_| fastrand::u64(..), |n| n.parse().unwrap());
    eprintln!("seed {seed}, for {seconds} s");
    let mut random = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        random_kills(&mut random);
        random_kills_of_all_kinds(&mut random);
        if Instant::now() >= end {
            break;
        }
    }
}

fn random_kills(random: &mut fastrand::Rng) {
    // One watchdog per round, so that a long soak does not trigger it.
    let _dog = watchdog();
    let queue: Queue<u32> = Queue::bounded(16).unwrap();
    let survivors: Queue<u32> = Queue::bounded(16).unwrap();
    let points: Vec<_> = PUT_POINTS.iter().chain(GET_POINTS).copied().collect();
    let relay = |(from, to, point, visit): (Queue<u32>, Queue<u32>, String, u32)| -> () {
        die_at(&point, visit);
        loop {
            to.put(from.get().unwrap()).unwrap();
        }
    };
    let put = |queue: Queue<u32>| (0..50_000).for_each(|n| queue.put(n).unwrap());
    let producer = Process::spawn(put, queue.clone()).unwrap();
    let start_relay = |random: &mut fastrand::Rng| {
        let point = points[random.usize(..points.len())].to_owned();
        let args = (queue.clone(), survivors.clone(), point, random.u32(1..500));
        Process::spawn(relay, args).unwrap()
    };
    let mut relays = vec![start_relay(random), start_relay(random)];
    let mut got = BTreeSet::new();
    let mut deaths = 0;
    loop {
        match survivors.get_timeout(Duration::from_millis(5)) {
            Ok(n) => assert!(got.insert(n), "{n} came twice"),
            // Nothing is in transit any more, apart from an item that a relay is about to put.
            Err(_) if !producer.is_alive() && queue.is_empty() => {
                if relays.iter().all(|relay| !relay.is_alive() || is_asleep(relay.pid())) {
                    break;
                }
            }
            Err(_) => {}
        }
        for relay in &mut relays {
            if !relay.is_alive() {
                assert_eq!(relay.exit_status().unwrap().signal(), Some(9));
                deaths += 1;
                *relay = start_relay(random);
            }
        }
    }
    producer.join().unwrap();
    while let Ok(n) = survivors.try_get() {
        assert!(got.insert(n), "{n} came twice");
    }
    relays.iter().for_each(|relay| relay.kill().unwrap());
    relays.iter().for_each(|relay| _ = relay.wait());
    eprintln!("{deaths} deaths, {} of 50000 items", got.len());
    assert!(deaths > 20, "only {deaths} processes were killed");
    let lost = 50_000 - got.len();
    assert!(lost <= deaths, "{lost} items are lost, and only {deaths} relays died");
}

/// The same with items of all sizes, in both rings, with and without descriptors, in batches and
/// one by one.
fn random_kills_of_all_kinds(random: &mut fastrand::Rng) {
    const COUNT: u32 = 3_000;
    type Things = (u32, Bytes, Option<Receiver<u32>>);
    /// Returns the length of item `n`: the content of an item follows from its number.
    fn length(n: u32) -> usize {
        if n.is_multiple_of(7) { (n % 1000) as usize * 90 } else { (n % 50) as usize }
    }
    fn thing(n: u32) -> Things {
        let receiver = n.is_multiple_of(3).then(|| {
            let (receiver, sender) = simplex().unwrap();
            sender.send(n).unwrap();
            receiver
        });
        (n, Bytes(vec![n.to_le_bytes()[0]; length(n)]), receiver)
    }
    fn check((n, bytes, receiver): Things) -> u32 {
        assert!(bytes.0 == vec![n.to_le_bytes()[0]; length(n)], "{n}");
        assert_eq!(receiver.is_some(), n.is_multiple_of(3), "{n}");
        if let Some(receiver) = receiver {
            assert_eq!(receiver.recv().unwrap(), n);
        }
        n
    }
    fn relay((from, to, point, visit): (Queue<Things>, Queue<Things>, String, u32)) {
        die_at(&point, visit);
        loop {
            if visit.is_multiple_of(2) {
                to.put_many(from.get_many(1 + visit as usize % 5).unwrap()).unwrap();
            } else {
                to.put(from.get().unwrap()).unwrap();
            }
        }
    }

    let _dog = watchdog();
    let queue = Queue::<Things>::builder().capacity(60).max_bytes(1 << 20).build().unwrap();
    let survivors = Queue::<Things>::builder().capacity(60).max_bytes(1 << 20).build().unwrap();
    let points: Vec<_> =
        [PUT_POINTS, GET_POINTS, OVERFLOW_POINTS, LANE_POINTS, SELDOM_POINTS].concat();
    let put = |queue: Queue<Things>| (0..COUNT).for_each(|n| queue.put(thing(n)).unwrap());
    let producer = Process::spawn(put, queue.clone()).unwrap();
    let start_relay = |random: &mut fastrand::Rng| {
        let point = points[random.usize(..points.len())].to_owned();
        let visit = random.u32(1..60);
        let child =
            Process::spawn(relay, (queue.clone(), survivors.clone(), point, visit)).unwrap();
        (child, if visit.is_multiple_of(2) { 1 + visit as usize % 5 } else { 1 })
    };
    let mut relays = [start_relay(random), start_relay(random)];
    let mut got = BTreeSet::new();
    let (mut deaths, mut in_their_hands) = (0, 0);
    loop {
        match survivors.get_timeout(Duration::from_millis(5)) {
            Ok(thing) => {
                let n = check(thing);
                assert!(got.insert(n), "{n} came twice");
                // One more kill at an arbitrary place, besides those at the points.
                if random.u32(..100) == 0 {
                    relays[random.usize(..2)].0.kill().unwrap();
                }
            }
            Err(error) => {
                assert!(error.is_timeout(), "{error}");
                let is_idle = |relay: &Process| !relay.is_alive() || is_asleep(relay.pid());
                if !producer.is_alive() && queue.is_empty() && relays.iter().all(|r| is_idle(&r.0))
                {
                    break;
                }
            }
        }
        for relay in &mut relays {
            if !relay.0.is_alive() {
                assert_eq!(relay.0.exit_status().unwrap().signal(), Some(9));
                deaths += 1;
                in_their_hands += relay.1;
                *relay = start_relay(random);
            }
        }
    }
    producer.join().unwrap();
    while let Ok(thing) = survivors.try_get() {
        let n = check(thing);
        assert!(got.insert(n), "{n} came twice");
    }
    for (relay, most) in &relays {
        relay.kill().unwrap();
        relay.wait();
        in_their_hands += most;
    }
    let lost = COUNT as usize - got.len();
    eprintln!("{deaths} deaths, {lost} of {COUNT} items lost, of all kinds");
    assert!(deaths > 3, "only {deaths} processes were killed");
    assert!(
        lost <= in_their_hands,
        "{lost} items are lost, but the killed processes held at most {in_their_hands}"
    );
}
