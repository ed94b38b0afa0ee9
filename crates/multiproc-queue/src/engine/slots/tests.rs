//! Bounds on the number of slots that each operation reads.

use std::cell::Cell;
use std::iter;
use std::thread;
use std::time::Duration;

use multiproc_shm::members::Members;
use multiproc_testkit::watchdog;

use super::*;
use crate::engine::slot::{DEAD, DUE, HELD, READY};
use crate::{JoinableQueue, Receipt, Task};

thread_local! {
    /// The number of slots that this thread has read.
    static READS: Cell<u64> = const { Cell::new(0) };
    /// What a hostile process does to the slots before each read.
    static FORGE: Cell<Option<Forge>> = const { Cell::new(None) };
}

type Forge = fn(&[AtomicU64], u64);

pub(super) fn on_read(slots: &[AtomicU64]) {
    READS.set(READS.get() + 1);
    if let Some(forge) = FORGE.get() {
        forge(slots, READS.get());
    }
}

const TASKS: u32 = 4000;

fn reads_of(act: impl FnOnce()) -> u64 {
    let before = READS.get();
    act();
    READS.get() - before
}

fn take_all(jobs: &JoinableQueue<u32>) -> Vec<Task<u32>> {
    (0..TASKS).map(|_| jobs.get().unwrap()).collect()
}

#[test]
fn get_reads_few_slots_however_many_tasks_are_held() {
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..TASKS).unwrap();
    let mut tasks = Vec::new();
    let reads = reads_of(|| tasks = take_all(&jobs));
    assert!(reads < u64::from(TASKS) * 100, "{reads}");
    // Neither does taking them again, together with new ones.
    tasks.clear();
    jobs.put_many(0..TASKS).unwrap();
    let reads = reads_of(|| tasks = take_all(&jobs));
    assert!(tasks.iter().all(|task| task.attempt() == 2));
    assert!(reads < u64::from(TASKS) * 100, "{reads}");
    let reads = reads_of(|| tasks.extend(take_all(&jobs)));
    assert!(reads < u64::from(TASKS) * 200, "{reads}");
    tasks.clear();
    // Until now, all were in progress at once.
    let reads = reads_of(|| iter::from_fn(|| jobs.try_get().ok()).for_each(Task::task_done));
    assert!(reads < u64::from(TASKS) * 200, "{reads}");
    assert_eq!(jobs.unfinished(), 0);
}

#[test]
fn get_of_new_tasks_reads_few_slots_while_others_are_not_due() {
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..2 * TASKS).unwrap();
    drop(take_all(&jobs));
    let reads = reads_of(|| {
        for n in TASKS..2 * TASKS {
            let task = jobs.get().unwrap();
            assert_eq!((*task, task.attempt()), (n, 1));
            task.task_done();
        }
    });
    assert!(reads < u64::from(TASKS) * 100, "{reads}");
}

#[test]
fn completion_reads_few_slots_while_a_thread_joins() {
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..2 * TASKS).unwrap();
    let tasks = take_all(&jobs);
    thread::scope(|scope| {
        let joiner = scope.spawn(|| jobs.join().unwrap());
        let all_done = jobs.inner.store.region.control().tasks.all_done();
        let end = |tasks: Vec<Task<u32>>| {
            tasks.into_iter().for_each(|task| {
                // The joiner sleeps, or seems to, for the thread that completes a task.
                while !all_done.has_sleepers() {
                    thread::yield_now();
                }
                task.task_done();
            });
        };
        // While an item is in the ring, only the task's own slot needs to be read.
        let reads = reads_of(|| end(tasks));
        assert!(reads <= u64::from(TASKS) * 2, "{reads}");
        // Otherwise, also a slot in progress, mostly the same as before.
        let tasks = take_all(&jobs);
        let reads = reads_of(|| end(tasks));
        assert!(reads < u64::from(TASKS) * 10, "{reads}");
        joiner.join().unwrap();
    });
}

/// The number of slots in use while they are forged.
const FORGED: usize = 16;

/// Turns each slot into another task, each time.
fn forge_all(slots: &[AtomicU64], kind: u64, owner: fn(u64) -> u64, reads: u64) {
    for (n, slot) in slots.chunks_exact(WORDS).take(FORGED).enumerate() {
        let n = reads + n as u64;
        slot[NUMBER].store(n, Ordering::Relaxed);
        slot[DUE].store(0, Ordering::Relaxed);
        slot[STATE].store((n + 1) << 32 | kind | owner(n), Ordering::Relaxed);
    }
}

/// Whatever a hostile process writes into the slots, each call ends, and reads each slot a few
/// times.
#[test]
fn each_call_reads_a_bounded_number_of_forged_slots() {
    /// No owner, the creator, and members that never existed, each time another one.
    const OWNERS: [fn(u64) -> u64; 3] = [|_| 0, |_| 1 << 10, |n| 0x1_0400 + (n << 10)];
    let forges: [Forge; 5] = [
        |slots, reads| forge_all(slots, READY, OWNERS[0], reads),
        |slots, reads| forge_all(slots, DEAD, OWNERS[0], reads),
        |slots, reads| forge_all(slots, DETACHED, OWNERS[1], reads),
        |slots, reads| forge_all(slots, HELD, OWNERS[2], reads),
        |slots, reads| forge_all(slots, READY, OWNERS[2], reads),
    ];
    let _dog = watchdog();
    for (n, forge) in forges.into_iter().enumerate() {
        let jobs = JoinableQueue::<u32>::unbounded().unwrap();
        assert_eq!(u64::from(jobs.inner.store.region.me().bits()), 1 << 10, "as forged above");
        jobs.put_many(0..100).unwrap();
        let mut tasks: Vec<_> = (0..FORGED).map(|_| jobs.get().unwrap()).collect();
        let (_, receipt) = tasks.pop().unwrap().into_parts();
        let _detached = tasks.pop().unwrap().detach();
        let task = tasks.pop().unwrap();
        FORGE.set(Some(forge));
        let forged = |name: &str, act: &mut dyn FnMut()| {
            // A task seems to have come back.
            let control = jobs.inner.store.region.control();
            control.tasks.returned.fetch_add(1, Ordering::Relaxed);
            let reads = reads_of(act);
            assert!(reads <= 100 * FORGED as u64 * 10, "forge {n}: {name}: {reads}");
        };
        let moment = Duration::ZERO;
        forged("try_get", &mut || drop(jobs.try_get()));
        forged("get_timeout", &mut || drop(jobs.get_timeout(moment)));
        forged("dead_letters", &mut || {
            let letters = jobs.dead_letters();
            assert!(letters.map_or(0, |letters| letters.len()) <= FORGED);
        });
        forged("unfinished", &mut || _ = jobs.unfinished());
        forged("len", &mut || _ = jobs.len());
        forged("join", &mut || _ = jobs.join_timeout(moment));
        forged("detached", &mut || jobs.task_done().unwrap());
        let (mut receipt, mut task) = (Some(receipt), Some(task));
        forged("receipt", &mut || receipt.take().into_iter().for_each(Receipt::task_done));
        forged("put_back", &mut || task.take().into_iter().for_each(Task::put_back));
        FORGE.set(None);
    }
}
