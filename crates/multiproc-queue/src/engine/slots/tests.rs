//! How many slots are looked at.

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
    /// How often this thread has looked at a slot.
    static LOOKS: Cell<u64> = const { Cell::new(0) };
    /// What another process does to the slots before each look.
    static FORGE: Cell<Option<Forge>> = const { Cell::new(None) };
}

type Forge = fn(&[AtomicU64], u64);

pub(super) fn looked(slots: &[AtomicU64]) {
    LOOKS.set(LOOKS.get() + 1);
    if let Some(forge) = FORGE.get() {
        forge(slots, LOOKS.get());
    }
}

const TASKS: u32 = 4000;

fn looks_of(act: impl FnOnce()) -> u64 {
    let before = LOOKS.get();
    act();
    LOOKS.get() - before
}

fn take_all(jobs: &JoinableQueue<u32>) -> Vec<Task<u32>> {
    (0..TASKS).map(|_| jobs.get().unwrap()).collect()
}

#[test]
fn taking_a_task_looks_at_few_slots_however_many_are_held() {
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..TASKS).unwrap();
    let mut tasks = Vec::new();
    let looks = looks_of(|| tasks = take_all(&jobs));
    assert!(looks < u64::from(TASKS) * 100, "{looks}");
    // Neither does taking them once more, beside others that are fresh.
    tasks.clear();
    jobs.put_many(0..TASKS).unwrap();
    let looks = looks_of(|| tasks = take_all(&jobs));
    assert!(tasks.iter().all(|task| task.attempt() == 2));
    assert!(looks < u64::from(TASKS) * 100, "{looks}");
    let looks = looks_of(|| tasks.extend(take_all(&jobs)));
    assert!(looks < u64::from(TASKS) * 200, "{looks}");
    tasks.clear();
    // Until now, all were held at once.
    let looks = looks_of(|| iter::from_fn(|| jobs.try_get().ok()).for_each(Task::task_done));
    assert!(looks < u64::from(TASKS) * 200, "{looks}");
    assert_eq!(jobs.unfinished(), 0);
}

#[test]
fn taking_fresh_tasks_looks_at_few_slots_while_others_wait_for_their_turn() {
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..2 * TASKS).unwrap();
    drop(take_all(&jobs));
    let looks = looks_of(|| {
        for n in TASKS..2 * TASKS {
            let task = jobs.get().unwrap();
            assert_eq!((*task, task.attempt()), (n, 1));
            task.task_done();
        }
    });
    assert!(looks < u64::from(TASKS) * 100, "{looks}");
}

#[test]
fn a_completion_looks_at_few_slots_while_a_thread_joins() {
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..2 * TASKS).unwrap();
    let tasks = take_all(&jobs);
    thread::scope(|scope| {
        let joiner = scope.spawn(|| jobs.join().unwrap());
        let all_done = jobs.inner.store.region.control().tasks.all_done();
        let end = |tasks: Vec<Task<u32>>| {
            tasks.into_iter().for_each(|task| {
                // It sleeps, or so it seems to whoever completes a task.
                while !all_done.has_sleepers() {
                    thread::yield_now();
                }
                task.task_done();
            });
        };
        // While something is in the ring, nothing needs to be looked at but the slot itself.
        let looks = looks_of(|| end(tasks));
        assert!(looks <= u64::from(TASKS) * 2, "{looks}");
        // Without that, one that is in work, mostly the same as before.
        let tasks = take_all(&jobs);
        let looks = looks_of(|| end(tasks));
        assert!(looks < u64::from(TASKS) * 10, "{looks}");
        joiner.join().unwrap();
    });
}

/// Slots in use while they are forged.
const FORGED: usize = 16;

/// Each time, each is another task.
fn forge_all(slots: &[AtomicU64], kind: u64, owner: fn(u64) -> u64, looks: u64) {
    for (n, slot) in slots.chunks_exact(WORDS).take(FORGED).enumerate() {
        let n = looks + n as u64;
        slot[NUMBER].store(n, Ordering::Relaxed);
        slot[DUE].store(0, Ordering::Relaxed);
        slot[STATE].store((n + 1) << 32 | kind | owner(n), Ordering::Relaxed);
    }
}

/// Whatever another process makes of the slots, each call ends, and looks at each slot a few times.
#[test]
fn forged_slots_bound_what_each_call_looks_at() {
    /// Of nobody, of the creator, of a member that there never was, each time another one.
    const OWNERS: [fn(u64) -> u64; 3] = [|_| 0, |_| 1 << 10, |n| 0x1_0400 + (n << 10)];
    let forges: [Forge; 5] = [
        |slots, looks| forge_all(slots, READY, OWNERS[0], looks),
        |slots, looks| forge_all(slots, DEAD, OWNERS[0], looks),
        |slots, looks| forge_all(slots, DETACHED, OWNERS[1], looks),
        |slots, looks| forge_all(slots, HELD, OWNERS[2], looks),
        |slots, looks| forge_all(slots, READY, OWNERS[2], looks),
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
            // Something seems to have come back.
            let control = jobs.inner.store.region.control();
            control.tasks.returned.fetch_add(1, Ordering::Relaxed);
            let looks = looks_of(act);
            assert!(looks <= 100 * FORGED as u64 * 10, "forge {n}: {name}: {looks}");
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
