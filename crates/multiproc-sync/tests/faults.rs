//! Processes are killed at every failpoint of every primitive. Run by `cargo xtask faults`, which
//! compiles the failpoints in; `cargo xtask faults --soak SECONDS --seed N` continues at random.
#![cfg(multiproc_faults)]

use std::time::{Duration, Instant};
use std::{env, thread};

use multiproc::{JoinError, Process};
use multiproc_sync::fault::POINTS;
use multiproc_sync::{
    Abandoned, Barrier, BoundedSemaphore, Condition, Event, Lock, LockTimeoutError, Mutex, RLock,
    RwLock, Semaphore,
};
use multiproc_testkit::{die_at, watchdog};
use serde::{Deserialize, Serialize};

multiproc::enable_in_tests!();

const KILLED: JoinError = JoinError::Signaled(9, false);

/// Twice the promised bound for waiting for a dead process, because the machine may be busy: the
/// tests show that no process waits indefinitely.
const BOUND: Duration = Duration::from_secs(2);

/// The time for which locks are held, so that other processes sleep on them.
const HOLD: Duration = Duration::from_micros(200);

/// One primitive of each kind.
#[derive(Clone, Serialize, Deserialize)]
struct All {
    lock: Lock,
    rlock: RLock,
    mutex: Mutex<u64>,
    rwlock: RwLock<[u64; 2]>,
    semaphore: Semaphore,
    permits: BoundedSemaphore,
    event: Event,
    condition: Condition,
    barrier: Barrier,
}

impl All {
    fn new() -> Self {
        Self {
            lock: Lock::new().unwrap(),
            rlock: RLock::new().unwrap(),
            mutex: Mutex::new(0).unwrap(),
            rwlock: RwLock::new([0; 2]).unwrap(),
            semaphore: Semaphore::new(0).unwrap(),
            permits: BoundedSemaphore::new(1).unwrap(),
            event: Event::new().unwrap(),
            condition: Condition::new().unwrap(),
            barrier: Barrier::new(2).unwrap(),
        }
    }

    /// Uses each primitive once. No operation may exceed the bound, whichever process dies
    /// meanwhile.
    fn round(&self) {
        let guard = taken(self.lock.lock_timeout(BOUND), Abandoned::into_guard);
        thread::sleep(HOLD);
        drop(guard);

        let outer = taken(self.rlock.lock_timeout(BOUND), Abandoned::into_guard);
        let inner = taken(self.rlock.lock_timeout(BOUND), Abandoned::into_guard);
        drop(outer);
        drop(inner);

        *taken(self.mutex.lock_timeout(BOUND), Abandoned::into_guard) += 1;

        let reader = taken(self.rwlock.read_timeout(BOUND), Abandoned::into_guard);
        thread::sleep(HOLD);
        drop(reader);
        let mut writer = taken(self.rwlock.write_timeout(BOUND), Abandoned::into_guard);
        thread::sleep(HOLD);
        *writer = [writer[0] + 1; 2];
        drop(writer);

        // It releases before it acquires, so a death can only leave a value that is too high.
        self.semaphore.release(1).unwrap();
        self.semaphore.acquire_timeout(BOUND).expect("what was released is there");

        let permit = self.permits.acquire_timeout(BOUND).expect("dead processes hold no permits");
        thread::sleep(HOLD);
        drop(permit);

        let _ = self.event.wait_timeout(HOLD);
        self.event.set();
        self.event.clear();

        let guard = taken(self.condition.lock_timeout(BOUND), Abandoned::into_guard);
        self.condition.notify_one();
        match self.condition.wait_timeout(guard, 5 * HOLD) {
            Ok((guard, _)) => drop(guard),
            Err(abandoned) => drop(abandoned.into_guard()),
        }

        // The other process arrives or dies. In the second case the barrier breaks before the
        // timeout.
        let start = Instant::now();
        if self.barrier.wait_timeout(2 * BOUND).is_err() {
            assert!(start.elapsed() < BOUND, "the barrier has not detected the death");
            self.barrier.reset();
        }
    }
}

