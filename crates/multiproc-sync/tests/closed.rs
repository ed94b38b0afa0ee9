//! Other code in the process closes the library's descriptors: an error, and never two owners.
//!
//! Contains unsafe code to close descriptors of the library.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use multiproc::Process;
use multiproc::pipe::{Connection, duplex};
use multiproc_sync::{BoundedSemaphore, Condition, Lock, Mutex, RLock, RwLock};
use multiproc_testkit::{alone, watchdog};

multiproc::enable_in_tests!();

/// Returns the numbers of the descriptors of all regions that this process has open.
fn region_descriptors() -> Vec<i32> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let is_region = |path: &std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|file| file.to_string_lossy().contains("memfd:multiproc:"))
    };
    let number = |path: std::path::PathBuf| path.file_name()?.to_str()?.parse().ok();
    entries.filter(is_region).filter_map(number).collect()
}

/// Does what a C library does that closes all descriptors, and then opens files of its own.
fn close_regions(other: Option<&File>) {
    for number in region_descriptors() {
        match other {
            // SAFETY: the library does not rely on its descriptors for memory safety.
            None => unsafe { libc::close(number) },
            // SAFETY: as above; `other` is open.
            Some(other) => unsafe { libc::dup2(other.as_raw_fd(), number) },
        };
    }
}

type All = (Lock, RLock, Mutex<u64>, BoundedSemaphore, RwLock<u64>, RwLock<u64>);

fn all() -> All {
    (
        Lock::new().unwrap(),
        RLock::new().unwrap(),
        Mutex::new(0).unwrap(),
        BoundedSemaphore::new(1).unwrap(),
        RwLock::new(0).unwrap(),
        RwLock::new(0).unwrap(),
    )
}

/// Holds everything until the connection is dropped, or the process is killed.
fn hold((all, connection): (All, Connection<(), ()>)) {
    let (lock, rlock, mutex, permits, read, written) = &all;
    let _held =
        (lock.lock().unwrap(), rlock.lock().unwrap(), mutex.lock().unwrap(), permits.acquire());
    let _guards = (read.read().unwrap(), written.write().unwrap());
    connection.send(()).unwrap();
    connection.recv().unwrap();
}

fn panic_text(act: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(act)).expect_err("it cannot go on");
    *panic.downcast::<String>().expect("a text")
}

/// The holder is alive, and the descriptor is closed or refers to another file: the holder keeps
/// its locks, and a method that would wait indefinitely panics with the reason.
#[test]
fn closed_descriptor_admits_no_second_owner() {
    alone(|()| close_while_held(None));
    alone(|()| close_while_held(Some(&File::open("/dev/null").unwrap())));
}

fn close_while_held(file: Option<&File>) {
    let all = all();
    let (mine, theirs) = duplex::<(), ()>().unwrap();
    let holder = Process::spawn(hold, (all.clone(), theirs)).unwrap();
    mine.recv().unwrap();
    close_regions(file);

    let (lock, rlock, mutex, permits, read, written) = &all;
    assert!(lock.try_lock().unwrap_err().is_would_block());
    assert!(rlock.try_lock().unwrap_err().is_would_block());
    assert!(mutex.try_lock().unwrap_err().is_would_block());
    permits.try_acquire().expect_err("its holder is alive");
    assert!(read.try_write().unwrap_err().is_would_block());
    assert!(written.try_write().unwrap_err().is_would_block());
    assert!(written.try_read().unwrap_err().is_would_block());
    drop(read.try_read().expect("readers share"));
    let timeout = Duration::from_millis(200);
    assert!(lock.lock_timeout(timeout).unwrap_err().is_timeout());
    permits.acquire_timeout(timeout).expect_err("its holder is alive");
    assert!(read.write_timeout(timeout).unwrap_err().is_timeout());
    assert!(written.read_timeout(timeout).unwrap_err().is_timeout());
    // This process cannot tell whether the holder is alive, so these would wait indefinitely.
    for text in [
        panic_text(|| drop(lock.lock())),
        panic_text(|| drop(rlock.lock())),
        panic_text(|| drop(mutex.lock())),
        panic_text(|| drop(permits.acquire())),
        panic_text(|| drop(read.write())),
        panic_text(|| drop(written.write())),
        panic_text(|| drop(written.read())),
    ] {
        assert!(text.contains("was closed by other code in this process"), "{text}");
    }

    mine.send(()).unwrap();
    holder.join().unwrap();
    // What the holder has released can be acquired as usual.
    drop(lock.lock().unwrap());
    drop(permits.acquire());
    drop((read.write().unwrap(), written.read().unwrap()));
    drop(all);
    if let Some(file) = file {
        let has_number = |path: std::path::PathBuf| {
            fs::read_link(path).is_ok_and(|file| file == std::path::Path::new("/dev/null"))
        };
        let entries = fs::read_dir("/proc/self/fd").unwrap();
        let count = entries.filter(|entry| has_number(entry.as_ref().unwrap().path())).count();
        assert!(count >= 7, "the numbers are the program's, and were not closed: {count}");
        file.metadata().unwrap();
    }
}

/// The creator or a receiver holds a lock, and its descriptor is closed. It remains a member,
/// because the mapping keeps its file lock on the member table.
#[test]
fn membership_survives_a_closed_descriptor() {
    let _dog = watchdog();
    let create_and_close = |connection: Connection<Lock, ()>| -> () {
        let lock = Lock::new().unwrap();
        let held = lock.lock().unwrap();
        connection.send(lock.clone()).unwrap();
        close_regions(None);
        connection.recv().unwrap(); // the others have tried
        drop(held);
        connection.recv().unwrap();
        std::mem::forget(lock.lock().unwrap());
        // Dies with the lock.
        std::process::abort();
    };
    let (mine, theirs) = duplex::<(), Lock>().unwrap();
    let creator = Process::spawn(create_and_close, theirs).unwrap();
    let lock = mine.recv().unwrap();
    assert!(lock.try_lock().unwrap_err().is_would_block(), "its holder is alive");
    let timeout = lock.lock_timeout(Duration::from_millis(300)).unwrap_err();
    assert!(timeout.is_timeout(), "its holder is alive");
    mine.send(()).unwrap();
    drop(lock.lock().expect("it was released"));
    mine.send(()).unwrap();
    let _ = creator.join();
    let abandoned = lock.lock_timeout(Duration::from_secs(10)).expect_err("it died inside");
    assert!(abandoned.is_abandoned());
}

/// Barriers, and conditions that take over notifications, depend on which members are alive.
#[test]
fn waits_that_must_detect_deaths_end_with_an_error() {
    alone(|()| {
        let (barrier, condition) =
            (multiproc_sync::Barrier::new(2).unwrap(), Condition::new().unwrap());
        close_regions(None);
        barrier.wait().expect_err("whether the other party lives cannot be told");
        let guard = condition.lock().unwrap();
        drop(condition.wait(guard).unwrap());
    });
}
