use std::time::Duration;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use multiproc_shm::Deadline;
use multiproc_shm::failpoint::die_at;
use multiproc_shm::primitives::explore;

use super::{DOOMED, Member, Shared, one};
use crate::engine::error::EngineError;

/// An item that is put during a shutdown is got, or its put is refused.
#[test]
fn loom_end_drain_beside_a_put() {
    explore(|| {
        let shared = Shared::new(2);
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.seen_by(Member(1), |ring| {
                    let item = 7u64.to_le_bytes();
                    ring.put(one(&item, &[8]), None, Deadline::NEVER, |_| Ok(())).1
                })
            })
        };
        let consumer = {
            let shared = shared.clone();
            thread::spawn(move || shared.get_to_the_end(Member(2)))
        };
        shared.control.shut_down(true);
        let put = producer.join().unwrap();
        let got = consumer.join().unwrap();
        match put {
            Ok(()) => assert_eq!(got, Ok(7)),
            Err(error) => assert_eq!((error, got), (EngineError::Closed, Err(EngineError::Closed))),
        }
    });
}

/// A shutdown wakes processes that wait for room and for items.
#[test]
fn loom_end_wakes_all_waiters() {
    for drain in [true, false] {
        explore(move || {
            let full = Shared::new(1);
            full.put(Member(1), 1);
            let empty = Shared::new(1);
            let producer = {
                let full = full.clone();
                thread::spawn(move || {
                    full.seen_by(Member(1), |ring| {
                        let item = 7u64.to_le_bytes();
                        ring.put(one(&item, &[8]), None, Deadline::NEVER, |_| Ok(())).1
                    })
                })
            };
            let consumer = {
                let empty = empty.clone();
                thread::spawn(move || empty.get_to_the_end(Member(2)))
            };
            full.control.shut_down(drain);
            empty.control.shut_down(drain);
            assert_eq!(producer.join().unwrap(), Err(EngineError::Closed));
            assert_eq!(consumer.join().unwrap(), Err(EngineError::Closed));
        });
    }
}

/// A discarding shutdown during a put and a get leaves no item in the queue.
#[test]
fn loom_end_discard_beside_a_put_and_a_get() {
    explore(|| {
        let shared = Shared::new(2);
        shared.put(Member(1), 5);
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.seen_by(Member(1), |ring| {
                    let item = 7u64.to_le_bytes();
                    ring.put(one(&item, &[8]), None, Deadline::NEVER, |_| Ok(())).1
                })
            })
        };
        let consumer = {
            let shared = shared.clone();
            thread::spawn(move || shared.get_to_the_end(Member(2)))
        };
        shared.control.shut_down(false);
        shared.seen_by(Member(3), |ring| ring.discard(Deadline::NEVER));
        let put = producer.join().unwrap();
        let got = consumer.join().unwrap();
        assert!(matches!(put, Ok(()) | Err(EngineError::Closed)), "{put:?}");
        assert!(matches!(got, Ok(5) | Err(EngineError::Closed)), "{got:?}");
        let (put, got) = shared.seen_by(Member(3), |ring| ring.counts()).unwrap();
        assert_eq!(put, got);
    });
}

/// The process that discards dies in the middle, and another one does the rest.
#[test]
fn loom_end_discard_is_finished_by_another_member() {
    explore(|| {
        let shared = Shared::with_overflow(6, 32, 4);
        (0..5).for_each(|n| shared.put(Member(1), n));
        shared.control.shut_down(false);
        let discard = |member| {
            shared.seen_by(Member(member), |ring| ring.discard(Deadline::NEVER));
        };
        for point in ["discard.committed", "get.trimmed", "get.trim_prepared"] {
            assert!(die_at(point, || discard(DOOMED)), "{point} was not reached");
        }
        discard(2);
        let is_left = shared.seen_by(Member(2), |ring| {
            let (put, got) = ring.counts().unwrap();
            put != got
        });
        assert!(!is_left && !die_at("get.trimmed", || discard(2)), "nothing is left to do");
    });
}

/// A batch wakes as many waiters as it has items.
#[test]
fn loom_end_batch_wakes_two() {
    explore(|| {
        let shared = Shared::new(4);
        let consumers = [1, 2].map(|n| {
            let shared = shared.clone();
            thread::spawn(move || shared.get(Member(n)))
        });
        shared.put_batch(Member(3), &[10, 20]);
        let got = consumers.map(|consumer| consumer.join().unwrap());
        assert_eq!(got.iter().sum::<u64>(), 30);
    });
}