/// Returns the guard, abandoned or not.
fn taken<G>(result: Result<G, LockTimeoutError<G>>, repair: impl FnOnce(Abandoned<G>) -> G) -> G {
    match result {
        Ok(guard) => guard,
        Err(LockTimeoutError::Abandoned(abandoned)) => repair(abandoned),
        Err(LockTimeoutError::Timeout) => panic!("the lock of a dead holder was not recovered"),
    }
}

/// Starts a process that runs rounds, and dies when it reaches `point` for the `visit`th time.
fn doomed(all: &All, point: &str, visit: u32) -> Process {
    let rounds = |(all, point, visit): (All, String, u32)| -> () {
        die_at(&point, visit);
        loop {
            all.round();
        }
    };
    Process::spawn(rounds, (all.clone(), point.to_owned(), visit)).unwrap()
}

/// Runs rounds beside a process that dies at `point`, and checks every primitive afterwards.
fn outlive(all: &All, point: &str, visit: u32) {
    let child = doomed(all, point, visit);
    while child.is_alive() {
        all.round();
    }
    assert_eq!(child.join().unwrap_err(), KILLED, "{point} was not reached");
    // From here on this process is alone with what the dead one has left.
    drop(taken(all.lock.lock_timeout(BOUND), Abandoned::into_guard));
    drop(all.lock.try_lock().expect("afterwards the lock is normal again"));
    drop(taken(all.rlock.lock_timeout(BOUND), Abandoned::into_guard));
    drop(all.rlock.try_lock().expect("afterwards the lock is normal again"));
    drop(taken(all.mutex.lock_timeout(BOUND), Abandoned::into_guard));
    drop(all.mutex.try_lock().expect("afterwards the mutex is normal again"));
    drop(taken(all.rwlock.read_timeout(BOUND), Abandoned::into_guard));
    drop(taken(all.rwlock.write_timeout(BOUND), Abandoned::into_guard));
    drop(all.rwlock.try_write().expect("afterwards the lock is normal again"));
    let pair = *all.rwlock.try_read().expect("afterwards the lock is normal again");
    assert_eq!(pair[0], pair[1], "{point}: a value is half of a change");
    drop(taken(all.condition.lock_timeout(BOUND), Abandoned::into_guard));
    drop(all.condition.try_lock().expect("afterwards the lock is normal again"));
    assert_eq!(all.permits.available(), 1, "{point}: no permit is lost with a dead process");
    all.event.set();
    assert!(all.event.wait_timeout(BOUND) && all.event.is_set());
    all.event.clear();
    all.barrier.reset();
    let other = Process::spawn(|barrier: Barrier| barrier.wait().is_ok(), all.barrier.clone());
    assert!(all.barrier.wait_timeout(BOUND).is_ok(), "{point}: a reset barrier works");
    assert!(other.unwrap().join().unwrap());
}

#[test]
fn faults_at_each_point() {
    let _dog = watchdog();
    for point in POINTS {
        let start = Instant::now();
        outlive(&All::new(), point, 2);
        eprintln!("{point}: {:?}", start.elapsed());
    }
}

/// Every failpoint that a round reaches is in the list.
#[test]
fn faults_list_of_points_is_complete() {
    let _dog = watchdog();
    let all = All::new();
    let child = doomed(&all, "barrier.complete", 20);
    while child.is_alive() {
        all.round();
    }
    for point in multiproc_shm::failpoint::seen() {
        assert!(POINTS.contains(&point), "{point} is not in the list");
    }
}

/// Processes die at random points, one after the other, beside this process: for one second, or as
/// long as the environment requests.
#[test]
fn faults_soak() {
    let seconds = env::var("MULTIPROC_SOAK_SECONDS").map_or(1, |text| text.parse().unwrap());
    let seed =
        env::var("MULTIPROC_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    eprintln!("seed {seed}, for {seconds} s");
    let mut random = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut deaths = 0;
    while deaths == 0 || Instant::now() < end {
        // One watchdog for each death, so that a long soak does not count as a hang.
        let _dog = watchdog();
        let point = POINTS[random.usize(..POINTS.len())];
        outlive(&All::new(), point, random.u32(1..30));
        deaths += 1;
    }
    eprintln!("{deaths} deaths");
}
