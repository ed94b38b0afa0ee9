//! Putting and getting several items at a time.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use multiproc::Process;
use multiproc::pipe::{Bytes, Receiver, Sender, simplex};
use multiproc_queue::{GetError, PutError, Queue};
use multiproc_testkit::{is_asleep, until, watchdog};
use serde::{Deserialize, Serialize, Serializer};

use common::{RECOVERY, SOON, retype, until_asleep, within};

multiproc::enable_in_tests!();

#[test]
fn batches_are_in_order_and_within_max() {
    let _dog = watchdog();
    let queue = Queue::unbounded().unwrap();
    queue.put_many(0..1000u32).unwrap();
    queue.put_many(Vec::new()).unwrap();
    assert_eq!(queue.len(), 1000);
    assert!(queue.get_many(0).unwrap().is_empty());
    assert_eq!(queue.get_many(3).unwrap(), [0, 1, 2]);
    let mut next = 3;
    while next < 1000 {
        let most = [1, 7, 128, usize::MAX][next as usize % 4];
        let items = queue.get_many(most).unwrap();
        assert!((1..=most.min(128)).contains(&items.len()));
        for n in items {
            assert_eq!(n, next);
            next += 1;
        }
    }
    assert!(queue.try_get_many(3).unwrap().is_empty());
    assert!(queue.get_many_timeout(3, Duration::from_millis(5)).unwrap().is_empty());
    assert!(queue.get_many_timeout(0, Duration::MAX).unwrap().is_empty());
    queue.put(5).unwrap();
    assert_eq!(queue.try_get_many(3).unwrap(), [5]);
}

#[test]
fn batch_over_the_capacity_is_put_in_parts() {
    let _dog = watchdog();
    for capacity in [1, 3, 100] {
        let queue = Queue::bounded(capacity).unwrap();
        let put = |queue: Queue<u32>| queue.put_many(0..2000).unwrap();
        let producer = Process::spawn(put, queue.clone()).unwrap();
        let mut got = Vec::new();
        while got.len() < 2000 {
            let items = queue.get_many(50).unwrap();
            assert!(!items.is_empty() && items.len() <= capacity);
            got.extend(items);
        }
        assert!(got.into_iter().eq(0..2000));
        producer.join().unwrap();
    }
}

#[test]
fn batch_of_large_items_is_put_in_parts() {
    let _dog = watchdog();
    let queue = Queue::builder().max_bytes(1 << 20).build().unwrap();
    let put = |queue: Queue<Bytes>| {
        queue.put_many((0..100u8).map(|n| Bytes(vec![n; 7000 * usize::from(n)]))).unwrap();
    };
    let producer = Process::spawn(put, queue.clone()).unwrap();
    let mut next = 0;
    while next < 100 {
        for Bytes(bytes) in queue.get_many(10).unwrap() {
            assert_eq!(bytes, vec![next; 7000 * usize::from(next)]);
            next += 1;
        }
    }
    producer.join().unwrap();
}

#[test]
fn batch_wakes_all_waiters() {
    let _dog = watchdog();
    let queue = Queue::bounded(100).unwrap();
    let get = |queue: Queue<u32>| queue.get().unwrap();
    let consumers: Vec<_> = (0..6).map(|_| Process::spawn(get, queue.clone()).unwrap()).collect();
    until_asleep(&consumers);
    queue.put_many(0..6).unwrap();
    let mut got: Vec<_> = consumers.into_iter().map(|child| child.join().unwrap()).collect();
    got.sort_unstable();
    assert!(got.into_iter().eq(0..6));

    // A batch that is got makes room for all of them.
    queue.put_many(0..100).unwrap();
    let put = |queue: Queue<u32>| queue.put(7).unwrap();
    let producers: Vec<_> = (0..6).map(|_| Process::spawn(put, queue.clone()).unwrap()).collect();
    until_asleep(&producers);
    assert_eq!(queue.get_many(6).unwrap().len(), 6);
    producers.into_iter().for_each(|child| child.join().unwrap());
    assert_eq!(queue.len(), 100);
}

#[test]
fn batches_of_many_producers_are_got_once_by_many_consumers() {
    let _dog = watchdog();
    let queue = Queue::bounded(50).unwrap();
    let put = |queue: Queue<u64>| queue.put_many(0..10_000).unwrap();
    let get = |queue: Queue<u64>| {
        let mut sum = (0, 0);
        while let Ok(items) = queue.get_many(33) {
            sum = (sum.0 + items.len(), sum.1 + items.iter().sum::<u64>());
        }
        sum
    };
    let producers = [(); 3].map(|()| Process::spawn(put, queue.clone()).unwrap());
    let consumers = [(); 3].map(|()| Process::spawn(get, queue.clone()).unwrap());
    producers.into_iter().for_each(|child| child.join().unwrap());
    queue.shutdown(multiproc_queue::Shutdown::Drain);
    let sums = consumers.map(|child| child.join().unwrap());
    assert_eq!(sums.iter().map(|sum| sum.0).sum::<usize>(), 30_000);
    assert_eq!(sums.iter().map(|sum| sum.1).sum::<u64>(), 3 * 9_999 * 10_000 / 2);
}

#[test]
fn panicking_iterator_leaves_the_queue_usable() {
    let _dog = watchdog();
    let queue = Queue::bounded(1000).unwrap();
    // The iterator knows its length, so it is put in steps of 128.
    let items = (0..300).map(|n| if n == 200 { panic!("here") } else { n });
    let panic = catch_unwind(AssertUnwindSafe(|| queue.put_many(items))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"here"));
    assert_eq!(queue.len(), 128);
    queue.put(1000).unwrap();
    let got: Vec<_> = std::iter::from_fn(|| queue.try_get().ok()).collect();
    assert!(got.into_iter().eq((0..128).chain([1000])));
}

