//! Locks between processes, and the death of holders and waiters.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Connection, Descriptor, duplex};
use multiproc_sync::{Lock, LockTimeoutError, TryLockError};
use multiproc_testkit::{Census, Stopped, alone, is_asleep, until, watchdog};

multiproc::enable_in_tests!();

/// The promised bound: no process waits longer for a dead one.
const RECOVERY: Duration = Duration::from_secs(1);

/// Starts a process that locks, and waits until it has. It holds the lock until the connection is
/// dropped.
fn holder(lock: &Lock) -> (Process, Connection<(), ()>) {
    let (ours, theirs) = duplex().unwrap();
    let hold = |(lock, parent): (Lock, Connection<(), ()>)| {
        let guard = lock.lock().unwrap_or_else(|abandoned| abandoned.into_guard());
        parent.send(()).unwrap();
        let _ = parent.recv();
        drop(guard);
    };
    let child = Process::spawn(hold, (lock.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    (child, ours)
}

#[test]
fn lock_excludes_other_processes() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    let path = std::env::temp_dir().join(format!("multiproc-lock-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all_at(&[0; 8], 0).unwrap();
    // Read, add, write: without exclusion, some additions would be lost.
    let add = |(lock, file): (Lock, Descriptor)| {
        let file = File::from(file);
        for _ in 0..2000 {
            let _guard = lock.lock().unwrap();
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let number = u64::from_le_bytes(bytes) + 1;
            file.write_all_at(&number.to_le_bytes(), 0).unwrap();
        }
    };
    let children: Vec<_> = (0..4)
        .map(|_| {
            let file = Descriptor::from(file.try_clone().unwrap());
            Process::spawn(add, (lock.clone(), file)).unwrap()
        })
        .collect();
    for child in children {
        child.join().unwrap();
    }
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(u64::from_le_bytes(bytes), 8000);
}

#[test]
fn killed_holder_yields_abandoned() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    let (child, _parent) = holder(&lock);
    assert!(lock.try_lock().unwrap_err().is_would_block());
    assert!(lock.lock_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());

    child.kill().unwrap();
    child.wait();
    let start = Instant::now();
    let abandoned = lock.lock().unwrap_err();
    assert!(start.elapsed() < RECOVERY);
    let guard = abandoned.into_guard();
    assert!(lock.try_lock().unwrap_err().is_would_block(), "it is held now");
    drop(guard);
    drop(lock.lock().expect("afterwards the lock is normal again"));
}

#[test]
fn sleeping_waiter_gets_abandoned() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    let (child, _parent) = holder(&lock);
    let (ours, theirs) = duplex::<(), bool>().unwrap();
    let wait = |(lock, parent): (Lock, Connection<bool, ()>)| {
        let abandoned = lock.lock().is_err();
        parent.send(abandoned).unwrap();
    };
    let waiter = Process::spawn(wait, (lock, theirs)).unwrap();
    until(|| is_asleep(waiter.pid()));
    child.kill().unwrap();
    let start = Instant::now();
    assert!(ours.recv().unwrap());
    assert!(start.elapsed() < RECOVERY);
    waiter.join().unwrap();
}

#[test]
fn exactly_one_of_many_waiters_recovers_the_lock() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    let (child, _parent) = holder(&lock);
    let wait = |lock: Lock| match lock.lock() {
        Ok(_) => false,
        Err(abandoned) => {
            drop(abandoned.into_guard());
            true
        }
    };
    let waiters: Vec<_> = (0..6).map(|_| Process::spawn(wait, lock.clone()).unwrap()).collect();
    until(|| waiters.iter().all(|waiter| is_asleep(waiter.pid())));
    child.kill().unwrap();
    let took_over = waiters.into_iter().map(|waiter| waiter.join().unwrap());
    assert_eq!(took_over.filter(|&took_over| took_over).count(), 1);
}

#[test]
fn lock_stays_abandoned_until_into_guard() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    let (child, _parent) = holder(&lock);
    child.kill().unwrap();
    child.wait();
    drop(lock.lock().unwrap_err());
    assert!(matches!(lock.try_lock(), Err(TryLockError::Abandoned(_))));
    let again = lock.lock_timeout(RECOVERY);
    let Err(LockTimeoutError::Abandoned(abandoned)) = again else { panic!("{again:?}") };
    assert!(format!("{:?}", abandoned.guard()).contains("abandoned: true"));
    drop(abandoned.into_guard());
    drop(lock.try_lock().unwrap());
}

#[test]
fn killed_waiter_has_no_effect() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    let waiter = Process::spawn(|lock: Lock| drop(lock.lock()), lock.clone()).unwrap();
    until(|| is_asleep(waiter.pid()));
    waiter.kill().unwrap();
    waiter.wait();
    drop(guard);
    drop(lock.lock().unwrap());
    let (child, parent) = holder(&lock);
    drop(parent);
    child.join().unwrap();
    drop(lock.lock().unwrap());
}

