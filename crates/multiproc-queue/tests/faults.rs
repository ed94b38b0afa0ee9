//! Death at every named point of `put` and `get`. Run by `cargo xtask faults`, which compiles the
//! points in.
#![cfg(multiproc_faults)]

use std::collections::BTreeSet;
use std::env;
use std::time::{Duration, Instant};

use multiproc::{JoinError, Process};
use multiproc_queue::{GET_POINTS, PUT_POINTS, Queue};
use multiproc_testkit::{die_at, is_asleep, until, watchdog};

multiproc::enable_in_tests!();

const KILLED: JoinError = JoinError::Signaled(9, false);

/// The bound of the promise is a second for everything; for the queue's own locks it is meant to be
/// some 20 ms. A machine may be busy: so a second here.
const RECOVERY: Duration = Duration::from_secs(1);

/// A process that puts 0, 1, 2… and dies at `point` of the third put.
fn doomed_producer(queue: &Queue<u32>, point: &str) {
    let put = |(queue, point): (Queue<u32>, String)| {
        die_at(&point, 3);
        (0..10).for_each(|n| queue.put(n).unwrap());
    };
    let child = Process::spawn(put, (queue.clone(), point.to_owned())).unwrap();
    assert_eq!(child.join().unwrap_err(), KILLED, "{point} was not reached");
}

/// A process that gets, and dies at `point` of the third get.
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
fn faults_a_producer_dies_at_each_point() {
    let _dog = watchdog();
    for &point in PUT_POINTS {
        let queue = Queue::bounded(4).unwrap();
        doomed_producer(&queue, point);
        let was_put = matches!(point, "put.committed" | "put.unlocked");
        let there = if was_put { 3 } else { 2 };
        assert_eq!(queue.len(), there, "{point}");
        within_recovery(|| queue.try_put(100).unwrap());
        // The capacity is what it was.
        (there..3).for_each(|_| queue.try_put(101).unwrap());
        assert!(queue.is_full() && queue.try_put(102).unwrap_err().is_full(), "{point}");
        for n in 0..there {
            assert_eq!(within_recovery(|| queue.try_get().unwrap()) as usize, n, "{point}");
        }
        assert_eq!(queue.try_get().unwrap(), 100, "{point}");
    }
}

#[test]
fn faults_a_consumer_dies_at_each_point() {
    let _dog = watchdog();
    for &point in GET_POINTS {
        let queue = Queue::bounded(4).unwrap();
        (0..4).for_each(|n| queue.put(n).unwrap());
        doomed_consumer(&queue, point);
        // What it had taken ends with it.
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

/// A consumer sleeps while a producer dies at each point; then another one puts.
#[test]
fn faults_a_sleeping_consumer_outlives_producers() {
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

/// A producer sleeps in front of a full queue while a consumer dies at each point.
#[test]
fn faults_a_sleeping_producer_outlives_consumers() {
    let _dog = watchdog();
    for &point in GET_POINTS {
        let queue = Queue::bounded(3).unwrap();
        (0..3).for_each(|n| queue.put(n).unwrap());
        let put = |queue: Queue<u32>| queue.put(100).unwrap();
        let producer = Process::spawn(put, queue.clone()).unwrap();
        until(|| is_asleep(producer.pid()));
        doomed_consumer(&queue, point);
        within_recovery(|| {
            // If the first two gets have not made room already, this does.
            while queue.get().unwrap() != 100 {}
            producer.join().unwrap();
        });
        assert!(queue.is_empty(), "{point}");
    }
}

/// Those who wait, and those who wake them, die at the points of waiting.
#[test]
fn faults_wake_ups_are_lost_with_the_dead() {
    let _dog = watchdog();
    for point in ["waiters.about_to_sleep", "waiters.woken"] {
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
        die_at("waiters.about_to_wake", 1);
        queue.put(5).unwrap();
    };
    let doomed = Process::spawn(put, queue).unwrap();
    assert_eq!(within_recovery(|| sleeper.join().unwrap()), 5);
    assert_eq!(doomed.join().unwrap_err(), KILLED);
}

/// The lists of points are those that the code has, in any order.
#[test]
fn faults_the_lists_are_complete() {
    let _dog = watchdog();
    let queue = Queue::bounded(4).unwrap();
    queue.put(1u32).unwrap();
    queue.get().unwrap();
    let reached: BTreeSet<_> = multiproc_sync::fault::seen()
        .into_iter()
        .filter(|point| point.starts_with("put.") || point.starts_with("get."))
        .collect();
    assert_eq!(reached, PUT_POINTS.iter().chain(GET_POINTS).copied().collect());
}

/// Producers and consumers are killed at random, for a second, or as long as the environment says
/// (`cargo xtask faults --soak SECONDS --seed N`): what is there at the end is in order, nothing came
/// twice, and nothing is lost but what dead consumers had in their hands.
#[test]
fn faults_soak() {
    let seconds = env::var("MULTIPROC_SOAK_SECONDS").map_or(1, |text| text.parse().unwrap());
    let seed =
        env::var("MULTIPROC_SEED").map_or_else(|_| fastrand::u64(..), |n| n.parse().unwrap());
    eprintln!("seed {seed}, for {seconds} s");
    let mut random = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        random_kills(&mut random);
        if Instant::now() >= end {
            break;
        }
    }
}

fn random_kills(random: &mut fastrand::Rng) {
    // One watchdog each, so that a long soak is not a hang.
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
            // Nothing is under way any more, apart from what a relay is about to put.
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
    assert!(deaths > 20, "the point of it is that they die");
    let lost = 50_000 - got.len();
    assert!(lost <= deaths, "{lost} items are lost, and only {deaths} relays died");
}
