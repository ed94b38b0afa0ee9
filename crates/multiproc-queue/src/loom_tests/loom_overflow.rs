use loom::thread;
use multiproc_shm::failpoint::die_at;
use multiproc_shm::primitives::explore;

use super::loom_death::{dies_beside_an_heir, get_as_clock};
use super::{DOOMED, Member, Shared};

/// Creates a queue with a hot ring for one item, and some blocks for two items each.
fn queue(blocks: usize) -> std::sync::Arc<Shared> {
    Shared::with_overflow(100, 32, blocks)
}

/// Items pass through both rings in order.
#[test]
fn loom_overflow_one_to_one() {
    explore(|| {
        let shared = queue(4);
        shared.put(Member(1), 0);
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || (1..3).for_each(|item| shared.put(Member(1), item)))
        };
        (0..3).for_each(|item| assert_eq!(shared.get(Member(2)), item));
        producer.join().unwrap();
        assert_eq!(shared.len(), 0);
    });
}

/// Two producers put into the overflow ring, and each takes a block.
#[test]
fn loom_overflow_two_producers() {
    explore(|| {
        let shared = queue(4);
        shared.put(Member(3), 0);
        shared.put(Member(3), 1);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.put(Member(1), 2))
        };
        shared.put_all(Member(2), &[3; 5]);
        assert_eq!((shared.get(Member(3)), shared.get(Member(3))), (0, 1));
        let mut rest = [shared.get_all(Member(3)), shared.get_all(Member(3))];
        rest.sort_unstable();
        assert_eq!(rest, [vec![2], vec![3; 5]]);
        other.join().unwrap();
        assert_eq!(shared.len(), 0);
    });
}

/// Two consumers get from the overflow ring while a producer puts.
#[test]
fn loom_overflow_two_consumers() {
    explore(|| {
        let shared = queue(4);
        (0..3).for_each(|item| shared.put(Member(3), item));
        let consumers = [1, 2].map(|n| {
            let shared = shared.clone();
            thread::spawn(move || shared.get(Member(n)))
        });
        shared.put(Member(3), 3);
        let mut got: Vec<_> = consumers.into_iter().map(|child| child.join().unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, [0, 1]);
        assert_eq!((shared.get(Member(3)), shared.get(Member(3))), (2, 3));
    });
}

/// Items that are larger than the hot ring, and than a block.
#[test]
fn loom_overflow_large_items() {
    explore(|| {
        let shared = queue(4);
        shared.put_all(Member(1), &[1]);
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || shared.put_all(Member(1), &[2; 7]))
        };
        assert_eq!(shared.get_all(Member(2)), [1]);
        assert_eq!(shared.get_all(Member(2)), [2; 7]);
        producer.join().unwrap();
        shared.put_all(Member(1), &[3; 9]);
        assert_eq!(shared.get_all(Member(2)), [3; 9]);
    });
}

/// The bytes are used up: the memory of items that were got is reused.
#[test]
fn loom_overflow_wraps() {
    explore(|| {
        let shared = queue(4);
        (0..5).for_each(|item| shared.put(Member(1), item));
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || shared.put(Member(1), 5))
        };
        (0..2).for_each(|item| assert_eq!(shared.get(Member(2)), item));
        producer.join().unwrap();
        shared.put(Member(1), 6);
        (2..7).for_each(|item| assert_eq!(shared.get(Member(2)), item));
        (7..12).for_each(|item| shared.put(Member(1), item));
        (7..12).for_each(|item| assert_eq!(shared.get(Member(2)), item));
    });
}

/// The consumer of the last item releases memory while a producer puts: it releases none that is in
/// use.
#[test]
fn loom_overflow_trim_when_empty() {
    explore(|| {
        let shared = queue(8);
        (0..4).for_each(|item| shared.put(Member(1), item));
        (0..3).for_each(|item| assert_eq!(shared.get(Member(2)), item));
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || shared.put_all(Member(1), &[6; 5]))
        };
        assert_eq!(shared.get(Member(2)), 3);
        assert_eq!(shared.get_all(Member(2)), [6; 5]);
        producer.join().unwrap();
        (8..14).for_each(|item| shared.put(Member(1), item));
        (8..14).for_each(|item| assert_eq!(shared.get(Member(2)), item));
    });
}

