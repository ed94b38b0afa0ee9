//! Read-write locks between threads and processes.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Connection, Descriptor, duplex};
use multiproc_sync::{LockTimeoutError, RwLock, Shared, TryLockError};
use multiproc_testkit::{until, watchdog};

multiproc::enable_in_tests!();

/// The promised bound: no process waits longer for a dead one.
const RECOVERY: Duration = Duration::from_secs(1);

const SHORT: Duration = Duration::from_millis(20);

/// What a process does with the lock before it waits to be told to end.
#[derive(Clone, Copy)]
enum Hold {
    Read,
    Write,
}

/// Starts a process that has the lock until the connection is dropped, and waits until it has it.
fn holder(lock: &RwLock<u64>, hold: Hold) -> (Process, Connection<(), ()>) {
    let (ours, theirs) = duplex().unwrap();
    let read = |(lock, parent): (RwLock<u64>, Connection<(), ()>)| {
        let _guard = lock.read().unwrap();
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let write = |(lock, parent): (RwLock<u64>, Connection<(), ()>)| {
        let mut guard = lock.write().unwrap();
        *guard = 666;
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let child = match hold {
        Hold::Read => Process::spawn(read, (lock.clone(), theirs)),
        Hold::Write => Process::spawn(write, (lock.clone(), theirs)),
    };
    ours.recv().unwrap();
    (child.unwrap(), ours)
}

fn kill(child: &Process) {
    child.kill().unwrap();
    child.wait();
}

#[test]
fn readers_share_and_writers_exclude() {
    let _dog = watchdog();
    let lock = RwLock::new(7u64).unwrap();
    let (reader, connection) = holder(&lock, Hold::Read);
    assert_eq!(*lock.read().unwrap(), 7, "beside a reader in another process");
    assert_eq!(*lock.try_read().unwrap(), 7);
    assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock)));
    assert!(matches!(lock.write_timeout(SHORT), Err(LockTimeoutError::Timeout)));
    assert_eq!(*lock.try_read().unwrap(), 7, "a writer that gave up lets readers in");
    drop(connection);
    reader.join().unwrap();

    let (writer, connection) = holder(&lock, Hold::Write);
    assert!(matches!(lock.try_read(), Err(TryLockError::WouldBlock)));
    assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock)));
    assert!(matches!(lock.read_timeout(SHORT), Err(LockTimeoutError::Timeout)));
    let deadline = Instant::now() + SHORT;
    assert!(matches!(lock.write_deadline(deadline), Err(LockTimeoutError::Timeout)));
    assert!(matches!(lock.read_deadline(deadline), Err(LockTimeoutError::Timeout)));
    drop(connection);
    writer.join().unwrap();
    assert_eq!(*lock.read().unwrap(), 666);
}

#[test]
fn concurrent_additions_are_not_lost() {
    const EACH: u64 = 500;
    let _dog = watchdog();
    let lock = RwLock::new([0u64; 2]).unwrap();
    let work = |lock: RwLock<[u64; 2]>| {
        for n in 0..EACH {
            {
                let mut pair = lock.write().unwrap();
                pair[0] += 1;
                pair[1] += 1;
            }
            for _ in 0..n % 3 {
                let pair = lock.read().unwrap();
                assert_eq!(pair[0], pair[1], "a reader has seen half of a change");
            }
        }
    };
    let children: Vec<_> = (0..3).map(|_| Process::spawn(work, lock.clone()).unwrap()).collect();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let lock = lock.clone();
            thread::spawn(move || work(lock))
        })
        .collect();
    children.into_iter().for_each(|child| child.join().unwrap());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(*lock.read().unwrap(), [5 * EACH; 2]);
}

#[test]
fn killed_reader_releases_its_locks() {
    let _dog = watchdog();
    let lock = RwLock::new(7u64).unwrap();
    let (early, _connection) = holder(&lock, Hold::Read);
    let (late, _connection) = holder(&lock, Hold::Read);
    // Dead before the writer comes: without a wait.
    kill(&early);
    kill(&late);
    *lock.try_write().expect("dead readers have no lock") = 8;
    // It dies while the writer waits.
    let (reader, _connection) = holder(&lock, Hold::Read);
    let writer = thread::spawn({
        let lock = lock.clone();
        move || {
            *lock.write().expect("a dead reader has changed nothing") = 9;
            Instant::now()
        }
    });
    until(|| lock.try_read().is_err());
    let died = Instant::now();
    kill(&reader);
    assert!(writer.join().unwrap() - died < RECOVERY);
    assert_eq!(*lock.read().unwrap(), 9);
}

#[test]
fn killed_writer_yields_abandoned_until_a_writer_repairs() {
    let _dog = watchdog();
    let lock = RwLock::new(7u64).unwrap();
    let (writer, _connection) = holder(&lock, Hold::Write);
    let waiter = thread::spawn({
        let lock = lock.clone();
        move || {
            let abandoned = lock.read().expect_err("the writer was killed");
            assert_eq!(**abandoned.guard(), 7, "the value from before");
            // A reader accepts the value for itself.
            assert_eq!(*abandoned.into_guard(), 7);
            Instant::now()
        }
    });
    let died = Instant::now();
    kill(&writer);
    assert!(waiter.join().unwrap() - died < RECOVERY);
    assert!(matches!(lock.try_read(), Err(TryLockError::Abandoned(_))));
    drop(lock.write().expect_err("a reader repairs nothing"));
    assert!(matches!(lock.read_timeout(SHORT), Err(LockTimeoutError::Abandoned(_))));
    *lock.write().expect_err("nor does a writer that drops the error").into_guard() = 8;
    assert_eq!(*lock.read().unwrap(), 8);
    assert_eq!(*lock.try_write().unwrap(), 8);
}

