use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use multiproc_shm::failpoint::die_at;
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::explore;

use super::{DOOMED, Member, Shared};
use crate::{GET_POINTS, PUT_POINTS};

/// Takes the next item without sleeping, and ends the recheck intervals of all others meanwhile.
pub(super) fn get_as_clock(shared: &Shared) -> u64 {
    loop {
        if let Some(item) = shared.try_get(Member(1)) {
            return item;
        }
        shared.control.time_out();
        thread::yield_now();
    }
}

/// A producer dies at `point` while a consumer waits. Then another producer goes on.
fn producer_dies(point: &'static str) {
    let shared = Shared::new(2);
    let done = Arc::new(AtomicBool::new(false));
    let consumer = {
        let (shared, done) = (shared.clone(), done.clone());
        thread::spawn(move || {
            let mut got = vec![shared.get(Member(1))];
            if got[0] == 10 {
                got.push(shared.get(Member(1)));
            }
            done.store(true, Ordering::Release);
            got
        })
    };
    assert!(die_at(point, || shared.put(Member(DOOMED), 10)), "{point} was not reached");
    shared.put(Member(2), 20);
    while !done.load(Ordering::Acquire) {
        shared.control.time_out();
        thread::yield_now();
    }
    let got = consumer.join().unwrap();
    let was_put = matches!(point, "put.committed" | "put.unlocked");
    assert_eq!(got, if was_put { vec![10, 20] } else { vec![20] }, "{point}");
    assert_eq!(shared.len(), 0, "{point}");
}

/// A consumer dies at `point` while a producer waits for room. Then another consumer goes on.
fn consumer_dies(point: &'static str) {
    let shared = Shared::new(1);
    shared.put(Member(2), 10);
    let producer = {
        let shared = shared.clone();
        thread::spawn(move || shared.put(Member(2), 20))
    };
    let died = die_at(point, || {
        shared.get(Member(DOOMED));
    });
    assert!(died, "{point} was not reached");
    let was_taken = matches!(point, "get.committed" | "get.unlocked");
    if !was_taken {
        assert_eq!(get_as_clock(&shared), 10, "{point}");
    }
    assert_eq!(get_as_clock(&shared), 20, "{point}");
    producer.join().unwrap();
    assert_eq!(shared.len(), 0, "{point}");
}

/// A producer that dies at any failpoint has put an item entirely or not at all.
#[test]
fn loom_producer_killed_at_each_point_loses_nothing() {
    for &point in PUT_POINTS {
        explore(move || producer_dies(point));
    }
}

/// A consumer that dies at any failpoint has taken an item entirely or not at all.
#[test]
fn loom_consumer_killed_at_each_point_loses_nothing() {
    for &point in GET_POINTS {
        explore(move || consumer_dies(point));
    }
}

/// A member dies with a lock of the ring (once with each), and its slot is released while others
/// wait for the lock and take it for alive: they are woken.
#[test]
fn loom_released_slot_frees_both_locks() {
    const UNNOTICED: usize = 8;
    explore(|| {
        let shared = Shared::new(2);
        shared.put(Member(1), 10);
        assert!(die_at("put.locked", || shared.put(Member(UNNOTICED), 20)));
        assert!(die_at("get.locked", || {
            shared.get(Member(UNNOTICED));
        }));
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || shared.put(Member(1), 30))
        };
        let consumer = {
            let shared = shared.clone();
            thread::spawn(move || shared.get(Member(2)))
        };
        shared.control.release_slot(UNNOTICED);
        producer.join().unwrap();
        assert_eq!(consumer.join().unwrap(), 10);
        assert_eq!(shared.get(Member(1)), 30);
    });
}

/// Member 1, which takes the doomed member for alive until the flag is set.
pub(super) struct Heir(Arc<AtomicBool>);

impl Members for &Heir {
    fn me(&self) -> MemberId {
        Member(1).me()
    }

    fn is_alive(&self, member: MemberId) -> bool {
        Member(1).is_alive(member) || !self.0.load(Ordering::Acquire)
    }
}

/// Runs `life` as a member that dies at `point`, while another one runs `heir` on the same side.
pub(super) fn dies_beside_an_heir(
    shared: &std::sync::Arc<Shared>,
    point: &'static str,
    life: fn(&Shared),
    heir: impl FnOnce(&Heir),
) {
    let died = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicBool::new(false));
    let doomed = {
        let (shared, died, done) = (shared.clone(), died.clone(), done.clone());
        thread::spawn(move || {
            assert!(die_at(point, || life(&shared)), "{point} was not reached");
            died.store(true, Ordering::Release);
            // It is dead, and this thread continues as the clock.
            while !done.load(Ordering::Acquire) {
                shared.control.time_out();
                thread::yield_now();
            }
        })
    };
    heir(&Heir(died));
    done.store(true, Ordering::Release);
    doomed.join().unwrap();
}

/// A producer dies at any failpoint while another one is about to put, or waits for the lock. That
/// one goes on, and finds the ring consistent.
#[test]
fn loom_successor_of_a_killed_producer_continues() {
    for &point in PUT_POINTS {
        explore(move || {
            let shared = Shared::new(2);
            dies_beside_an_heir(
                &shared,
                point,
                |shared| shared.put(Member(DOOMED), 10),
                |heir| {
                    shared.put(heir, 20);
                },
            );
            let mut got: Vec<_> = std::iter::from_fn(|| shared.try_get(Member(2))).collect();
            got.sort_unstable();
            let was_put = matches!(point, "put.committed" | "put.unlocked");
            assert_eq!(got, if was_put { vec![10, 20] } else { vec![20] }, "{point}");
        });
    }
}

/// A consumer dies at any failpoint while another one is about to get, or waits for the lock. That
/// one goes on, and finds the ring consistent.
#[test]
fn loom_successor_of_a_killed_consumer_continues() {
    for &point in GET_POINTS {
        explore(move || {
            let shared = Shared::new(2);
            shared.put(Member(2), 10);
            shared.put(Member(2), 20);
            let mut item = None;
            dies_beside_an_heir(
                &shared,
                point,
                |shared| {
                    shared.get(Member(DOOMED));
                },
                |heir| {
                    item = Some(shared.get(heir));
                },
            );
            let was_taken = matches!(point, "get.committed" | "get.unlocked");
            let rest: Vec<_> = std::iter::from_fn(|| shared.try_get(Member(2))).collect();
            match item.unwrap() {
                10 => assert_eq!(rest, if was_taken { vec![] } else { vec![20] }, "{point}"),
                20 => assert_eq!((rest, was_taken), (vec![], true), "{point}"),
                other => panic!("{other} was never put"),
            }
        });
    }
}
