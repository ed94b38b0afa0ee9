//! Queues between processes, and the death of processes.

mod common;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::pipe::{Bytes, Connection, RecvError, duplex};
use multiproc::{Lock, Process};
use multiproc_queue::{GetError, JoinableQueue, PutError, Queue, TryPutError};
use multiproc_testkit::{Census, alone, is_asleep, until, watchdog};
use serde::{Deserialize, Serialize, Serializer};

use common::{RECOVERY, retype};

multiproc::enable_in_tests!();

/// Starts a process that sleeps in `get`.
fn waiting_consumer(queue: &Queue<u32>) -> Process<u32> {
    let child = Process::spawn(|queue: Queue<u32>| queue.get().unwrap(), queue.clone()).unwrap();
    until(|| is_asleep(child.pid()));
    child
}

#[test]
fn items_are_got_in_the_order_of_their_puts() {
    let queue = Queue::bounded(3).unwrap();
    assert!(queue.is_empty() && !queue.is_full());
    for round in 0..1000 {
        for n in 0..3 {
            assert_eq!(queue.len(), n);
            queue.put((round, n)).unwrap();
        }
        assert!(queue.is_full() && queue.len() == 3 && queue.capacity() == Some(3));
        for n in 0..3 {
            assert_eq!(queue.get().unwrap(), (round, n));
        }
    }
}

#[test]
fn put_without_room_returns_the_item() {
    let _dog = watchdog();
    let queue = Queue::bounded(1).unwrap();
    assert!(queue.try_get().unwrap_err().is_empty());
    let moment = Duration::from_millis(20);
    let start = Instant::now();
    assert!(queue.get_timeout(moment).unwrap_err().is_timeout());
    assert!(start.elapsed() >= moment);
    queue.put("first".to_owned()).unwrap();

    let error = queue.try_put("second".to_owned()).unwrap_err();
    assert!(error.is_full());
    assert_eq!(error.into_inner(), "second");
    let start = Instant::now();
    let error = queue.put_timeout("third".to_owned(), moment).unwrap_err();
    assert!(error.is_timeout() && start.elapsed() >= moment);
    assert_eq!(error.into_inner(), "third");
    assert!(queue.put_deadline(String::new(), Instant::now()).unwrap_err().is_timeout());
    assert!(queue.put_timeout(String::new(), Duration::ZERO).unwrap_err().is_timeout());

    assert_eq!(queue.get_timeout(Duration::MAX).unwrap(), "first");
    assert!(queue.get_deadline(Instant::now()).unwrap_err().is_timeout());
    queue.put_timeout("fourth".to_owned(), Duration::MAX).unwrap();
    assert_eq!(queue.get_timeout(Duration::ZERO).unwrap(), "fourth");
}

