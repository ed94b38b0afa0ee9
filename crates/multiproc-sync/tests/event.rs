//! Events between processes, and the death of waiters.

use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Connection, duplex};
use multiproc_sync::{Atomic, Event};
use multiproc_testkit::{Stopped, is_asleep, until, watchdog};

multiproc::enable_in_tests!();

/// The promised bound: no process waits longer for a dead one.
const RECOVERY: Duration = Duration::from_secs(1);

/// Starts a process that waits, and waits until it sleeps. It ends with a test that fails.
fn sleeper(event: &Event) -> Process {
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let wait = |(event, parent): (Event, Connection<(), ()>)| {
        parent.send(()).unwrap();
        event.wait();
    };
    let child = Process::builder().daemon(true).spawn(wait, (event.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    until(|| is_asleep(child.pid()));
    child
}

fn join(children: impl IntoIterator<Item = Process>) {
    for child in children {
        child.join().unwrap();
    }
}

#[test]
fn set_and_clear_change_is_set() {
    let event = Event::new().unwrap();
    assert!(!event.is_set());
    event.clear();
    assert!(!event.is_set(), "it was clear before");
    event.set();
    event.set();
    assert!(event.is_set());
    event.wait();
    event.clear();
    assert!(!event.is_set(), "however often it was set");
}

#[test]
fn set_wakes_all_waiters() {
    let _dog = watchdog();
    let event = Event::new().unwrap();
    let children = [0; 5].map(|_| sleeper(&event));
    assert!(format!("{event:?}").contains("waited_for: true"), "{event:?}");
    event.set();
    join(children);
    assert!(event.is_set(), "it stays so");
}

#[test]
fn set_by_another_process_ends_the_wait() {
    let _dog = watchdog();
    let event = Event::new().unwrap();
    let child = Process::spawn(|event: Event| event.set(), event.clone()).unwrap();
    event.wait();
    child.join().unwrap();
}

#[test]
fn wait_after_clear_waits() {
    let _dog = watchdog();
    let event = Event::new().unwrap();
    for _ in 0..20 {
        event.set();
        event.clear();
        let child = sleeper(&event);
        event.set();
        join([child]);
    }
}

#[test]
fn timeout_is_a_lower_bound() {
    let event = Event::new().unwrap();
    for milliseconds in [0, 1, 30] {
        let timeout = Duration::from_millis(milliseconds);
        let start = Instant::now();
        assert!(!event.wait_timeout(timeout));
        assert!(start.elapsed() >= timeout);
    }
    assert!(!event.wait_deadline(Instant::now()));
    event.set();
    assert!(event.wait_timeout(Duration::ZERO));
    assert!(event.wait_deadline(Instant::now()));
}

#[test]
fn set_before_the_deadline_ends_the_wait() {
    let _dog = watchdog();
    let event = Event::new().unwrap();
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let wait = |(event, parent): (Event, Connection<(), ()>)| {
        parent.send(()).unwrap();
        // Longer than the test runs, and longer than the clock can represent.
        event.wait_timeout(Duration::from_secs(3600)) && event.wait_timeout(Duration::MAX)
    };
    let child = Process::spawn(wait, (event.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    until(|| is_asleep(child.pid()));
    event.set();
    assert!(child.join().unwrap());
}

#[test]
fn waiter_does_not_miss_a_set_that_is_cleared_at_once() {
    let _dog = watchdog();
    for _ in 0..20 {
        let event = Event::new().unwrap();
        let children = [0; 3].map(|_| sleeper(&event));
        event.set();
        event.clear();
        join(children);
        assert!(!event.is_set());
    }
}

#[test]
fn stopped_waiter_does_not_miss_a_set_that_is_cleared_at_once() {
    let _dog = watchdog();
    let event = Event::new().unwrap();
    let child = sleeper(&event);
    let stopped = Stopped::new(child.pid());
    for _ in 0..3 {
        event.set();
        event.clear();
    }
    drop(stopped);
    join([child]);
}

#[test]
fn killed_waiters_do_not_block_set() {
    let _dog = watchdog();
    let event = Event::new().unwrap();
    let [first, second, third, fourth] = [0; 4].map(|_| sleeper(&event));
    for child in [&first, &third] {
        child.kill().unwrap();
        child.wait();
    }
    let start = Instant::now();
    assert!(!event.is_set());
    event.clear();
    event.set();
    assert!(event.is_set());
    join([second, fourth]);
    assert!(start.elapsed() < RECOVERY);
    event.clear();
    assert!(!event.is_set());
}

/// What a process wrote before `set` is visible to all processes whose wait it ended.
#[test]
fn writes_before_set_are_visible_after_wait() {
    let _dog = watchdog();
    type Arguments = (Event, Event, Atomic);
    let arguments: Arguments =
        (Event::new().unwrap(), Event::new().unwrap(), Atomic::new(0).unwrap());
    let (ping, pong, number) = arguments.clone();
    let answer = |(ping, pong, number): Arguments| {
        for round in 0..500 {
            ping.wait();
            ping.clear();
            assert_eq!(number.fetch_add(1), 2 * round);
            pong.set();
        }
    };
    let child = Process::spawn(answer, arguments).unwrap();
    for round in 0..500 {
        ping.set();
        pong.wait();
        pong.clear();
        assert_eq!(number.fetch_add(1), 2 * round + 1);
    }
    child.join().unwrap();
}
