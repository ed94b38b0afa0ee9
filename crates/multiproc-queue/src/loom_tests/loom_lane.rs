use loom::thread;
use multiproc_shm::failpoint::die_at;
use multiproc_shm::primitives::explore;

use super::loom_death::dies_beside_an_heir;
use super::{DOOMED, Member, Shared};

/// Each item of two producers is got with its own descriptor.
#[test]
fn loom_lane_two_producers() {
    explore(|| {
        let shared = Shared::new(4);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.put_with_descriptor(Member(1), 10))
        };
        shared.put_with_descriptor(Member(2), 20);
        let first = shared.get_with_descriptor(Member(3));
        assert_eq!(first + shared.get_with_descriptor(Member(3)), 30);
        other.join().unwrap();
        assert!(shared.lane.lock().unwrap().is_empty());
    });
}

/// Each item is got with its own descriptor by two consumers.
#[test]
fn loom_lane_two_consumers() {
    explore(|| {
        let shared = Shared::new(4);
        let consumer = {
            let shared = shared.clone();
            thread::spawn(move || shared.get_with_descriptor(Member(1)))
        };
        shared.put_with_descriptor(Member(3), 10);
        shared.put_with_descriptor(Member(3), 20);
        let first = shared.get_with_descriptor(Member(2));
        assert_eq!(first + consumer.join().unwrap(), 30);
        assert!(shared.lane.lock().unwrap().is_empty());
    });
}

/// A producer dies at each failpoint during a put of another one: its packet in the lane belongs to
/// no item.
#[test]
fn loom_lane_successor_of_a_killed_producer() {
    for point in ["put.tagged", "put.sent", "put.half_written", "put.prepared", "put.committed"] {
        explore(move || {
            let shared = Shared::new(4);
            dies_beside_an_heir(
                &shared,
                point,
                |shared| shared.put_with_descriptor(Member(DOOMED), 10),
                |heir| shared.put_with_descriptor(heir, 20),
            );
            let mut got: Vec<_> =
                std::iter::from_fn(|| shared.try_get_with_descriptor(Member(2))).collect();
            got.sort_unstable();
            assert_eq!(got, if point == "put.committed" { vec![10, 20] } else { vec![20] });
        });
    }
}

/// A consumer dies at each failpoint during a get of another one: the next item has its own
/// descriptor.
#[test]
fn loom_lane_successor_of_a_killed_consumer() {
    let points = [
        "get.received",
        "get.copied",
        "get.prepared",
        "get.committed",
        "get.removed",
        "get.unlocked",
    ];
    for point in points {
        explore(move || {
            let shared = Shared::new(4);
            shared.put_with_descriptor(Member(2), 10);
            shared.put_with_descriptor(Member(2), 20);
            let mut item = None;
            dies_beside_an_heir(
                &shared,
                point,
                |shared| {
                    shared.get_with_descriptor(Member(DOOMED));
                },
                |heir| {
                    item = Some(shared.get_with_descriptor(heir));
                },
            );
            let was_taken = matches!(point, "get.committed" | "get.removed" | "get.unlocked");
            let rest: Vec<_> =
                std::iter::from_fn(|| shared.try_get_with_descriptor(Member(2))).collect();
            match item.unwrap() {
                10 => assert_eq!(rest, if was_taken { vec![] } else { vec![20] }, "{point}"),
                20 => assert_eq!((rest, was_taken), (vec![], true), "{point}"),
                other => panic!("{other} was never put"),
            }
        });
    }
}

/// Packets of dead processes are discarded while the queue is empty, but never one that a live
/// producer has just sent.
#[test]
fn loom_lane_drain_beside_a_put() {
    explore(|| {
        let shared = Shared::new(4);
        assert!(die_at("put.sent", || shared.put_with_descriptor(Member(DOOMED), 10)));
        // Its lock was recovered.
        shared.put(Member(2), 0);
        assert_eq!(shared.get(Member(2)), 0);
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || shared.put_with_descriptor(Member(1), 20))
        };
        let result = shared
            .seen_by(Member(2), |ring| ring.while_empty(|| shared.lane.lock().unwrap().clear()));
        assert_eq!(result, Ok(()));
        assert_eq!(shared.get_with_descriptor(Member(2)), 20);
        producer.join().unwrap();
        assert!(shared.lane.lock().unwrap().is_empty());
    });
}
