//! The two kinds of semaphores between processes, and the death of holders and waiters.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Connection, duplex};
use multiproc_sync::{Atomic, BoundedSemaphore, Event, RECHECK, Semaphore};
use multiproc_testkit::{Stopped, is_asleep, stays, until, watchdog};

multiproc::enable_in_tests!();

/// The promised bound: no process waits longer for a dead one.
const RECOVERY: Duration = Duration::from_secs(1);

fn kill(child: &Process) {
    child.kill().unwrap();
    child.wait();
}

/// Starts a process that acquires, and waits until it sleeps. When its wait ends, it increments
/// `through`. It is a daemon, so it ends with a test that fails.
fn sleeper(semaphore: &Semaphore, through: &Atomic) -> Process {
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let acquire = |(semaphore, through, parent): (Semaphore, Atomic, Connection<(), ()>)| {
        parent.send(()).unwrap();
        semaphore.acquire();
        through.fetch_add(1);
    };
    let arguments = (semaphore.clone(), through.clone(), theirs);
    let child = Process::builder().daemon(true).spawn(acquire, arguments).unwrap();
    ours.recv().unwrap();
    until(|| is_asleep(child.pid()));
    child
}

#[test]
fn acquire_and_release_change_the_value() {
    let semaphore = Semaphore::new(2).unwrap();
    assert_eq!(semaphore.value(), 2);
    semaphore.acquire();
    semaphore.try_acquire().unwrap();
    assert_eq!(semaphore.value(), 0);
    semaphore.try_acquire().unwrap_err();
    semaphore.release(5).unwrap();
    assert_eq!(semaphore.value(), 5, "more than at the start");
    semaphore.acquire_timeout(Duration::ZERO).unwrap();
    semaphore.acquire_deadline(Instant::now()).unwrap();
    assert_eq!(semaphore.value(), 3);
}

#[test]
fn value_above_the_maximum_is_an_error() {
    const MAX: u32 = Semaphore::MAX;
    assert_eq!(Semaphore::new(MAX + 1).unwrap_err().kind(), ErrorKind::InvalidInput);

    let semaphore = Semaphore::new(MAX - 1).unwrap();
    for too_many in [2, 3, MAX, u32::MAX] {
        semaphore.release(too_many).unwrap_err();
        assert_eq!(semaphore.value(), MAX - 1);
    }
    semaphore.release(1).unwrap();
    semaphore.release(1).unwrap_err();
    semaphore.release(0).unwrap();
    assert_eq!(semaphore.value(), MAX);
    semaphore.acquire();
    assert_eq!(semaphore.value(), MAX - 1);
}

#[test]
fn timeout_is_a_lower_bound() {
    let semaphore = Semaphore::new(0).unwrap();
    let bounded = BoundedSemaphore::new(1).unwrap();
    let _permit = bounded.acquire();
    for milliseconds in [0, 1, 30] {
        let timeout = Duration::from_millis(milliseconds);
        let start = Instant::now();
        semaphore.acquire_timeout(timeout).unwrap_err();
        assert!(start.elapsed() >= timeout);
        let start = Instant::now();
        bounded.acquire_timeout(timeout).unwrap_err();
        assert!(start.elapsed() >= timeout);
    }
    semaphore.acquire_deadline(Instant::now()).unwrap_err();
    bounded.acquire_deadline(Instant::now()).unwrap_err();
    assert_eq!((semaphore.value(), bounded.available()), (0, 0), "nothing was taken");
}

#[test]
fn release_wakes_a_waiter() {
    let _dog = watchdog();
    let (semaphore, through) = (Semaphore::new(0).unwrap(), Atomic::new(0).unwrap());
    let child = sleeper(&semaphore, &through);
    assert!(format!("{semaphore:?}").contains("waited_for: true"), "{semaphore:?}");
    semaphore.release(0).unwrap();
    assert!(stays(|| through.load() == 0), "nothing was released");
    semaphore.release(1).unwrap();
    child.join().unwrap();
    assert_eq!(semaphore.value(), 0);
}