/// A batch that is got makes room for two waiters.
#[test]
fn loom_end_batch_makes_room_for_two() {
    explore(|| {
        let shared = Shared::new(2);
        shared.put_batch(Member(3), &[10, 20]);
        let producers = [1, 2].map(|n| {
            let shared = shared.clone();
            thread::spawn(move || shared.put(Member(n), 7))
        });
        assert_eq!(shared.get_batch(Member(3), 5), [10, 20]);
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert_eq!(shared.get_batch(Member(3), 5), [7, 7]);
    });
}

/// Two gets, one after the other, make room for two waiters, although the second one may find the
/// notification of the first one in progress: the waiter that is woken passes it on.
#[test]
fn loom_end_two_places() {
    explore(|| {
        let shared = Shared::new(2);
        shared.put_batch(Member(3), &[10, 20]);
        let producers = [1, 2].map(|n| {
            let shared = shared.clone();
            thread::spawn(move || shared.put(Member(n), 7))
        });
        assert_eq!((shared.get(Member(3)), shared.get(Member(3))), (10, 20));
        producers.into_iter().for_each(|producer| producer.join().unwrap());
    });
}

/// A batch longer than the queue is put in parts, in order.
#[test]
fn loom_end_long_batch() {
    explore(|| {
        let shared = Shared::new(2);
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || shared.put_batch(Member(1), &[1, 2, 3]))
        };
        let mut got = Vec::new();
        while got.len() < 3 {
            got.extend(shared.get_batch(Member(2), 2));
        }
        assert_eq!(got, [1, 2, 3]);
        producer.join().unwrap();
    });
}

/// A doorbell, as poll(2) sees it.
#[derive(Default)]
struct Bell {
    rings: Mutex<u32>,
    rang: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rings.lock().unwrap() += 1;
        self.rang.notify_all();
    }

    fn take(&self) {
        *self.rings.lock().unwrap() = 0;
    }

    fn wait(&self) {
        let mut rings = self.rings.lock().unwrap();
        while *rings == 0 {
            rings = self.rang.wait(rings).unwrap();
        }
    }
}

const NOW: Duration = Duration::from_secs(1);

fn put_and_ring(shared: &Shared, doorbell: &Bell, member: Member, item: u64) {
    shared.put(member, item);
    if shared.control.must_ring_doorbell() {
        doorbell.ring();
    }
}

/// Discards the doorbell's packets while the queue is empty, as consumers do.
fn drain(shared: &Shared, doorbell: &Bell, member: Member) {
    let drain = || {
        shared.control.ask_again(NOW);
        doorbell.take();
    };
    let _ = shared.seen_by(member, |ring| ring.while_empty(drain));
}

/// Waits as `prepare_to_get` and poll(2) do, until there is an item.
fn wait_until_ready(shared: &Shared, doorbell: &Bell, member: Member) {
    while shared.len() == 0 {
        drain(shared, doorbell, member);
        shared.control.ask_for_doorbell(NOW);
        if shared.len() > 0 {
            return;
        }
        doorbell.wait();
    }
}

/// A put, and a process that is about to sleep: one of the two sees the other.
#[test]
fn loom_end_rings_the_doorbell() {
    explore(|| {
        let (shared, doorbell) = (Shared::new(2), Arc::new(Bell::default()));
        let producer = {
            let (shared, doorbell) = (shared.clone(), doorbell.clone());
            thread::spawn(move || put_and_ring(&shared, &doorbell, Member(1), 7))
        };
        wait_until_ready(&shared, &doorbell, Member(2));
        assert_eq!(shared.try_get(Member(2)), Some(7));
        producer.join().unwrap();
    });
}

/// Another consumer takes the first item and the doorbell's packet: the second put rings again.
#[test]
fn loom_end_consumed_doorbell_is_rung_again() {
    explore(|| {
        let (shared, doorbell) = (Shared::new(2), Arc::new(Bell::default()));
        shared.control.ask_for_doorbell(NOW);
        let waiter = {
            let (shared, doorbell) = (shared.clone(), doorbell.clone());
            thread::spawn(move || {
                doorbell.wait();
                wait_until_ready(&shared, &doorbell, Member(1));
            })
        };
        put_and_ring(&shared, &doorbell, Member(2), 7);
        assert_eq!(shared.get(Member(2)), 7);
        drain(&shared, &doorbell, Member(2));
        put_and_ring(&shared, &doorbell, Member(2), 8);
        waiter.join().unwrap();
    });
}
