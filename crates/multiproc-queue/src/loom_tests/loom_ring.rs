use loom::thread;
use multiproc_shm::primitives::{explore, explore_long};

use super::{Member, Shared};
use crate::engine::error::EngineError;
use crate::engine::side::{Cursor, Side};

/// One producer, one consumer, capacity 1: every put but the first waits for a get, and every frame
/// but the first wraps around.
#[test]
fn loom_one_to_one() {
    explore_long(|| {
        let shared = Shared::new(1);
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || (0..3).for_each(|item| shared.put(Member(1), item)))
        };
        for item in 0..3 {
            assert_eq!(shared.get(Member(2)), item);
        }
        producer.join().unwrap();
        assert_eq!(shared.len(), 0);
    });
}

/// Two producers, one consumer, capacity 1: both items are got, and no process misses its wake-up.
#[test]
fn loom_two_producers() {
    explore_long(|| {
        let shared = Shared::new(1);
        let producers = [1, 2].map(|n| {
            let shared = shared.clone();
            thread::spawn(move || shared.put(Member(usize::try_from(n).unwrap()), n))
        });
        let got = shared.get(Member(3)) + shared.get(Member(3));
        assert_eq!(got, 1 + 2);
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert_eq!(shared.len(), 0);
    });
}

/// One producer, two consumers: each item is got by one of them, and no process misses its wake-up.
#[test]
fn loom_two_consumers() {
    explore_long(|| {
        let shared = Shared::new(2);
        let consumers = [1, 2].map(|n| {
            let shared = shared.clone();
            thread::spawn(move || shared.get(Member(n)))
        });
        shared.put(Member(3), 10);
        shared.put(Member(3), 20);
        let got = consumers.map(|consumer| consumer.join().unwrap());
        assert_eq!(got.iter().sum::<u64>(), 30);
        assert_ne!(got[0], got[1]);
        assert_eq!(shared.len(), 0);
    });
}

/// Two producers wait for room, and one long item makes room for both: the one that is woken passes
/// the notification on.
#[test]
fn loom_room_for_two_producers() {
    explore(|| {
        let shared = Shared::with_ring(4, 64);
        shared.put_all(Member(3), &[0; 6]);
        let producers = [1, 2].map(|n| {
            let shared = shared.clone();
            thread::spawn(move || shared.put(Member(n), 7))
        });
        assert_eq!(shared.get_all(Member(3)), [0; 6]);
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert_eq!(shared.len(), 2);
    });
}

/// Items of different lengths: the second one waits for bytes, not for capacity, and is split by
/// the end of the ring.
#[test]
fn loom_item_wraps_at_the_end() {
    explore(|| {
        let shared = Shared::with_ring(4, 64);
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.put_all(Member(1), &[1]);
                shared.put_all(Member(1), &[2, 3, 4, 5]);
            })
        };
        assert_eq!(shared.get_all(Member(2)), [1]);
        assert_eq!(shared.get_all(Member(2)), [2, 3, 4, 5]);
        producer.join().unwrap();
    });
}

/// There are never more items than the capacity, even if there is room for their bytes.
#[test]
fn loom_one_of_two_producers_finds_a_place() {
    explore(|| {
        let shared = Shared::with_ring(1, 64);
        // So that the producer's cached cursor is used.
        shared.put(Member(3), 0);
        shared.get(Member(3));
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.try_put(Member(1), 10))
        };
        let mine = shared.try_put(Member(2), 20);
        let others = other.join().unwrap();
        assert!(mine != others);
        assert_eq!(shared.try_get(Member(3)), Some(if mine { 20 } else { 10 }));
        assert_eq!(shared.try_get(Member(3)), None);
    });
}

/// A frame whose number or length no member can have written is refused.
#[test]
fn loom_overwritten_frame_is_refused() {
    explore(|| {
        for (at, what) in [(0, "the sequence number of a frame"), (8, "the length of a frame")] {
            let shared = Shared::new(2);
            shared.put(Member(1), 7);
            shared.hot.copy_in(at, &[0x40; 8]);
            assert_eq!(shared.try_get_fault(Member(2)), Err(EngineError::Corrupted(what)));
        }
    });
}

/// `put` is delivery: a process that learns that a put has returned finds the item.
#[test]
fn loom_put_item_can_be_got_at_once() {
    explore(|| {
        let shared = Shared::new(2);
        let consumer = {
            let shared = shared.clone();
            thread::spawn(move || shared.try_get(Member(2)))
        };
        shared.put(Member(1), 7);
        let early = consumer.join().unwrap();
        let late = shared.try_get(Member(2));
        assert_eq!(early.or(late), Some(7));
        assert!(early.is_none() || late.is_none());
    });
}

/// The length is never a mixture of two moments: one item is moved on continually, and the length
/// is 0 or 1.
#[test]
fn loom_len_is_exact() {
    explore(|| {
        let shared = Shared::new(2);
        shared.put(Member(1), 0);
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || shared.len())
        };
        for _ in 0..2 {
            let item = shared.get(Member(1));
            shared.put(Member(1), item);
        }
        assert!(reader.join().unwrap() <= 1);
        assert_eq!(shared.len(), 1);
    });
}

/// The same from the other side: two items are moved on continually, and the length is 1 or 2.
#[test]
fn loom_len_counts_every_item() {
    explore(|| {
        let shared = Shared::new(2);
        shared.put(Member(1), 0);
        shared.put(Member(1), 1);
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || shared.len())
        };
        for _ in 0..2 {
            let item = shared.get(Member(1));
            shared.put(Member(1), item);
        }
        assert!((1..=2).contains(&reader.join().unwrap()));
        assert_eq!(shared.len(), 2);
    });
}

/// A reader without the lock sees the position and the count of one commit, while several more are
/// made.
#[test]
fn loom_cursor_is_of_one_commit() {
    explore(|| {
        let side = std::sync::Arc::new(Side::default());
        let reader = {
            let side = side.clone();
            thread::spawn(move || side.observe().unwrap())
        };
        for count in 1..=3 {
            let (epoch, _) = side.current();
            side.prepare(epoch, Cursor { hot: 100 * count, overflow: 1000 * count, count });
            side.commit(epoch);
        }
        let mark = reader.join().unwrap();
        assert_eq!((mark.hot, mark.overflow), (100 * mark.count, 1000 * mark.count));
    });
}

/// One producer waits for many bytes, another one for few. An item that is got makes room for the
/// small one alone: it is woken, although the large one may be first in line.
#[test]
fn loom_small_item_finds_room() {
    explore_long(|| {
        let shared = Shared::with_ring(4, 64);
        shared.put(Member(3), 1);
        shared.put(Member(3), 2);
        let large = {
            let shared = shared.clone();
            thread::spawn(move || shared.put_all(Member(1), &[3; 6]))
        };
        let small = {
            let shared = shared.clone();
            thread::spawn(move || shared.put(Member(2), 4))
        };
        assert_eq!(shared.get(Member(3)), 1);
        small.join().unwrap();
        assert_eq!((shared.get(Member(3)), shared.get(Member(3))), (2, 4));
        large.join().unwrap();
    });
}