#[test]
fn capacity_out_of_range_is_refused() {
    for capacity in [0, (1 << 32) + 1, usize::MAX] {
        let error = Queue::<u8>::bounded(capacity).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    assert_eq!(Queue::<u8>::bounded(1 << 32).unwrap().capacity(), Some(1 << 32));
}

#[test]
fn item_that_does_not_serialise_is_returned_and_nothing_changes() {
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
    let queue = Queue::bounded(5).unwrap();
    queue.put(("a".to_owned(), Even(2))).unwrap();
    let error = queue.put(("half way".to_owned(), Even(3))).unwrap_err();
    let PutError::Encode(item, reason) = error else { panic!("{error}") };
    assert_eq!((reason.reason(), item.1.0), ("3 is odd", 3));
    assert!(matches!(queue.try_put((String::new(), Even(5))), Err(TryPutError::Encode(..))));
    assert_eq!(queue.len(), 1);
    assert_eq!(queue.get().unwrap().1.0, 2);
}

#[test]
fn item_over_max_bytes_is_refused_with_both_sizes() {
    let queue = Queue::builder().capacity(5).max_bytes(10_000).build().unwrap();
    queue.put(Bytes(vec![1; 10])).unwrap();
    let error = queue.put(Bytes(vec![2; 10_000])).unwrap_err();
    let PutError::TooLarge { item, size: 10_003, max: 10_000 } = error else { panic!("{error}") };
    assert_eq!(item.0.len(), 10_000);
    assert_eq!(queue.len(), 1);
    assert_eq!(queue.get().unwrap().0, [1; 10]);
    // The largest item that fits.
    queue.put(Bytes(vec![3; 9_997])).unwrap();
    assert!(queue.try_put(Bytes(Vec::new())).unwrap_err().is_full(), "all bytes are taken");
    assert_eq!(queue.get().unwrap().0.len(), 9_997);
}

#[test]
fn item_of_another_type_is_an_error_and_the_next_one_is_got() {
    let numbers = Queue::bounded(5).unwrap();
    let texts: Queue<String> = retype(&numbers);
    numbers.put((9, b'x')).unwrap();
    numbers.put((1u8, b'y')).unwrap(); // the encoding of a string
    let GetError::Decode(error) = texts.get().unwrap_err() else { panic!() };
    assert_eq!(error.type_name(), "alloc::string::String");
    assert_eq!(texts.get().unwrap(), "y");
    assert!(texts.is_empty());
}

#[test]
fn items_can_contain_handles() {
    let _dog = watchdog();
    let queue = Queue::bounded(5).unwrap();
    for n in 0..20 {
        let (left, right) = duplex::<u32, u32>().unwrap();
        queue.put((n, Some(right), Lock::new().unwrap())).unwrap();
        queue.put((n, None, Lock::new().unwrap())).unwrap();
        let (number, right, _) = queue.get().unwrap();
        left.send(n).unwrap();
        assert_eq!((number, right.unwrap().recv().unwrap()), (n, n));
        assert!(queue.get().unwrap().1.is_none());
    }
    assert!(queue.is_empty());
}

fn low_byte(n: u32) -> u8 {
    n.to_le_bytes()[0]
}

#[test]
fn order_is_preserved_across_both_rings() {
    let _dog = watchdog();
    let queue = Queue::unbounded().unwrap();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut put, mut got) = (0u32, 0u32);
    for _ in 0..300 {
        for _ in 0..random.usize(..200) {
            let most = [10, 1_000, 20_000][random.usize(..3)];
            queue.put((put, Bytes(vec![low_byte(put); random.usize(..most)]))).unwrap();
            put += 1;
        }
        for _ in 0..random.usize(..200) {
            let Ok((number, bytes)) = queue.try_get() else { break };
            assert_eq!(number, got);
            assert!(bytes.0.iter().all(|&byte| byte == low_byte(got)));
            got += 1;
        }
        assert_eq!(queue.len(), (put - got) as usize);
    }
    for n in got..put {
        assert_eq!(queue.try_get().unwrap().0, n);
    }
    assert!(queue.is_empty());
}

#[test]
fn item_can_put_and_get_while_it_is_encoded() {
    /// Encodes the item that it gets from its queue.
    struct Relay(Queue<u32>);
    impl Serialize for Relay {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.get().unwrap().serialize(serializer)
        }
    }
    let numbers = Queue::bounded(5).unwrap();
    let relayed = Queue::<(u32, Relay)>::bounded(5).unwrap();
    let result: Queue<(u32, u32)> = retype(&relayed);
    numbers.put(7).unwrap();
    relayed.put((6u32, Relay(numbers))).unwrap();
    assert_eq!(result.get().unwrap(), (6, 7));
}

