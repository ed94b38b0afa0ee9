use loom::thread;

use super::{Member, Shared};
use crate::raw::side::{Mark, Side};
use multiproc_sync::primitives::explore;

/// One producer, one consumer, one place: every put but the first waits for a get, every frame but
/// the first wraps around.
#[test]
fn loom_one_to_one() {
    explore(|| {
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

/// Two producers, one consumer, one place: both items come, and nobody sleeps through its turn.
#[test]
fn loom_two_producers() {
    explore(|| {
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

/// One producer, two consumers: each item goes to one of them, and nobody sleeps through its turn.
#[test]
fn loom_two_consumers() {
    explore(|| {
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

/// Two producers, both asleep in front of a full ring, two gets in a row: both wake.
#[test]
fn loom_two_producers_asleep() {
    explore(|| {
        let shared = Shared::new(2);
        shared.put(Member(3), 1);
        shared.put(Member(3), 2);
        let producers = [1, 2].map(|n| {
            let shared = shared.clone();
            thread::spawn(move || shared.put(Member(n), 3))
        });
        assert_eq!(shared.try_get(Member(3)), Some(1));
        assert_eq!(shared.try_get(Member(3)), Some(2));
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert_eq!(shared.len(), 2);
    });
}

/// `put` is delivery: whoever learns that a put has returned finds the item.
#[test]
fn loom_what_is_put_is_there() {
    explore(|| {
        let shared = Shared::new(2);
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || shared.put(Member(1), 7))
        };
        let early = shared.try_get(Member(2));
        producer.join().unwrap();
        let late = shared.try_get(Member(2));
        assert_eq!(early.or(late), Some(7));
        assert!(early.is_none() || late.is_none());
    });
}

/// The length is never a mix of two moments: one item is moved on and on, and whoever looks sees
/// none or one.
#[test]
fn loom_len_is_exact() {
    explore(|| {
        let shared = Shared::new(2);
        shared.put(Member(1), 0);
        let mover = {
            let shared = shared.clone();
            thread::spawn(move || {
                let item = shared.get(Member(1));
                shared.put(Member(1), item);
            })
        };
        assert!(shared.len() <= 1);
        mover.join().unwrap();
        assert_eq!(shared.len(), 1);
    });
}

/// The other way round: there are always one or two items, and whoever looks sees so many.
#[test]
fn loom_len_misses_none() {
    explore(|| {
        let shared = Shared::new(2);
        shared.put(Member(1), 0);
        let mover = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.put(Member(1), 1);
                shared.get(Member(1))
            })
        };
        assert!((1..=2).contains(&shared.len()));
        mover.join().unwrap();
    });
}

/// Who looks without the lock sees the position and the count of one commit, while several more are
/// made.
#[test]
fn loom_a_mark_is_of_one_commit() {
    explore(|| {
        let side = std::sync::Arc::new(Side::default());
        let writer = {
            let side = side.clone();
            thread::spawn(move || {
                for count in 1..=3 {
                    let (epoch, _) = side.current();
                    side.prepare(epoch, Mark { position: 100 * count, count });
                    side.commit(epoch);
                }
            })
        };
        let mark = side.observe().unwrap();
        assert_eq!(mark.position, 100 * mark.count);
        writer.join().unwrap();
    });
}