#[test]
fn no_lock_is_held_while_an_iterator_blocks() {
    let _dog = watchdog();
    let queue = Queue::bounded(1000).unwrap();
    let (give, take) = mpsc::channel();
    let other = queue.clone();
    let putting = thread::spawn(move || other.put_many(take));
    // Its items are queued at once, although it does not know its length.
    for n in 0..3 {
        give.send(n).unwrap();
        assert_eq!(queue.get().unwrap(), n);
        within(SOON, || queue.put(10 + n).unwrap());
        assert_eq!(queue.try_get().unwrap(), 10 + n);
    }
    drop(give);
    putting.join().unwrap().unwrap();

    // An iterator that knows its length, and blocks in the middle.
    let (give, take) = mpsc::channel();
    let other = queue.clone();
    let putting = thread::spawn(move || other.put_many((0..4).map(|_| take.recv().unwrap())));
    give.send(0).unwrap();
    within(SOON, || queue.put(100).unwrap());
    assert_eq!(queue.get().unwrap(), 100);
    (1..4).for_each(|n| give.send(n).unwrap());
    putting.join().unwrap().unwrap();
    assert_eq!(queue.get_many(9).unwrap(), [0, 1, 2, 3]);
}

#[derive(Debug, PartialEq, Deserialize)]
struct Even(u32);

impl Serialize for Even {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 2 == 1 {
            return Err(serde::ser::Error::custom("odd"));
        }
        self.0.serialize(serializer)
    }
}

#[test]
fn item_that_does_not_encode_is_returned_with_those_after_it() {
    let queue = Queue::bounded(10).unwrap();
    let error = queue.put_many([2, 4, 5, 6, 7].map(Even)).unwrap_err();
    assert_eq!(error.put(), 2);
    assert!(matches!(error.error(), PutError::Encode(..)));
    assert_eq!(error.into_items(), [5, 6, 7].map(Even));
    assert_eq!(queue.get_many(9).unwrap(), [2, 4].map(Even));

    let queue = Queue::builder().max_bytes(1000).build().unwrap();
    let lengths = [10, 20, 2000, 30];
    let error = queue.put_many(lengths.map(|n| Bytes(vec![1; n]))).unwrap_err();
    assert!(matches!(error.error(), PutError::TooLarge { max: 1000, .. }));
    assert_eq!((error.put(), error.into_items().len(), queue.len()), (2, 2, 2));
}

#[test]
fn item_that_does_not_decode_is_an_error_with_the_other_items() {
    let numbers = Queue::bounded(20).unwrap();
    let texts: Queue<String> = retype(&numbers);
    // A byte of length, then the text. A length of 9 is too large.
    numbers.put_many([(1u8, b'a'), (9, b'x'), (1, b'b'), (9, b'x'), (1, b'c')]).unwrap();
    let error = texts.get_many(4).unwrap_err();
    assert!(matches!(error.error(), GetError::Decode(_)));
    assert_eq!(error.into_items(), ["a", "b"]);
    assert_eq!(texts.get_many(4).unwrap(), ["c"]);
    assert!(texts.is_empty());
    // An iterator continues after the error.
    numbers.put_many([(9u8, b'x'), (1, b'd')]).unwrap();
    numbers.close();
    let queue = texts;
    queue.shutdown(multiproc_queue::Shutdown::Drain);
    let all: Vec<_> = queue.iter().collect();
    assert!(matches!(&all[..], [Err(GetError::Decode(_)), Ok(text)] if text == "d"));
}

#[test]
fn items_with_descriptors_are_got_in_order_and_alone() {
    let _dog = watchdog();
    let queue = Queue::<(u32, Option<Sender<u32>>)>::bounded(100).unwrap();
    let mut receivers: Vec<Receiver<u32>> = Vec::new();
    let mut items = Vec::new();
    for n in 0..40 {
        let sender = (n % 5 == 3 || n % 7 == 0).then(|| {
            let (receiver, sender) = simplex().unwrap();
            receivers.push(receiver);
            sender
        });
        items.push((n, sender));
    }
    queue.put_many(items).unwrap();
    assert_eq!(queue.len(), 40);
    let mut next = 0;
    while next < 40 {
        let items = queue.get_many(usize::MAX).unwrap();
        for (n, sender) in items {
            assert_eq!(n, next);
            assert_eq!(sender.is_some(), n % 5 == 3 || n % 7 == 0);
            if let Some(sender) = sender {
                sender.send(n).unwrap();
                assert_eq!(receivers.remove(0).recv().unwrap(), n);
            }
            next += 1;
        }
    }
    assert!(receivers.is_empty());
}

/// A producer that is killed during a long batch has put a first part of it.
#[test]
fn batch_of_a_killed_producer_ends_between_items() {
    let _dog = watchdog();
    let queue = Queue::bounded(100).unwrap();
    let put = |queue: Queue<u32>| queue.put_many(0..1_000_000).unwrap();
    let producer = Process::spawn(put, queue.clone()).unwrap();
    let mut next = 0;
    while next < 5_000 {
        for n in queue.get_many(64).unwrap() {
            assert_eq!(n, next);
            next += 1;
        }
    }
    until(|| is_asleep(producer.pid()));
    producer.kill().unwrap();
    producer.wait();
    within(RECOVERY, || {
        while let Ok(n) = queue.try_get() {
            assert_eq!(n, next);
            next += 1;
        }
        queue.put_many(0..100).unwrap();
    });
    assert!(queue.is_full());
}
