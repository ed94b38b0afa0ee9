//! Conditions between processes, and the death of holders and waiters.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Connection, duplex};
use multiproc_sync::{
    Abandoned, Atomic, Condition, ConditionGuard, Event, Lock, Mutex, RECHECK, Shared,
};
use multiproc_testkit::{Stopped, alone, is_asleep, stays, until, watchdog};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

multiproc::enable_in_tests!();

/// The promised bound: no process waits longer for a dead one.
const RECOVERY: Duration = Duration::from_secs(1);

fn kill(child: &Process) {
    child.kill().unwrap();
    child.wait();
}

fn join(children: impl IntoIterator<Item = Process>) {
    for child in children {
        child.join().unwrap();
    }
}

/// Starts a process that waits once, and waits until it sleeps. When its wait ends, it increments
/// `through`. It is a daemon, so it ends with a test that fails.
fn sleeper(condition: &Condition, through: &Atomic) -> Process {
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let wait = |(condition, through, parent): (Condition, Atomic, Connection<(), ()>)| {
        let guard = condition.lock().unwrap();
        parent.send(()).unwrap();
        let guard = condition.wait(guard).unwrap();
        through.fetch_add(1);
        drop(guard);
    };
    let arguments = (condition.clone(), through.clone(), theirs);
    let child = Process::builder().daemon(true).spawn(wait, arguments).unwrap();
    ours.recv().unwrap();
    // When this process acquires the lock, the other one has released it: it waits.
    drop(condition.lock().unwrap());
    until(|| is_asleep(child.pid()));
    child
}

fn new() -> (Condition, Atomic) {
    (Condition::new().unwrap(), Atomic::new(0).unwrap())
}

