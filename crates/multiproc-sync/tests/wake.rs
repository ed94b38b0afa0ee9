//! Sleeping waiters are woken. Rechecks make up for wake-ups that are lost with dead processes, and
//! would hide it if no waiter were ever woken. So these tests measure time.

use std::io;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Connection, duplex};
use multiproc_sync::{
    Barrier, BoundedSemaphore, Condition, Event, Lock, Mutex, RECHECK, RLock, Semaphore,
};
use multiproc_testkit::{is_asleep, until, watchdog};
use serde::Serialize;
use serde::de::DeserializeOwned;

multiproc::enable_in_tests!();

/// A process sleeps in `pass`, which returns when the closure that `close` returns is called. A
/// waiter that is not woken continues at its recheck, after up to `RECHECK`. A wake-up usually
/// takes much less, also on a busy machine.
fn wakes<T: Serialize + DeserializeOwned + Clone>(
    new: impl Fn() -> io::Result<T>,
    close: impl Fn(&T) -> Box<dyn FnOnce() + '_>,
    pass: impl Fn(&T) + Copy + 'static,
) {
    let _dog = watchdog();
    let time = |_| {
        let one = new().unwrap();
        let open = close(&one);
        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let wait = move |(one, parent): (T, Connection<(), ()>)| {
            parent.send(()).unwrap();
            pass(&one);
            parent.send(()).unwrap();
        };
        let child = Process::builder().daemon(true).spawn(wait, (one.clone(), theirs)).unwrap();
        ours.recv().unwrap();
        until(|| is_asleep(child.pid()));
        let start = Instant::now();
        open();
        ours.recv().unwrap();
        let time = start.elapsed();
        child.join().unwrap();
        time
    };
    let mut times: [Duration; 11] = std::array::from_fn(time);
    times.sort();
    assert!(times[5] < RECHECK / 2, "{times:?}");
}

#[test]
fn unlocking_a_lock_wakes_a_waiter() {
    wakes(
        Lock::new,
        |lock| {
            let guard = lock.lock().unwrap();
            Box::new(|| drop(guard))
        },
        |lock| drop(lock.lock().unwrap()),
    );
}

#[test]
fn dropping_the_last_guard_of_an_rlock_wakes_a_waiter() {
    wakes(
        RLock::new,
        |lock| {
            let guards = [lock.lock().unwrap(), lock.lock().unwrap()];
            Box::new(|| drop(guards))
        },
        |lock| drop(lock.lock().unwrap()),
    );
}

#[test]
fn unlocking_a_mutex_wakes_a_waiter() {
    wakes(
        || Mutex::new(0u64),
        |mutex| {
            let guard = mutex.lock().unwrap();
            Box::new(|| drop(guard))
        },
        |mutex| drop(mutex.lock().unwrap()),
    );
}

#[test]
fn releasing_a_semaphore_wakes_a_waiter() {
    wakes(
        || Semaphore::new(0),
        |semaphore| Box::new(|| semaphore.release(1).unwrap()),
        Semaphore::acquire,
    );
}

#[test]
fn dropping_a_permit_wakes_a_waiter() {
    wakes(
        || BoundedSemaphore::new(1),
        |semaphore| {
            let permit = semaphore.acquire();
            Box::new(|| drop(permit))
        },
        |semaphore| drop(semaphore.acquire()),
    );
}

#[test]
fn setting_an_event_wakes_a_waiter() {
    wakes(Event::new, |event| Box::new(|| event.set()), Event::wait);
}

#[test]
fn notifying_a_condition_wakes_a_waiter() {
    wakes(
        Condition::new,
        |condition| Box::new(|| condition.notify_one()),
        |condition| drop(condition.wait(condition.lock().unwrap()).unwrap()),
    );
}

#[test]
fn completing_a_barrier_wakes_a_waiter() {
    wakes(
        || Barrier::new(2),
        |barrier| Box::new(|| assert!(barrier.wait().unwrap().is_leader())),
        |barrier| assert!(!barrier.wait().unwrap().is_leader()),
    );
}