/// A writer that is killed while it waits for a reader has changed nothing.
#[test]
fn killed_waiting_writer_has_no_effect() {
    let _dog = watchdog();
    let lock = RwLock::new(7u64).unwrap();
    let guard = lock.read().unwrap();
    let write = |lock: RwLock<u64>| drop(lock.write());
    let writer = Process::spawn(write, lock.clone()).unwrap();
    until(|| lock.try_read().is_err());
    kill(&writer);
    assert_eq!(*lock.read_timeout(RECOVERY).expect("no writer has had the lock"), 7);
    drop(guard);
    drop(lock.try_write().unwrap());
}

#[test]
fn waiting_writer_keeps_new_readers_out() {
    let _dog = watchdog();
    let lock = RwLock::new(7u64).unwrap();
    let guard = lock.read().unwrap();
    let writer = thread::spawn({
        let lock = lock.clone();
        move || *lock.write().unwrap() += 1
    });
    until(|| lock.try_read().is_err());
    let reader = thread::spawn({
        let lock = lock.clone();
        move || *lock.read().unwrap()
    });
    drop(guard);
    writer.join().unwrap();
    assert_eq!(reader.join().unwrap(), 8, "the reader came after the writer");
}

/// Readers overlap all the time, so that there is never a moment without any.
#[test]
fn stream_of_readers_does_not_starve_a_writer() {
    let _dog = watchdog();
    let lock = RwLock::new(0u64).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let guard = lock.read().unwrap();
                    thread::sleep(Duration::from_millis(2));
                    drop(guard);
                }
            });
        }
        for _ in 0..20 {
            *lock.write_timeout(10 * RECOVERY).expect("it is its turn") += 1;
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(*lock.read().unwrap(), 20);
}

#[test]
fn stream_of_writers_does_not_starve_a_reader() {
    let _dog = watchdog();
    let lock = RwLock::new(0u64).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    *lock.write().unwrap() += 1;
                }
            });
        }
        for _ in 0..20 {
            drop(lock.read_timeout(10 * RECOVERY).expect("it is its turn"));
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn panicking_writer_leaves_it_abandoned_and_a_reader_does_not() {
    let lock = RwLock::new([1u32, 1]).unwrap();
    let panics = |act: &dyn Fn()| {
        catch_unwind(AssertUnwindSafe(act)).expect_err("it panics");
    };
    panics(&|| {
        let _guard = lock.read().unwrap();
        panic!("under a reader's guard");
    });
    assert_eq!(*lock.try_write().expect("a reader has changed nothing"), [1, 1]);
    panics(&|| {
        let mut guard = lock.write().unwrap();
        guard[0] = 2;
        panic!("between two changes");
    });
    assert_eq!(**lock.read().expect_err("the writer panicked").guard(), [1, 1]);
    *lock.write().expect_err("the writer panicked").into_guard() = [3, 3];
    assert_eq!(*lock.read().unwrap(), [3, 3]);
}

/// Without a value of its own, it protects other shared data.
#[test]
fn lock_without_value_protects_a_table() {
    let _dog = watchdog();
    let (lock, table) = (RwLock::new(()).unwrap(), Shared::new(&[0u64; 64]).unwrap());
    let write = |(lock, table): (RwLock<()>, Shared<u64>)| {
        for n in 1..200 {
            let _guard = lock.write().unwrap();
            table.write(0, &[n; 64]);
        }
    };
    let writer = Process::spawn(write, (lock.clone(), table.clone())).unwrap();
    while writer.is_alive() {
        let guard = lock.read().unwrap();
        let values = table.to_vec();
        drop(guard);
        assert!(values.iter().all(|&value| value == values[0]), "{values:?}");
    }
    writer.join().unwrap();
    assert_eq!(table.get(63), 199);
}

/// The guards of a process count together, on any of its handles and threads.
#[test]
fn readers_of_one_process_are_counted() {
    let _dog = watchdog();
    let lock = RwLock::new(7u64).unwrap();
    let guards: Vec<_> = (0..100).map(|_| lock.read().unwrap()).collect();
    assert!(format!("{lock:?}").contains("readers: 100"), "{lock:?}");
    for guard in guards {
        assert!(lock.try_write().is_err());
        drop(guard);
    }
    drop(lock.try_write().unwrap());
}

/// A change of a value of several pages is written back.
#[test]
fn large_value_is_written_back() {
    let lock = RwLock::new([1u64; 2048]).unwrap();
    lock.write().unwrap()[2047] = 2;
    let sum: u64 = lock.read().unwrap().iter().sum();
    assert_eq!(sum, 2049);
}

#[test]
fn lock_is_refused_as_one_of_another_size_or_kind() {
    let (left, right) = duplex::<_, ()>().unwrap();
    left.send(RwLock::new(0u64).unwrap()).unwrap();
    assert!(right.retype::<(), RwLock<u32>>().recv().is_err());
    let (left, right) = duplex::<_, ()>().unwrap();
    left.send(RwLock::new(0u64).unwrap()).unwrap();
    assert!(right.retype::<(), multiproc_sync::Mutex<u64>>().recv().is_err());
    let (left, right) = duplex::<_, ()>().unwrap();
    left.send(Descriptor(File::open("/dev/null").unwrap().into())).unwrap();
    assert!(right.retype::<(), RwLock<u64>>().recv().is_err());
}