#[test]
fn each_item_of_many_producers_is_got_once_by_many_consumers() {
    const EACH: u32 = 20_000;
    let _dog = watchdog();
    for capacity in [1, 3, 1000] {
        let queue = Queue::bounded(capacity).unwrap();
        let producers: Vec<_> = (0..4)
            .map(|id| {
                let put = |(queue, id): (Queue<(u32, u32)>, u32)| {
                    (0..EACH).for_each(|n| queue.put((id, n)).unwrap());
                };
                Process::spawn(put, (queue.clone(), id)).unwrap()
            })
            .collect();
        let consumers: Vec<_> = (0..4)
            .map(|_| {
                let get = |queue: Queue<(u32, u32)>| {
                    (0..EACH).map(|_| queue.get().unwrap()).collect::<Vec<_>>()
                };
                Process::spawn(get, queue.clone()).unwrap()
            })
            .collect();
        for producer in producers {
            producer.join().unwrap();
        }
        let mut all = BTreeSet::new();
        for consumer in consumers {
            let got = consumer.join().unwrap();
            for id in 0..4 {
                let of_one = got.iter().filter(|item| item.0 == id).map(|item| item.1);
                assert!(of_one.is_sorted(), "each consumer sees each producer's order");
            }
            all.extend(got);
        }
        assert_eq!(all.len(), 4 * EACH as usize, "each item arrived once");
        assert!(queue.is_empty());
    }
}

#[test]
fn items_of_all_sizes_are_got_unchanged() {
    let _dog = watchdog();
    let queue = Queue::bounded(100).unwrap();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let put = |(queue, seed): (Queue<Bytes>, u64)| {
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let most = [10, 300, 5_000, 100_000][random.usize(..4)];
            queue.put(Bytes(vec![random.u8(..); random.usize(..most)])).unwrap();
        }
    };
    let producer = Process::spawn(put, (queue.clone(), seed)).unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        let most = [10, 300, 5_000, 100_000][random.usize(..4)];
        let expected = vec![random.u8(..); random.usize(..most)];
        assert!(queue.get().unwrap().0 == expected);
    }
    producer.join().unwrap();
}

