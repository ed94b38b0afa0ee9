//! Another process writes arbitrary bytes into the shared memory: the result is an error, a timeout
//! or success, and never a crash, a panic or a hang.
//!
//! Each primitive is corrupted and used in a process of its own. A failure prints the seed of the
//! patterns; `SCRIBBLE_SEED` in the environment repeats them.

use std::fmt::Debug;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use multiproc::pipe::{Connection, Descriptor, duplex};
use multiproc::{JoinError, Process};
use multiproc_sync::{
    Atomic, Barrier, BoundedSemaphore, Condition, Event, Lock, Mutex, RLock, RwLock, Semaphore,
    Shared,
};
use multiproc_testkit::watchdog;
use serde::Serialize;
use serde::de::DeserializeOwned;

multiproc::enable_in_tests!();

const PATTERNS: u32 = 10_000;
const SHORT: Duration = Duration::from_millis(1);

/// The range that is written: the control block, some data, and the beginning of the member table.
const START: u64 = 128;
const END: u64 = 2400;

/// The member id of this process, which is the first member of each region: slot 0, generation 1.
const ME: u32 = 1 << 10;

/// Words with a meaning in some primitive: limits of numbers, owners that are alive, dead or no
/// members, and the flags in the upper bits.
const WORDS: [u32; 16] = [
    0,
    1,
    2,
    3,
    0xffff,
    0x1_0000,
    0x1_ffff,
    ME,
    ME | 1 << 30,
    ME | 1 << 31,
    ME + 1,
    1 << 30,
    1 << 31,
    i32::MAX.unsigned_abs(),
    u32::MAX - 1,
    u32::MAX,
];

/// A xorshift64* generator (Marsaglia).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        u32::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).unwrap()
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound
    }

    fn word(&mut self) -> u32 {
        match self.below(2) {
            0 => self.next(),
            _ => WORDS[self.below(16) as usize],
        }
    }
}

