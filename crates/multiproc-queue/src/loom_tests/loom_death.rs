use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use multiproc_sync::fault::die_at;
use multiproc_sync::primitives::explore;

use super::{DOOMED, Member, Shared};
use crate::{GET_POINTS, PUT_POINTS};

/// Takes the next item without sleeping, and lets the recheck intervals of all others end meanwhile.
fn get_as_clock(shared: &Shared) -> u64 {
    loop {
        if let Some(item) = shared.try_get(Member(1)) {
            return item;
        }
        shared.control.time_out();
        thread::yield_now();
    }
}

/// A producer dies at `point`, while a consumer waits; then another producer goes on.
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

/// A consumer dies at `point`, while a producer waits for room; then another consumer goes on.
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

/// Wherever a producer dies, it has put nothing or everything.
#[test]
fn loom_a_producer_dies_at_each_point() {
    for &point in PUT_POINTS {
        explore(move || producer_dies(point));
    }
}

/// Wherever a consumer dies, it has taken nothing or everything.
#[test]
fn loom_a_consumer_dies_at_each_point() {
    for &point in GET_POINTS {
        explore(move || consumer_dies(point));
    }
}