/// A long backlog: the memory of items that were got is released in pieces, while a producer takes
/// it again.
#[test]
fn loom_overflow_trim_of_a_backlog() {
    explore(|| {
        let shared = queue(8);
        (0..13).for_each(|item| shared.put(Member(1), item));
        (0..10).for_each(|item| assert_eq!(shared.get(Member(1)), item));
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || shared.put_all(Member(1), &[13; 9]))
        };
        assert_eq!(shared.get(Member(2)), 10);
        producer.join().unwrap();
        (11..13).for_each(|item| assert_eq!(shared.get(Member(2)), item));
        assert_eq!(shared.get_all(Member(2)), [13; 9]);
        assert_eq!(shared.len(), 0);
    });
}

/// Two consumers empty the queue: both may find that it is time to release memory.
#[test]
fn loom_overflow_two_trim() {
    explore(|| {
        let shared = queue(8);
        (0..6).for_each(|item| shared.put(Member(1), item));
        (0..4).for_each(|item| assert_eq!(shared.get(Member(1)), item));
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.get(Member(2)))
        };
        assert_eq!(shared.get(Member(1)) + other.join().unwrap(), 4 + 5);
        (6..12).for_each(|item| shared.put(Member(1), item));
        (6..12).for_each(|item| assert_eq!(shared.get(Member(2)), item));
    });
}

const PUT: &[&str] = &[
    "put.seen",
    "put.block_reserved",
    "put.block_prepared",
    "put.block_taken",
    "put.half_written",
    "put.written",
    "put.prepared",
    "put.committed",
];

/// A producer dies at each failpoint during a put of another one into the same ring.
#[test]
fn loom_overflow_successor_of_a_killed_producer() {
    for &point in PUT {
        explore(move || {
            let shared = queue(8);
            // One item in the hot ring, and two that fill a block.
            (0..3).for_each(|item| shared.put(Member(1), item));
            dies_beside_an_heir(
                &shared,
                point,
                |shared| shared.put_all(Member(DOOMED), &[2; 9]),
                |heir| shared.put_all(heir, &[3; 9]),
            );
            (0..3).for_each(|item| assert_eq!(shared.get(Member(2)), item, "{point}"));
            let was_put = point == "put.committed";
            let mut got = vec![shared.get_all(Member(2))[0]];
            if was_put {
                got.push(shared.get_all(Member(2))[0]);
            }
            got.sort_unstable();
            assert_eq!(got, if was_put { vec![2, 3] } else { vec![3] }, "{point}");
            assert_eq!(shared.len(), 0);
        });
    }
}

const GET: &[&str] = &[
    "get.copied",
    "get.prepared",
    "get.committed",
    "get.trimmed",
    "get.trim_prepared",
    "get.trim_committed",
];

/// A consumer dies at each failpoint of the last item, while a producer puts more.
#[test]
fn loom_overflow_killed_consumer_loses_nothing() {
    for &point in GET {
        explore(move || {
            let shared = queue(8);
            (0..6).for_each(|item| shared.put(Member(1), item));
            (0..5).for_each(|item| assert_eq!(shared.get(Member(1)), item));
            // The producer comes second, so that the last item is really the last one.
            let died = die_at(point, || {
                shared.get(Member(DOOMED));
            });
            assert!(died, "{point} was not reached");
            let producer = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.put_all(Member(1), &[6; 9]);
                    shared.put_all(Member(1), &[7; 5]);
                })
            };
            if matches!(point, "get.copied" | "get.prepared") {
                assert_eq!(get_as_clock(&shared), 5, "{point}");
            }
            let mut got = Vec::new();
            while got.len() < 2 {
                let mut item = Vec::new();
                if shared.try_get_into(Member(2), &mut item) {
                    got.push(item);
                }
                shared.control.time_out();
                thread::yield_now();
            }
            producer.join().unwrap();
            assert_eq!(got, [vec![6; 9], vec![7; 5]], "{point}");
        });
    }
}