/// Returns a seed, which is printed if the test fails.
fn seed() -> u64 {
    let seed = std::env::var("SCRIBBLE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish()).max(1);
    eprintln!("SCRIBBLE_SEED={seed}");
    seed
}

/// Runs a test in a process of its own, whose crash fails the test.
fn with_seed(test: impl FnOnce(u64) + 'static) {
    let _dog = watchdog();
    let child = Process::spawn(test, seed()).unwrap();
    if let Err(error) = child.join() {
        panic!("{error}");
    }
}

/// The memory of a primitive, which any process that has it open can write.
struct Scribbler {
    file: File,
    random: Random,
}

impl Scribbler {
    fn new(handle: impl Serialize + DeserializeOwned, seed: u64) -> Self {
        let (left, right) = duplex::<_, ()>().unwrap();
        left.send(handle).unwrap_or_else(|error| panic!("{error}"));
        // Writing into the file writes into the memory of all processes that map it.
        let file = File::from(right.retype::<(), Descriptor>().recv().unwrap());
        Self { file, random: Random(seed) }
    }

    /// Writes one pattern: few or many words, anywhere or in the control block.
    fn scribble(&mut self) {
        let random = &mut self.random;
        let words = if random.below(16) == 0 { 512 } else { 1 + random.below(4) };
        let bytes: Vec<u8> = (0..words).flat_map(|_| random.word().to_le_bytes()).collect();
        let start = START
            + u64::from(match random.below(4) {
                0 => random.below(2272),
                1 => random.below(568) * 4,
                _ => random.below(16) * 4,
            });
        let len = bytes.len().min(usize::try_from(END - start).unwrap());
        self.file.write_all_at(&bytes[..len], start).unwrap();
    }
}

/// Corrupts and uses a primitive alternately.
fn survive<T>(seed: u64, handle: T, mut attempt: impl FnMut(&T, &mut dyn FnMut()))
where
    T: Serialize + DeserializeOwned + Clone + Debug + 'static,
{
    let mut scribbler = Scribbler::new(handle.clone(), seed);
    for n in 0..PATTERNS {
        scribbler.scribble();
        attempt(&handle, &mut || scribbler.scribble());
        assert!(!format!("{handle:?}").is_empty());
        if n % 50 == 0 {
            // Its header may be invalid, and the primitive refused.
            let (left, right) = duplex::<T, ()>().unwrap();
            if left.send(handle.clone()).is_ok() {
                drop(right.recv());
            }
        }
        if n % 500 == 0 {
            let child = Process::spawn(|handle: T| drop(format!("{handle:?}")), handle.clone());
            match child.unwrap().join() {
                Ok(()) | Err(JoinError::ArgumentsLost(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn corrupted_lock_does_not_crash() {
    with_seed(|seed| {
        survive(seed, Lock::new().unwrap(), |lock, scribble| {
            drop(lock.try_lock());
            if let Ok(guard) = lock.lock_timeout(SHORT) {
                scribble();
                drop(guard);
            }
        });
    });
}

#[test]
fn corrupted_rlock_does_not_crash() {
    with_seed(|seed| {
        survive(seed, RLock::new().unwrap(), |lock, scribble| {
            drop(lock.try_lock());
            if let Ok(outer) = lock.lock_timeout(SHORT) {
                scribble();
                let inner = lock.lock_timeout(SHORT);
                scribble();
                drop(outer);
                drop(inner);
            }
        });
    });
}

#[test]
fn corrupted_mutex_does_not_crash() {
    with_seed(|seed| {
        survive(seed, Mutex::new([1u64; 30]).unwrap(), |mutex, scribble| {
            drop(mutex.try_lock());
            match mutex.lock_timeout(SHORT) {
                Ok(mut guard) => {
                    scribble();
                    guard[7] = guard[7].wrapping_add(1);
                }
                Err(error) => drop(error),
            }
        });
    });
}

#[test]
fn corrupted_rwlock_does_not_crash() {
    with_seed(|seed| {
        survive(seed, RwLock::new([1u64; 30]).unwrap(), |lock, scribble| {
            drop(lock.try_read());
            drop(lock.try_write());
            let reader = lock.read_timeout(SHORT);
            scribble();
            let other = lock.read_timeout(SHORT);
            drop((reader, other));
            scribble();
            match lock.write_timeout(SHORT) {
                Ok(mut guard) => {
                    scribble();
                    guard[7] = guard[7].wrapping_add(1);
                }
                Err(error) => drop(error),
            }
        });
    });
}

#[test]
fn corrupted_table_does_not_crash() {
    with_seed(|seed| {
        survive(seed, Shared::new(&[1u64; 30]).unwrap(), |table, _| {
            assert_eq!((table.len(), table.to_vec().len()), (30, 30));
            table.set(29, table.get(28));
        });
    });
}

#[test]
fn corrupted_atomic_does_not_crash() {
    with_seed(|seed| {
        survive(seed, Atomic::new(0).unwrap(), |number, _| {
            number.fetch_sub(number.fetch_add(u64::MAX));
            let _ = number.compare_exchange(number.load(), number.swap(7));
        });
    });
}

#[test]
fn corrupted_semaphore_does_not_crash() {
    with_seed(|seed| {
        survive(seed, Semaphore::new(1).unwrap(), |semaphore, scribble| {
            let _ = semaphore.try_acquire();
            let _ = semaphore.acquire_timeout(SHORT);
            scribble();
            let _ = semaphore.release(semaphore.value());
            let _ = semaphore.release(1);
        });
    });
}

#[test]
fn corrupted_bounded_semaphore_does_not_crash() {
    with_seed(|seed| {
        survive(seed, BoundedSemaphore::new(20).unwrap(), |semaphore, scribble| {
            assert!(semaphore.available() <= semaphore.permits());
            let permits = [semaphore.try_acquire().ok(), semaphore.acquire_timeout(SHORT).ok()];
            scribble();
            drop(permits);
            // Acquires all permits, so that it has to wait sometimes.
            let permits: Vec<_> = (0..21).map_while(|_| semaphore.try_acquire().ok()).collect();
            drop(semaphore.acquire_timeout(SHORT));
            drop(permits);
        });
    });
}

#[test]
fn corrupted_event_does_not_crash() {
    with_seed(|seed| {
        survive(seed, Event::new().unwrap(), |event, scribble| {
            let _ = event.wait_timeout(SHORT);
            event.set();
            scribble();
            event.clear();
            let _ = event.is_set();
            let _ = event.wait_timeout(SHORT);
        });
    });
}

#[test]
fn corrupted_condition_does_not_crash() {
    with_seed(|seed| {
        survive(seed, Condition::new().unwrap(), |condition, scribble| {
            drop(condition.try_lock());
            // The wait ends by its timeout. The lock is free afterwards, because the memory is not
            // corrupted meanwhile.
            let Ok(guard) = condition.lock_timeout(SHORT) else { return };
            scribble();
            let Ok((guard, _)) = condition.wait_timeout(guard, SHORT) else { return };
            scribble();
            drop(condition.wait_timeout_while(guard, SHORT, || true));
            condition.notify_one();
            condition.notify(3);
            condition.notify_all();
        });
    });
}

#[test]
fn corrupted_barrier_does_not_crash() {
    with_seed(|seed| {
        survive(seed, Barrier::new(2).unwrap(), |barrier, scribble| {
            let _ = barrier.wait_timeout(SHORT);
            let _ = (barrier.waiting(), barrier.is_broken(), barrier.parties());
            scribble();
            barrier.reset();
            let _ = barrier.wait_deadline(Instant::now());
            barrier.abort();
            scribble();
            let _ = barrier.wait_timeout(SHORT);
        });
    });
}

/// The memory is corrupted all the time, also while waiters sleep.
#[test]
fn corruption_during_a_wait_does_not_crash() {
    let _dog = watchdog();
    type Primitives = (Semaphore, BoundedSemaphore, Event, Barrier);
    let primitives: Primitives = (
        Semaphore::new(0).unwrap(),
        BoundedSemaphore::new(1).unwrap(),
        Event::new().unwrap(),
        Barrier::new(9).unwrap(),
    );
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let sleep =
        |((semaphore, bounded, event, barrier), parent): (Primitives, Connection<(), ()>)| {
            parent.send(()).unwrap();
            for _ in 0..200 {
                let _ = semaphore.acquire_timeout(SHORT);
                drop(bounded.acquire_timeout(SHORT));
                let _ = event.wait_timeout(SHORT);
                event.clear();
                let _ = barrier.wait_timeout(SHORT);
                barrier.reset();
            }
        };
    let child = Process::spawn(sleep, (primitives.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    let seed = seed();
    let (semaphore, bounded, event, barrier) = primitives;
    let mut scribblers = [
        Scribbler::new(semaphore, seed),
        Scribbler::new(bounded, seed),
        Scribbler::new(event, seed),
        Scribbler::new(barrier, seed),
    ];
    while child.is_alive() {
        scribblers.iter_mut().for_each(Scribbler::scribble);
    }
    child.join().unwrap();
}

/// A receiver refuses an invalid number of parties. Handles that are open keep theirs.
#[test]
fn barrier_without_parties_is_refused() {
    let barrier = Barrier::new(1).unwrap();
    let scribbler = Scribbler::new(barrier.clone(), 1);
    // Behind the state and the event count.
    scribbler.file.write_all_at(&0u32.to_le_bytes(), START + 16).unwrap();
    let child = Process::spawn(|barrier: Barrier| drop(barrier), barrier.clone()).unwrap();
    assert!(matches!(child.join(), Err(JoinError::ArgumentsLost(_))));
    assert!(barrier.wait().unwrap().is_leader());
}

/// The depth of a lock is in shared memory, and may be the maximum.
#[test]
fn corrupted_depth_does_not_panic() {
    let lock = RLock::new().unwrap();
    let scribbler = Scribbler::new(lock.clone(), 1);
    let guard = lock.lock().unwrap();
    // Behind the word of the lock.
    scribbler.file.write_all_at(&u32::MAX.to_le_bytes(), START + 4).unwrap();
    drop(lock.try_lock());
    drop(guard);
}