#[test]
fn stopped_holder_keeps_the_lock() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    let (child, parent) = holder(&lock);
    let stopped = Stopped::new(child.pid());
    let start = Instant::now();
    assert!(lock.lock_timeout(Duration::from_millis(300)).unwrap_err().is_timeout());
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(child.is_alive());
    drop(stopped);
    drop(parent);
    drop(lock.lock().expect("it was released, not abandoned"));
    child.join().unwrap();
}

#[test]
fn timeout_is_a_lower_bound() {
    let lock = Lock::new().unwrap();
    let _guard = lock.lock().unwrap();
    for milliseconds in [0, 1, 30] {
        let timeout = Duration::from_millis(milliseconds);
        let start = Instant::now();
        assert!(lock.lock_timeout(timeout).unwrap_err().is_timeout());
        assert!(start.elapsed() >= timeout);
    }
    assert!(lock.lock_deadline(Instant::now()).unwrap_err().is_timeout());
}

#[test]
fn debug_names_the_holder() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    assert!(format!("{lock:?}").contains("holder: None"));
    let (child, _parent) = holder(&lock);
    let debug = format!("{lock:?}");
    assert!(debug.contains(&format!("pid: {}", child.pid())), "{debug}");
    assert!(debug.contains("alive: true"), "{debug}");
    child.kill().unwrap();
    child.wait();
    assert!(format!("{lock:?}").contains("alive: false"));
}

#[test]
fn slots_of_dead_members_are_used_again() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    // More processes than there are slots. Each dies while it holds the lock, and its slot is
    // freed.
    for _ in 0..1100 {
        let die = |lock: Lock| {
            let guard = lock.lock().unwrap_or_else(|abandoned| abandoned.into_guard());
            std::mem::forget(guard);
        };
        Process::spawn(die, lock.clone()).unwrap().join().unwrap();
    }
    drop(lock.lock().unwrap_err().into_guard());
    drop(lock.lock().unwrap());
}

#[test]
fn full_member_table_is_an_error() {
    use rustix::fs::{FlockOperation, fcntl_lock};
    let _dog = watchdog();
    let (left, right) = duplex::<Lock, ()>().unwrap();
    let lock = Lock::new().unwrap();
    left.send(lock.clone()).unwrap();
    left.send(lock).unwrap();
    // No process has the region open now. Another process takes the file locks of all slots at
    // once.
    let right = right.retype::<(), Descriptor>();
    let (file, other) = (right.recv().unwrap(), right.recv().unwrap());
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let hold = |(file, parent): (Descriptor, Connection<(), ()>)| {
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let child = Process::spawn(hold, (file, theirs)).unwrap();
    ours.recv().unwrap();
    let text = receive_as_lock(other);
    assert!(text.contains("1024 processes have this object open"), "{text}");
    drop(ours);
    child.join().unwrap();
}

#[test]
fn received_handle_of_a_known_region_shares_its_mapping() {
    alone(|()| {
        let lock = Lock::new().unwrap();
        let before = Census::take();
        let (left, right) = duplex::<Lock, ()>().unwrap();
        left.send(lock.clone()).unwrap();
        let same = right.recv().unwrap();
        drop((left, right));
        assert_eq!(Census::take(), before);
        let guard = same.lock().unwrap();
        assert!(lock.try_lock().unwrap_err().is_would_block());
        drop(guard);
        drop(lock);
        drop(same.lock().unwrap());
    });
}

#[test]
fn dropped_locks_leave_nothing_behind() {
    alone(|()| {
        let before = Census::take();
        for _ in 0..1000 {
            let lock = Lock::new().unwrap();
            drop(lock.clone().lock().unwrap());
            let (left, _right) = duplex::<Lock, ()>().unwrap();
            left.send(lock).unwrap(); // never received
        }
        assert_eq!(Census::take(), before);
    });
}

/// Sends `descriptor` in place of that of a lock, and returns the error of receiving it.
fn receive_as_lock(descriptor: impl Into<Descriptor>) -> String {
    let (left, right) = duplex::<Descriptor, ()>().unwrap();
    left.send(descriptor.into()).unwrap();
    right.retype::<(), Lock>().recv().unwrap_err().to_string()
}

#[test]
fn descriptor_that_is_no_lock_is_refused() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    let text = receive_as_lock(File::open("/dev/null").unwrap());
    assert!(text.contains("expected a multiproc lock"), "{text}");
    assert!(text.contains("CharacterDevice"), "{text}");

    let memory = |size: u64, content: &[u8], seals| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("test", flags).unwrap());
        file.set_len(size).unwrap();
        file.write_all_at(content, 0).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file
    };
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let header = |version: u32, kind: &[u8; 4], size: u64| {
        [b"multipr\0", &version.to_le_bytes()[..], kind, &size.to_le_bytes()].concat()
    };
    for (file, what) in [
        (memory(1 << 20, b"", SealFlags::SHRINK), "F_SEAL_GROW"),
        (memory(100, b"", all), "got shared memory of 100"),
        (memory(1 << 20, &[7; 4096], all), "of another program"),
        (memory(1 << 20, &header(99, b"LOCK", 1 << 20), all), "got version 99"),
        (memory(1 << 20, &header(3, b"QUEU", 1 << 20), all), "another kind (QUEU)"),
        (memory(1 << 20, &header(3, b"LOCK", 1 << 30), all), "got one of 1048576 bytes"),
    ] {
        let text = receive_as_lock(file);
        assert!(text.contains(what), "{text}");
    }
}