#[test]
fn release_of_three_ends_three_of_five_waits() {
    let _dog = watchdog();
    let (semaphore, through) = (Semaphore::new(0).unwrap(), Atomic::new(0).unwrap());
    let children = [0; 5].map(|_| sleeper(&semaphore, &through));
    semaphore.release(3).unwrap();
    until(|| through.load() == 3);
    assert!(stays(|| through.load() == 3 && semaphore.value() == 0));
    until(|| children.iter().filter(|child| is_asleep(child.pid())).count() == 2);
    semaphore.release(2).unwrap();
    for child in children {
        child.join().unwrap();
    }
    assert_eq!(semaphore.value(), 0);
}

#[test]
fn single_releases_reach_all_waiters() {
    let _dog = watchdog();
    for _ in 0..10 {
        let (semaphore, through) = (Semaphore::new(0).unwrap(), Atomic::new(0).unwrap());
        let children = [0; 5].map(|_| sleeper(&semaphore, &through));
        for _ in 0..5 {
            semaphore.release(1).unwrap();
        }
        for child in children {
            child.join().unwrap();
        }
        assert_eq!((semaphore.value(), through.load()), (0, 5));
    }
}

#[test]
fn killed_waiter_acquires_nothing() {
    let _dog = watchdog();
    let (semaphore, through) = (Semaphore::new(0).unwrap(), Atomic::new(0).unwrap());
    // The waiter that fell asleep first would be woken first.
    let [first, second] = [0; 2].map(|_| sleeper(&semaphore, &through));
    kill(&first);
    let start = Instant::now();
    semaphore.release(1).unwrap();
    second.join().unwrap();
    assert!(start.elapsed() < RECOVERY);
    assert_eq!(semaphore.value(), 0);
}

/// The waiter may die before or after it has acquired. In the second case one permit is lost.
#[test]
fn waiter_killed_while_woken_acquires_at_most_one() {
    let _dog = watchdog();
    for _ in 0..50 {
        let (semaphore, through) = (Semaphore::new(0).unwrap(), Atomic::new(0).unwrap());
        let [first, second] = [0; 2].map(|_| sleeper(&semaphore, &through));
        semaphore.release(2).unwrap();
        first.kill().unwrap();
        let start = Instant::now();
        second.join().unwrap();
        assert!(start.elapsed() < RECOVERY);
        first.wait();
        let (through, left) = (through.load(), semaphore.value());
        assert!(left <= 1 && through + u64::from(left) <= 2, "{through} through, {left} left");
    }
}

