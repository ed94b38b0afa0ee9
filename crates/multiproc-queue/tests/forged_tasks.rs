//! A process forges the tasks of a joinable queue: the others get errors, and use no unbounded
//! memory or time.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use multiproc::Process;
use multiproc::pipe::{Bytes, duplex};
use multiproc_queue::{JoinableQueue, TryGetError};
use multiproc_testkit::watchdog;

use common::{CONTROL, HOT, TABLE, Wire};

multiproc::enable_in_tests!();

const READY: u64 = 1 << 32 | 2 << 30;
const DEAD: u64 = 1 << 32 | 3 << 30;

/// The offsets of the counts in the control block of the tasks, and of the slots: see
/// `docs/formats.md`.
const RETURNED: u64 = CONTROL + 1028;
const HIGHS: u64 = CONTROL + 1032;
const SLOT: u64 = 64;

/// Returns the shared memory of a queue as a file.
fn memory<T>(queue: &JoinableQueue<T>) -> File {
    let (left, right) = duplex::<JoinableQueue<T>, ()>().unwrap();
    left.send(queue.clone()).unwrap();
    File::from(right.retype::<(), Wire>().recv().unwrap().0.0)
}

fn read(memory: &File, at: u64) -> u64 {
    let mut word = [0; 8];
    memory.read_exact_at(&mut word, at).unwrap();
    u64::from_le_bytes(word)
}

fn forge(memory: &File, at: u64, bytes: &[u8]) {
    memory.write_all_at(bytes, at).unwrap();
}

/// Returns the offset of the slots, which are behind the blocks.
fn slots(max_bytes: u64) -> u64 {
    let blocks = (max_bytes + 16).next_multiple_of(16).div_ceil(65_536) + 2;
    (TABLE + blocks.next_power_of_two() * 4).next_multiple_of(4096) + blocks * 65_536
}

/// Returns the peak memory of this process, in MiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// There is a class of slots of 1 GiB each, but the queue has no task of that length.
#[test]
fn forged_task_length_allocates_at_most_a_whole_task() {
    const MAX: usize = 33 << 20;
    const LARGEST: u64 = 16_384 + 4096 + 2048 + 1024 + 256;
    let _dog = watchdog();
    let child = Process::spawn(
        |()| {
            let jobs = JoinableQueue::<Bytes>::builder().max_bytes(MAX).build().unwrap();
            let memory = memory(&jobs);
            jobs.put(Bytes(vec![7; 20])).unwrap();
            let task = jobs.get().unwrap();
            let first = slots(MAX as u64);
            assert_eq!(read(&memory, first) >> 32, 1, "the slot is where it is expected");
            task.task_done();
            let slot = first + LARGEST * SLOT;
            [(0, READY), (8, 0), (16, 0), (24, 1 << 30)]
                .iter()
                .for_each(|&(at, word)| forge(&memory, slot + at, &word.to_le_bytes()));
            forge(&memory, HIGHS + 20, &1u32.to_le_bytes());
            forge(&memory, RETURNED, &1u32.to_le_bytes());
            let error = jobs.try_get().unwrap_err();
            assert!(matches!(error, TryGetError::Corrupted(_)), "{error}");
            assert!(peak() < 300, "{} MiB", peak());
        },
        (),
    );
    child.unwrap().join().unwrap();
}

/// Another process turns the same slot into other dead letters, again and again.
#[test]
fn forged_dead_letters_are_limited_by_the_number_of_slots() {
    let _dog = watchdog();
    let jobs = JoinableQueue::<u64>::builder().max_bytes(1000).max_attempts(1).build().unwrap();
    jobs.put(7).unwrap();
    drop(jobs.get().unwrap());
    let memory = memory(&jobs);
    let slot = HOT + 256 * 1024;
    assert_eq!(read(&memory, slot), DEAD, "the slot is where it is expected");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0u64.. {
                forge(&memory, slot + 8, &number.to_le_bytes());
                forge(&memory, slot, &DEAD.to_le_bytes());
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let letters: Vec<_> = (0..1000).map(|_| jobs.dead_letters()).collect();
        is_over.store(true, Ordering::Relaxed);
        for letters in letters {
            let count = letters.unwrap().len();
            assert!(count <= 1, "{count}");
        }
    });
}

/// Large letters are returned by several calls, each of them once.
#[test]
fn large_dead_letters_are_returned_over_several_calls() {
    const EACH: usize = 5 << 20;
    const ALL: usize = 20;
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().max_attempts(1).build().unwrap();
    for n in 0..ALL {
        jobs.put((n, Bytes(vec![7; EACH]))).unwrap();
        drop(jobs.get().unwrap());
    }
    let first = jobs.dead_letters().unwrap();
    assert!(first.len() * EACH < 70 << 20, "{}", first.len());
    let next = jobs.dead_letters().unwrap();
    assert_eq!(first.len() + next.len(), ALL);
    let items = first.into_iter().chain(next).map(|letter| letter.take().unwrap().0);
    assert!(items.eq(0..ALL));
    assert_eq!(jobs.dead_letters_len(), 0);
}