#[test]
fn lock_of_a_condition_excludes() {
    let _dog = watchdog();
    let condition = Condition::new().unwrap();
    let number = Shared::new(&[0u64]).unwrap();
    let add = |(condition, number): (Condition, Shared<u64>)| {
        for _ in 0..1000 {
            let _guard = condition.lock().unwrap();
            number.set(0, number.get(0) + 1);
        }
    };
    let spawn = |_| Process::spawn(add, (condition.clone(), number.clone())).unwrap();
    join([0; 4].map(spawn));
    assert_eq!(number.get(0), 4000);

    let _guard = condition.try_lock().unwrap();
    assert!(condition.try_lock().unwrap_err().is_would_block());
    let start = Instant::now();
    assert!(condition.lock_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert!(condition.lock_deadline(start).unwrap_err().is_timeout());
}

#[test]
fn notify_one_wakes_one_of_two_waiters() {
    let _dog = watchdog();
    let (condition, through) = new();
    let children = [0; 2].map(|_| sleeper(&condition, &through));
    condition.notify_one();
    until(|| through.load() == 1);
    assert!(stays(|| through.load() == 1));
    condition.notify_one();
    join(children);
}

#[test]
fn notify_two_wakes_two_of_five_waiters() {
    let _dog = watchdog();
    let (condition, through) = new();
    let children = [0; 5].map(|_| sleeper(&condition, &through));
    assert!(format!("{condition:?}").contains("waiting: 5"), "{condition:?}");
    assert_eq!(condition.notify(0), 0);
    assert_eq!(condition.notify(2), 2);
    until(|| through.load() == 2);
    assert!(stays(|| through.load() == 2));
    assert!(format!("{condition:?}").contains("waiting: 3"), "{condition:?}");
    until(|| children.iter().filter(|child| is_asleep(child.pid())).count() == 3);
    condition.notify_one();
    until(|| through.load() == 3);
    assert_eq!(condition.notify(7), 2, "two waiters are left");
    join(children);
    assert_eq!(through.load(), 5);
}

#[test]
fn notify_all_wakes_all_waiters() {
    let _dog = watchdog();
    let (condition, through) = new();
    let children = [0; 5].map(|_| sleeper(&condition, &through));
    let guard = condition.lock().unwrap();
    condition.notify_all();
    assert!(stays(|| through.load() == 0), "the lock is held");
    drop(guard);
    join(children);
    assert_eq!(through.load(), 5);
}

#[test]
fn notification_without_waiters_is_not_remembered() {
    let condition = Condition::new().unwrap();
    condition.notify_one();
    condition.notify_all();
    assert_eq!(condition.notify(5), 0);
    let guard = condition.lock().unwrap();
    let (guard, result) = condition.wait_timeout(guard, 2 * RECHECK).unwrap();
    assert!(result.timed_out());
    drop(guard);
}

#[test]
fn wait_that_times_out_holds_the_lock_again() {
    let condition = Condition::new().unwrap();
    for milliseconds in [0, 1, 30] {
        let timeout = Duration::from_millis(milliseconds);
        let start = Instant::now();
        let guard = condition.lock().unwrap();
        let (guard, result) = condition.wait_timeout(guard, timeout).unwrap();
        assert!(result.timed_out() && start.elapsed() >= timeout);
        assert!(condition.try_lock().unwrap_err().is_would_block());
        let (guard, result) = condition.wait_deadline(guard, start).unwrap();
        assert!(result.timed_out());
        assert!(condition.try_lock().unwrap_err().is_would_block());
        drop(guard);
        drop(condition.try_lock().unwrap());
    }
    assert!(format!("{condition:?}").contains("waiting: 0"), "{condition:?}");
}

#[test]
fn notification_before_the_deadline_is_no_timeout() {
    let _dog = watchdog();
    let (condition, _) = new();
    let guard = condition.lock().unwrap();
    let notify = |condition: Condition| {
        drop(condition.lock());
        condition.notify_one();
    };
    let child = Process::spawn(notify, condition.clone()).unwrap();
    let (_guard, result) = condition.wait_timeout(guard, Duration::from_secs(3600)).unwrap();
    assert!(!result.timed_out());
    child.join().unwrap();
}

/// A process that sleeps on the lock interrupts the one that releases it and is about to wait: they
/// share one CPU.
#[test]
fn notification_between_unlocking_and_sleeping_is_not_missed() {
    fn stay_on(cpu: usize) {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        sched_setaffinity(None, &cpus).unwrap();
    }
    alone(|()| {
        let condition = Condition::new().unwrap();
        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let notify = |(condition, cpu, parent): (Condition, usize, Connection<(), ()>)| {
            stay_on(cpu);
            while parent.recv().is_ok() {
                parent.send(()).unwrap();
                drop(condition.lock().unwrap());
                condition.notify_one();
            }
        };
        let cpu = sched_getcpu();
        let child = Process::spawn(notify, (condition.clone(), cpu, theirs)).unwrap();
        stay_on(cpu);
        for _ in 0..50 {
            let guard = condition.lock().unwrap();
            ours.send(()).unwrap();
            ours.recv().unwrap();
            until(|| is_asleep(child.pid()));
            // It is another process's turn.
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(5) {}
            drop(condition.wait(guard).unwrap());
        }
        drop(ours);
        child.join().unwrap();
    });
}

#[test]
fn wait_releases_the_lock() {
    let _dog = watchdog();
    let (condition, through) = new();
    let child = sleeper(&condition, &through);
    let take = |condition: Condition| drop(condition.try_lock().unwrap());
    Process::spawn(take, condition.clone()).unwrap().join().unwrap();
    assert!(is_asleep(child.pid()) && through.load() == 0);
    condition.notify_one();
    join([child]);
}

#[test]
fn wait_while_returns_when_the_condition_is_false() {
    let _dog = watchdog();
    type Arguments = (Condition, Shared<u32>);
    let (condition, list): Arguments = (Condition::new().unwrap(), Shared::new(&[0; 2]).unwrap());
    // Two processes take turns: each waits until it is its turn.
    let count = |(condition, list): Arguments| {
        let mut guard = condition.lock().unwrap();
        let me = list.get(1);
        list.set(1, me + 1);
        for _ in 0..500 {
            guard = condition.wait_while(guard, || list.get(0) % 2 != me).unwrap();
            list.set(0, list.get(0) + 1);
            condition.notify_all();
        }
    };
    let spawn = |_| Process::spawn(count, (condition.clone(), list.clone())).unwrap();
    join([0; 2].map(spawn));
    assert_eq!(list.to_vec(), [1000, 2]);
}

#[test]
fn wait_while_with_a_false_condition_does_not_wait() {
    let condition = Condition::new().unwrap();
    let guard = condition.lock().unwrap();
    let guard = condition.wait_while(guard, || false).unwrap();
    let (guard, result) = condition.wait_timeout_while(guard, Duration::ZERO, || false).unwrap();
    assert!(!result.timed_out());
    let start = Instant::now();
    let timeout = Duration::from_millis(30);
    let (guard, result) = condition.wait_timeout_while(guard, timeout, || true).unwrap();
    assert!(result.timed_out() && start.elapsed() >= timeout);
    assert!(condition.try_lock().unwrap_err().is_would_block());
    drop(guard);
}

#[test]
fn condition_false_before_the_deadline_is_no_timeout() {
    let _dog = watchdog();
    let (condition, state) = new();
    let guard = condition.lock().unwrap();
    let change = |(condition, state): (Condition, Atomic)| {
        for _ in 0..3 {
            let guard = condition.lock().unwrap();
            state.fetch_add(1);
            condition.notify_one();
            drop(guard);
        }
    };
    let child = Process::spawn(change, (condition.clone(), state.clone())).unwrap();
    let hour = Duration::from_secs(3600);
    let (_guard, result) = condition.wait_timeout_while(guard, hour, || state.load() < 3).unwrap();
    assert!(!result.timed_out());
    child.join().unwrap();
}

#[test]
fn killed_waiters_do_not_block_notify() {
    let _dog = watchdog();
    let (condition, through) = new();
    let [first, second, third] = [0; 3].map(|_| sleeper(&condition, &through));
    kill(&first);
    kill(&second);
    assert!(stays(|| through.load() == 0), "no living waiter was notified");
    let start = Instant::now();
    condition.notify_all();
    join([third]);
    condition.notify_one();
    condition.notify(5);
    condition.notify_all();
    assert!(start.elapsed() < RECOVERY);
    drop(condition.try_lock().unwrap());
}

/// The first waiter is notified first. It is stopped, so it cannot react.
#[test]
fn notification_of_a_killed_waiter_reaches_another() {
    let _dog = watchdog();
    let (condition, through) = new();
    let [first, second] = [0; 2].map(|_| sleeper(&condition, &through));
    let _stopped = Stopped::new(first.pid());
    assert_eq!(condition.notify(1), 1);
    assert!(stays(|| through.load() == 0), "it went to the first, which is alive");
    let start = Instant::now();
    first.kill().unwrap();
    join([second]);
    assert!(start.elapsed() < RECOVERY);
    assert_eq!(through.load(), 1);
}

#[test]
fn all_notifications_of_killed_waiters_reach_others() {
    let _dog = watchdog();
    let (condition, through) = new();
    let dead = [0; 3].map(|_| sleeper(&condition, &through));
    let alive = [0; 4].map(|_| sleeper(&condition, &through));
    let _stopped: Vec<_> = dead.iter().map(|child| Stopped::new(child.pid())).collect();
    assert_eq!(condition.notify(3), 3);
    let start = Instant::now();
    dead.iter().for_each(kill);
    until(|| through.load() == 3);
    assert!(start.elapsed() < RECOVERY);
    assert!(stays(|| through.load() == 3), "three notifications, three that come through");
    assert_eq!(condition.notify(5), 1);
    join(alive);
}

#[test]
fn killed_holder_yields_abandoned() {
    let _dog = watchdog();
    let condition = Condition::new().unwrap();
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let wait = |condition: Condition| {
        let guard = condition.lock().unwrap();
        let abandoned = condition.wait(guard).unwrap_err();
        drop(abandoned.into_guard());
        condition.lock().is_ok()
    };
    let waiter = Process::spawn(wait, condition.clone()).unwrap();
    until(|| format!("{condition:?}").contains("waiting: 1"));
    let hold = |(condition, parent): (Condition, Connection<(), ()>)| {
        let _guard = condition.lock().unwrap();
        condition.notify_one();
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let holder = Process::spawn(hold, (condition.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    // It was notified, and sleeps until it acquires the lock.
    until(|| is_asleep(waiter.pid()));
    let start = Instant::now();
    holder.kill().unwrap();
    assert!(waiter.join().unwrap());
    assert!(start.elapsed() < RECOVERY);
}

#[test]
fn every_wait_method_yields_abandoned() {
    let _dog = watchdog();
    type Locked<'a> = Result<ConditionGuard<'a>, Abandoned<ConditionGuard<'a>>>;
    type Wait = for<'a> fn(&'a Condition, ConditionGuard<'a>) -> Locked<'a>;
    const HOUR: Duration = Duration::from_secs(3600);
    let ways: [Wait; 5] = [
        |condition, guard| condition.wait(guard),
        |condition, guard| Ok(condition.wait_timeout(guard, HOUR)?.0),
        |condition, guard| Ok(condition.wait_deadline(guard, Instant::now() + HOUR)?.0),
        |condition, guard| condition.wait_while(guard, || true),
        |condition, guard| Ok(condition.wait_timeout_while(guard, HOUR, || true)?.0),
    ];
    let condition = Condition::new().unwrap();
    for wait in ways {
        let guard = condition.lock().unwrap();
        let die = |condition: Condition| {
            let guard = condition.lock().unwrap();
            condition.notify_one();
            std::mem::forget(guard);
        };
        let child = Process::spawn(die, condition.clone()).unwrap();
        drop(wait(&condition, guard).unwrap_err());
        // No holder has called `into_guard`.
        assert!(condition.try_lock().unwrap_err().is_abandoned());
        assert!(condition.lock_timeout(RECOVERY).unwrap_err().is_abandoned());
        assert!(condition.lock_deadline(Instant::now()).unwrap_err().is_abandoned());
        drop(condition.lock().unwrap_err().into_guard());
        child.join().unwrap();
    }
}

#[test]
fn wait_with_the_guard_of_another_condition_panics() {
    let _dog = watchdog();
    let [one, other] = [0; 2].map(|_| Condition::new().unwrap());
    let guard = other.lock().unwrap();
    let wait = AssertUnwindSafe(|| drop(one.wait(guard)));
    catch_unwind(wait).unwrap_err();
    // The guard was dropped by the panic, which counts as the death of its holder.
    let abandoned = other.lock().expect_err("a panic under the lock");
    drop(abandoned.into_guard());
    for condition in [&one, &other] {
        let guard = condition.try_lock().expect("it is free, and no holder has died");
        let (guard, result) = condition.wait_timeout(guard, Duration::ZERO).unwrap();
        assert!(result.timed_out());
        drop(guard);
        assert!(format!("{condition:?}").contains("waiting: 0"), "{condition:?}");
    }
    // A clone is the same condition.
    let same = one.clone();
    drop(one.wait_timeout(same.lock().unwrap(), Duration::ZERO).unwrap());
}

/// As many waiters as there are places are killed. No other member is there to free their places.
#[test]
fn places_of_killed_waiters_are_used_again() {
    let _dog = watchdog();
    let condition = Condition::new().unwrap();
    let wait = |condition: Condition| {
        thread::scope(|scope| {
            for _ in 0..500 {
                scope.spawn(|| drop(condition.wait(condition.lock().unwrap())));
            }
        });
    };
    let child = Process::spawn(wait, condition.clone()).unwrap();
    until(|| format!("{condition:?}").contains("waiting: 479"));
    kill(&child);
    // A waiter without a place may have held the lock.
    let guard = condition.lock().unwrap_or_else(Abandoned::into_guard);
    let (guard, result) = condition.wait_timeout(guard, 3 * RECHECK).unwrap();
    assert!(result.timed_out(), "there was no notification");
    drop(guard);
}

/// Waiters that find no place sleep as the others do, without calling the kernel in a loop, and all
/// of them are woken.
#[test]
fn waiters_without_a_place_sleep_and_are_woken() {
    const WAITERS: usize = 600;
    let _dog = watchdog();
    let condition = Condition::new().unwrap();
    let is_over = Event::new().unwrap();
    let (entered, slept) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..WAITERS {
            scope.spawn(|| {
                let mut guard = condition.lock().unwrap();
                entered.fetch_add(1, Ordering::Relaxed);
                while !is_over.is_set() {
                    guard = condition.wait(guard).unwrap();
                    slept.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        until(|| entered.load(Ordering::Relaxed) == WAITERS);
        // All waiters have released the lock, so it is free.
        for _ in 0..100 {
            drop(condition.lock_timeout(Duration::from_secs(60)).unwrap());
        }
        let before = slept.load(Ordering::Relaxed);
        assert_eq!(before, 0, "no waiter was notified, so none should wake up");
        let guard = condition.lock().unwrap();
        is_over.set();
        drop(guard);
        condition.notify_all();
    });
    assert!(slept.into_inner() >= WAITERS);
}

/// A bounded buffer of numbers, by hand: one lock, and a condition for each side.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Buffer {
    /// The number of items, and their sum.
    items: Mutex<[u64; 2]>,
    not_empty: Condition,
    not_full: Condition,
}

impl Buffer {
    fn new() -> Self {
        let [not_empty, not_full] = [0; 2].map(|_| Condition::new().unwrap());
        Self { items: Mutex::new([0; 2]).unwrap(), not_empty, not_full }
    }

    fn put(&self, item: u64) {
        let guard = self.items.lock().unwrap_or_else(Abandoned::into_guard);
        let wait = self.not_full.wait_for(guard, |[count, _]| *count < 2);
        let mut items = wait.unwrap_or_else(Abandoned::into_guard);
        *items = [items[0] + 1, items[1] + item];
        drop(items);
        self.not_empty.notify_one();
    }

    /// Returns the number and the sum of the items.
    fn take_all(&self) -> [u64; 2] {
        let guard = self.items.lock().unwrap_or_else(Abandoned::into_guard);
        let wait = self.not_empty.wait_for(guard, |[count, _]| *count > 0);
        let mut items = wait.unwrap_or_else(Abandoned::into_guard);
        let taken = std::mem::take(&mut *items);
        drop(items);
        self.not_full.notify_all();
        taken
    }
}

#[test]
fn two_conditions_share_one_mutex() {
    let _dog = watchdog();
    let buffer = Buffer::new();
    let produce = |buffer: Buffer| (1..=500).for_each(|item| buffer.put(item));
    let producers = [0; 2].map(|_| Process::spawn(produce, buffer.clone()).unwrap());
    let mut total = [0; 2];
    while total[0] < 1000 {
        let [count, sum] = buffer.take_all();
        assert!((1..=2).contains(&count));
        total = [total[0] + count, total[1] + sum];
    }
    join(producers);
    assert_eq!(total, [1000, 2 * 500 * 501 / 2]);
}

#[test]
fn waiter_of_a_mutex_gets_abandoned_from_a_killed_holder() {
    let _dog = watchdog();
    let (changed, value) = (Condition::new().unwrap(), Mutex::new(0u32).unwrap());
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let hold = |(value, parent): (Mutex<u32>, Connection<(), ()>)| {
        parent.recv().unwrap();
        let mut guard = value.lock().unwrap();
        *guard = 1;
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let holder = Process::spawn(hold, (value.clone(), theirs)).unwrap();
    let guard = value.lock().unwrap();
    ours.send(()).unwrap();
    let notifier = {
        let changed = changed.clone();
        thread::spawn(move || {
            ours.recv().unwrap();
            kill(&holder);
            changed.notify_one();
        })
    };
    let abandoned = changed.wait(guard).unwrap_err();
    assert_eq!(**abandoned.guard(), 0, "nothing was written back");
    drop(abandoned);
    notifier.join().unwrap();
}

#[test]
fn wait_with_the_guard_of_a_lock_releases_it_and_acquires_it_again() {
    let _dog = watchdog();
    let (condition, lock) = (Condition::new().unwrap(), Lock::new().unwrap());
    let flag = Atomic::new(0).unwrap();
    let set = |(condition, lock, flag): (Condition, Lock, Atomic)| {
        let _guard = lock.lock().unwrap();
        flag.store(1);
        condition.notify_one();
    };
    let guard = lock.lock().unwrap();
    let arguments = (condition.clone(), lock.clone(), flag.clone());
    let setter = Process::spawn(set, arguments).unwrap();
    let guard = condition.wait_while(guard, || flag.load() == 0).unwrap();
    assert!(lock.try_lock().unwrap_err().is_would_block());
    let (guard, result) = condition.wait_timeout(guard, Duration::from_millis(1)).unwrap();
    assert!(result.timed_out() && lock.try_lock().unwrap_err().is_would_block());
    drop(guard);
    setter.join().unwrap();

    let mutex = Mutex::new(false).unwrap();
    let wait = Duration::from_millis(1);
    let wait = condition.wait_for_timeout(mutex.lock().unwrap(), wait, |&is_set| is_set);
    let (guard, result) = wait.unwrap();
    assert!(result.timed_out() && !*guard);
}