#[test]
fn exceeded_limit_is_an_error_that_names_it() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    fn limit(resource: Resource, current: u64) {
        let maximum = getrlimit(resource).maximum;
        setrlimit(resource, Rlimit { current: Some(current), maximum }).unwrap();
    }
    alone(|()| {
        limit(Resource::Fsize, 1000); // growing a file past it would be a deadly signal
        let text = Lock::new().unwrap_err().to_string();
        assert!(text.contains("ulimit -f") && text.contains("1000"), "{text}");
    });
    alone(|()| {
        limit(Resource::As, 1000);
        let text = Lock::new().unwrap_err().to_string();
        assert!(text.contains("ulimit -v") && text.contains("1000"), "{text}");
    });
    alone(|()| {
        let before = Census::take();
        let usual = getrlimit(Resource::Nofile).current.unwrap();
        limit(Resource::Nofile, 0);
        Lock::new().unwrap_err();
        limit(Resource::Nofile, usual);
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn without_proc_the_error_names_proc() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: another root directory needs the rights of root");
        return;
    }
    let bare = std::env::temp_dir().join(format!("multiproc-bare-{}", std::process::id()));
    std::fs::create_dir(&bare).unwrap();
    let child = Process::spawn(
        |bare: std::path::PathBuf| {
            rustix::process::chroot(bare).unwrap();
            let (left, right) = duplex::<u8, ()>().unwrap();
            left.send(1).unwrap();
            right.recv().unwrap(); // connections work
            Lock::new().unwrap_err().to_string()
        },
        bare.clone(),
    );
    let text = child.unwrap().join();
    std::fs::remove_dir(bare).unwrap();
    let text = text.unwrap();
    assert!(text.contains("needs /proc") && text.contains("mount"), "{text}");
}

#[test]
fn corrupted_word_does_not_block() {
    let _dog = watchdog();
    // The control block is at 128 (docs/formats.md), and writing into the file writes into the
    // memory of all processes that map it.
    let lock = Lock::new().unwrap();
    let (left, right) = duplex::<Lock, ()>().unwrap();
    left.send(lock.clone()).unwrap();
    let file = File::from(right.retype::<(), Descriptor>().recv().unwrap());
    for n in 0..10_000u32 {
        // A xorshift generator: the bits do not matter, and are the same each time.
        let word = n.wrapping_mul(2_654_435_761).rotate_left(n % 32);
        file.write_all_at(&word.to_le_bytes(), 128).unwrap();
        if let Err(LockTimeoutError::Timeout) = lock.lock_timeout(Duration::from_millis(1)) {
            // The bits are those of a living member: this process.
            assert!(format!("{lock:?}").contains("alive: true"));
        }
    }
}

/// Errors of a lock end a function with `?`, whatever its error type.
#[test]
fn abandoned_lock_is_an_error_for_the_question_mark() {
    use multiproc_sync::{Abandoned, AbandonedError};
    use std::error::Error;
    use std::{io, panic, thread};

    fn owned(lock: &Lock) -> Result<(), AbandonedError> {
        let _guard = lock.lock()?;
        Ok(())
    }
    fn boxed(lock: &Lock) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _guard = lock.lock().map_err(Abandoned::into_error)?;
        Ok(())
    }
    fn of_io(lock: &Lock) -> io::Result<()> {
        let _guard = lock.try_lock()?;
        Ok(())
    }
    let lock = Lock::new().unwrap();
    let held = lock.lock().unwrap();
    assert_eq!(of_io(&lock).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let timeout = io::Error::from(lock.lock_timeout(Duration::ZERO).unwrap_err());
    assert_eq!(timeout.kind(), io::ErrorKind::TimedOut);
    drop(held);
    let copy = lock.clone();
    let died = thread::spawn(move || {
        let _guard = copy.lock().unwrap();
        panic::resume_unwind(Box::new("under the lock"));
    });
    died.join().unwrap_err();
    assert_eq!(owned(&lock), Err(lock.lock().unwrap_err().into_error()));
    assert!(boxed(&lock).unwrap_err().is::<AbandonedError>());
    let error = of_io(&lock).unwrap_err();
    assert!(error.get_ref().is_some_and(|error| error.is::<AbandonedError>()));
}