#[test]
fn acquisitions_of_a_killed_process_are_lost() {
    let _dog = watchdog();
    let semaphore = Semaphore::new(2).unwrap();
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let acquire = |(semaphore, parent): (Semaphore, Connection<(), ()>)| {
        semaphore.acquire();
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let child = Process::spawn(acquire, (semaphore.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    kill(&child);
    semaphore.acquire();
    semaphore.acquire_timeout(3 * RECHECK).unwrap_err();
}

/// Many processes acquire and release, some of them short-lived: the value is neither lost nor
/// made.
#[test]
fn sum_of_acquisitions_and_value_is_constant() {
    let _dog = watchdog();
    let semaphore = Semaphore::new(3).unwrap();
    let pass_on = |semaphore: Semaphore| {
        for _ in 0..3000 {
            semaphore.acquire();
            semaphore.release(1).unwrap();
        }
    };
    let children = [0; 6].map(|_| Process::spawn(pass_on, semaphore.clone()).unwrap());
    for child in children {
        child.join().unwrap();
    }
    assert_eq!(semaphore.value(), 3);
}

/// Starts a process that acquires this number of permits, and waits until it has. It holds them
/// until the connection is dropped.
fn holder(semaphore: &BoundedSemaphore, permits: usize) -> (Process, Connection<(), ()>) {
    type Arguments = (BoundedSemaphore, usize, Connection<(), ()>);
    let (ours, theirs) = duplex().unwrap();
    let hold = |(semaphore, permits, parent): Arguments| {
        let _permits: Vec<_> = (0..permits).map(|_| semaphore.acquire()).collect();
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let child = Process::spawn(hold, (semaphore.clone(), permits, theirs)).unwrap();
    ours.recv().unwrap();
    (child, ours)
}

/// Starts a process that acquires, and waits until it sleeps. When its wait ends, it increments
/// `through`, and releases the permit when `end` is set.
fn bounded_sleeper(semaphore: &BoundedSemaphore, through: &Atomic, end: &Event) -> Process {
    type Arguments = (BoundedSemaphore, Atomic, Event, Connection<(), ()>);
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let acquire = |(semaphore, through, end, parent): Arguments| {
        parent.send(()).unwrap();
        let _permit = semaphore.acquire();
        through.fetch_add(1);
        end.wait();
    };
    let arguments = (semaphore.clone(), through.clone(), end.clone(), theirs);
    let child = Process::builder().daemon(true).spawn(acquire, arguments).unwrap();
    ours.recv().unwrap();
    until(|| is_asleep(child.pid()));
    child
}

#[test]
fn acquire_and_drop_change_the_available_permits() {
    let semaphore = BoundedSemaphore::new(3).unwrap();
    assert_eq!((semaphore.permits(), semaphore.available()), (3, 3));
    let first = semaphore.acquire();
    let second = semaphore.try_acquire().unwrap();
    let third = semaphore.acquire_timeout(Duration::ZERO).unwrap();
    assert_eq!((semaphore.permits(), semaphore.available()), (3, 0));
    semaphore.try_acquire().unwrap_err();
    drop(second);
    let second = semaphore.acquire_deadline(Instant::now()).unwrap();
    drop((first, second, third));
    assert_eq!((semaphore.permits(), semaphore.available()), (3, 3));
}

#[test]
fn number_of_permits_out_of_range_is_invalid_input() {
    for n in [0, BoundedSemaphore::MAX + 1, u32::MAX] {
        assert_eq!(BoundedSemaphore::new(n).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let semaphore = BoundedSemaphore::new(BoundedSemaphore::MAX).unwrap();
    let permit = semaphore.acquire();
    assert_eq!(semaphore.available(), 65535);
    drop(permit);
    assert_eq!(semaphore.available(), 65536);
}

#[test]
fn holders_never_exceed_the_permits() {
    let _dog = watchdog();
    const PERMITS: u64 = 3;
    type Arguments = (BoundedSemaphore, Atomic, Atomic, Event);
    let semaphore = BoundedSemaphore::new(3).unwrap();
    let (inside, most) = (Atomic::new(0).unwrap(), Atomic::new(0).unwrap());
    let go = Event::new().unwrap();
    let work = |(semaphore, inside, most, go): Arguments| {
        for _ in 0..500 {
            let permit = semaphore.acquire();
            let now = inside.fetch_add(1) + 1;
            let mut seen = most.load();
            while seen < now {
                seen = most.compare_exchange(seen, now).err().unwrap_or(now);
            }
            go.wait();
            thread::yield_now();
            inside.fetch_sub(1);
            drop(permit);
        }
    };
    let arguments = (semaphore.clone(), inside.clone(), most.clone(), go.clone());
    let children = [0; 8].map(|_| Process::spawn(work, arguments.clone()).unwrap());
    // At first, each holder keeps its permit.
    until(|| inside.load() == PERMITS && children.iter().all(|child| is_asleep(child.pid())));
    assert!(stays(|| inside.load() == PERMITS && semaphore.available() == 0));
    go.set();
    for child in children {
        child.join().unwrap();
    }
    assert_eq!((most.load(), inside.load(), semaphore.available()), (PERMITS, 0, 3));
}

#[test]
fn dropping_a_permit_wakes_a_waiter() {
    let _dog = watchdog();
    let semaphore = BoundedSemaphore::new(2).unwrap();
    let (through, end) = (Atomic::new(0).unwrap(), Event::new().unwrap());
    let permits = [semaphore.acquire(), semaphore.acquire()];
    let children = [0; 4].map(|_| bounded_sleeper(&semaphore, &through, &end));
    assert!(format!("{semaphore:?}").contains("waited_for: true"), "{semaphore:?}");
    for (count, permit) in (1..).zip(permits) {
        drop(permit);
        until(|| through.load() == count);
        assert!(stays(|| through.load() == count), "one permit, one that comes through");
    }
    end.set();
    for child in children {
        child.join().unwrap();
    }
    assert_eq!((through.load(), semaphore.available()), (4, 2));
}

#[test]
fn permit_of_a_killed_holder_goes_to_a_waiter() {
    let _dog = watchdog();
    let semaphore = BoundedSemaphore::new(1).unwrap();
    let (through, end) = (Atomic::new(0).unwrap(), Event::new().unwrap());
    end.set();
    let (child, _parent) = holder(&semaphore, 1);
    let sleeper = bounded_sleeper(&semaphore, &through, &end);
    let start = Instant::now();
    child.kill().unwrap();
    until(|| through.load() == 1);
    assert!(start.elapsed() < RECOVERY);
    sleeper.join().unwrap();
    assert_eq!(semaphore.available(), 1);
}

#[test]
fn permit_of_a_killed_holder_goes_to_a_newcomer() {
    let _dog = watchdog();
    let semaphore = BoundedSemaphore::new(2).unwrap();
    let (child, _parent) = holder(&semaphore, 2);
    semaphore.try_acquire().unwrap_err();
    kill(&child);
    assert_eq!(semaphore.available(), 2);
    let first = semaphore.try_acquire().unwrap();
    assert_eq!(semaphore.available(), 1);
    let second = semaphore.acquire();
    semaphore.try_acquire().unwrap_err();
    drop((first, second));
    assert_eq!(semaphore.available(), 2);
}

#[test]
fn all_permits_of_a_killed_holder_are_free_at_once() {
    let _dog = watchdog();
    let semaphore = BoundedSemaphore::new(5).unwrap();
    let (through, end) = (Atomic::new(0).unwrap(), Event::new().unwrap());
    let (child, _parent) = holder(&semaphore, 5);
    let children = [0; 5].map(|_| bounded_sleeper(&semaphore, &through, &end));
    let start = Instant::now();
    child.kill().unwrap();
    until(|| through.load() == 5);
    assert!(start.elapsed() < RECOVERY);
    assert_eq!(semaphore.available(), 0, "they have new holders");
    end.set();
    for child in children {
        child.join().unwrap();
    }
    assert_eq!(semaphore.available(), 5);
}

#[test]
fn stopped_holder_keeps_its_permit() {
    let _dog = watchdog();
    let semaphore = BoundedSemaphore::new(1).unwrap();
    let (child, parent) = holder(&semaphore, 1);
    let stopped = Stopped::new(child.pid());
    semaphore.acquire_timeout(3 * RECHECK).unwrap_err();
    assert_eq!(semaphore.available(), 0);
    assert!(child.is_alive());
    drop(stopped);
    drop(parent);
    drop(semaphore.acquire());
    child.join().unwrap();
}

#[test]
fn killed_waiter_has_no_effect() {
    let _dog = watchdog();
    let semaphore = BoundedSemaphore::new(1).unwrap();
    let (through, end) = (Atomic::new(0).unwrap(), Event::new().unwrap());
    let permit = semaphore.acquire();
    let [first, second] = [0; 2].map(|_| bounded_sleeper(&semaphore, &through, &end));
    kill(&first);
    assert_eq!(semaphore.available(), 0);
    let start = Instant::now();
    drop(permit);
    until(|| through.load() == 1);
    assert!(start.elapsed() < RECOVERY);
    end.set();
    second.join().unwrap();
    assert_eq!(semaphore.available(), 1);
}