#[test]
fn items_of_a_killed_producer_are_kept() {
    let _dog = watchdog();
    let queue = Queue::bounded(1000).unwrap();
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let put = |(queue, parent): (Queue<u32>, Connection<(), ()>)| {
        (0..1000).for_each(|n| queue.put(n).unwrap());
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let child = Process::spawn(put, (queue.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    child.kill().unwrap();
    child.wait();
    assert_eq!(queue.len(), 1000);
    for n in 0..1000 {
        assert_eq!(queue.try_get().unwrap(), n);
    }
}

#[test]
fn unread_items_do_not_keep_a_process_alive() {
    let _dog = watchdog();
    let queue = Queue::bounded(10_000).unwrap();
    let put = |queue: Queue<Bytes>| while queue.try_put(Bytes(vec![0; 1000])).is_ok() {};
    Process::spawn(put, queue.clone()).unwrap().join().unwrap();
    assert!(queue.len() > 200);
}

#[test]
fn killed_waiter_loses_no_item_and_no_room() {
    let _dog = watchdog();
    let queue = Queue::bounded(10).unwrap();
    let doomed = waiting_consumer(&queue);
    let other = waiting_consumer(&queue);
    doomed.kill().unwrap();
    doomed.wait();
    let start = Instant::now();
    queue.put(1).unwrap();
    assert_eq!(other.join().unwrap(), 1);
    assert!(start.elapsed() < RECOVERY);
    assert!(queue.is_empty());

    // The same for producers that wait for room.
    let queue = Queue::bounded(1).unwrap();
    queue.put(1).unwrap();
    let put = |queue: Queue<u32>| queue.put(2).unwrap();
    let doomed = Process::spawn(put, queue.clone()).unwrap();
    let other = Process::spawn(put, queue.clone()).unwrap();
    until(|| is_asleep(doomed.pid()) && is_asleep(other.pid()));
    doomed.kill().unwrap();
    doomed.wait();
    assert_eq!(queue.get().unwrap(), 1);
    let start = Instant::now();
    other.join().unwrap();
    assert!(start.elapsed() < RECOVERY);
    assert_eq!(queue.len(), 1);
    assert_eq!(queue.get().unwrap(), 2);
}

#[test]
fn sleeping_consumers_each_get_an_item() {
    let _dog = watchdog();
    let queue = Queue::bounded(10).unwrap();
    let consumers: Vec<_> = (0..6).map(|_| waiting_consumer(&queue)).collect();
    (0..6).for_each(|n| queue.put(n).unwrap());
    let got: BTreeSet<_> = consumers.into_iter().map(|child| child.join().unwrap()).collect();
    assert_eq!(got, (0..6).collect());
}

#[test]
fn queue_sent_to_a_process_is_the_same_queue() {
    let _dog = watchdog();
    let queue = Queue::bounded(3).unwrap();
    let (left, right) = duplex::<Queue<u32>, ()>().unwrap();
    left.send(queue.clone()).unwrap();
    let same = right.recv().unwrap();
    assert!(same.is_same(&queue));
    assert_eq!(same.capacity(), Some(3));
    same.put(5).unwrap();
    assert_eq!(queue.get().unwrap(), 5);
    let debug = format!("{queue:?}");
    assert!(debug.contains("len: 0") && debug.contains("capacity: Some(3)"), "{debug}");
    assert!(debug.contains("members: 1"), "{debug}");
}

#[test]
fn dropped_queues_leak_nothing() {
    alone(|()| {
        let before = Census::take();
        for n in 0..1000 {
            let queue = Queue::bounded(10).unwrap();
            queue.put(n).unwrap();
            let (left, right) = duplex::<Queue<u32>, ()>().unwrap();
            left.send(queue).unwrap();
            assert_eq!(right.recv().unwrap().get().unwrap(), n);
        }
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn handle_that_is_not_a_queue_is_refused() {
    let (left, right) = duplex::<Lock, ()>().unwrap();
    left.send(Lock::new().unwrap()).unwrap();
    let result = right.retype::<(), Queue<u8>>().recv();
    assert!(matches!(result, Err(RecvError::Decode(_))), "{result:?}");
}

/// Queues that a thread uses in the destructor of a thread-local, when its other thread-locals may
/// be gone, including those of this crate.
struct Goodbye {
    queue: Queue<String>,
    other: Queue<u32>,
    tasks: JoinableQueue<u32>,
}

impl Drop for Goodbye {
    fn drop(&mut self) {
        assert_eq!(self.other.get().unwrap(), 1);
        assert_eq!(self.other.try_get_many(3).unwrap(), [2, 3]);
        self.other.put_many([4, 5]).unwrap();
        self.tasks.put(6).unwrap();
        self.tasks.get().unwrap().task_done();
        self.tasks.join().unwrap();
        // Only if all of that succeeded.
        self.queue.put("goodbye".to_owned()).unwrap();
    }
}

thread_local! {
    static GOODBYE: RefCell<Option<Goodbye>> = const { RefCell::new(None) };
}

/// Puts a greeting, and leaves the rest to a destructor.
fn say_hello(goodbye: Goodbye) {
    GOODBYE.with_borrow_mut(|slot| {
        // Its destructor is registered before those of the queue's own thread-locals, so it runs
        // after them.
        let goodbye = slot.insert(goodbye);
        goodbye.queue.put("hello".to_owned()).unwrap();
    });
}

#[test]
fn thread_local_destructor_can_use_a_queue() {
    let _dog = watchdog();
    for in_main in [false, true] {
        let run = |(queue, other, tasks, in_main)| {
            let goodbye = Goodbye { queue, other, tasks };
            if in_main {
                // The destructor runs when the process exits.
                say_hello(goodbye);
            } else {
                thread::spawn(|| say_hello(goodbye)).join().unwrap();
            }
        };
        let (queue, other) = (Queue::bounded(10).unwrap(), Queue::bounded(10).unwrap());
        let tasks = JoinableQueue::bounded(10).unwrap();
        other.put_many(1..=3).unwrap();
        let handles = (queue.clone(), other.clone(), tasks.clone(), in_main);
        let child = Process::spawn(run, handles).unwrap();
        assert_eq!(child.wait().code(), Some(0), "in the main thread: {in_main}");
        assert_eq!(queue.try_get_many(3).unwrap(), ["hello", "goodbye"]);
        assert_eq!(other.try_get_many(3).unwrap(), [4, 5]);
        assert_eq!(tasks.unfinished(), 0);
    }
}
