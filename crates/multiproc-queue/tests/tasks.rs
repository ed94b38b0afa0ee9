//! Joinable queues at their limits: joins, dead letters, ends, memory, and the order of redelivery.

use std::collections::{BTreeSet, VecDeque};
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Bytes, Connection, Descriptor, duplex, wait};
use multiproc_queue::{
    DeathReason, GetError, JoinableQueue, Queue, Shutdown, TooManyTaskDone, TryGetError,
};
use multiproc_testkit::{Census, alone, is_asleep, until, watchdog};
use serde::{Deserialize, Deserializer, Serialize};

multiproc::enable_in_tests!();

/// The guaranteed bound.
const RECOVERY: Duration = Duration::from_secs(1);

/// Kills a process that has this many tasks.
fn killed_with(jobs: &JoinableQueue<u32>, tasks: usize) {
    let take = |(jobs, parent, tasks): (JoinableQueue<u32>, Connection<(), ()>, usize)| {
        let _tasks: Vec<_> = (0..tasks).map(|_| jobs.get().unwrap()).collect();
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let (ours, theirs) = duplex().unwrap();
    let child = Process::spawn(take, (jobs.clone(), theirs, tasks)).unwrap();
    ours.recv().unwrap();
    child.kill().unwrap();
    child.wait();
}

/// A join includes tasks that any process puts meanwhile, and all joiners are woken.
#[test]
fn join_by_several_waits_for_later_tasks_too() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put(3u32).unwrap();
    let join = |jobs: JoinableQueue<u32>| {
        jobs.join().unwrap();
        jobs.unfinished()
    };
    let joiners: Vec<_> = (0..3).map(|_| Process::spawn(join, jobs.clone()).unwrap()).collect();
    joiners.iter().for_each(|joiner| until(|| is_asleep(joiner.pid())));
    // The next task is put before the current one is completed.
    for n in (0..=3).rev() {
        let task = jobs.get().unwrap();
        assert_eq!(*task, n);
        if n > 0 {
            jobs.put(n - 1).unwrap();
        }
        assert!(joiners.iter().all(|joiner| joiner.is_alive()));
        task.task_done();
    }
    for joiner in joiners {
        assert_eq!(joiner.join().unwrap(), 0);
    }
}

/// Starts a worker that repeats a step until it is told to stop. This many slots were in use
/// before.
fn repeat(
    (jobs, parent): (JoinableQueue<u32>, Connection<(), ()>),
    step: impl Fn(&JoinableQueue<u32>),
) {
    const SLOTS: u32 = 300;
    jobs.put_many(0..SLOTS).unwrap();
    let held: Vec<_> = (0..SLOTS).map(|_| jobs.get().unwrap()).collect();
    jobs.put(0).unwrap();
    held.into_iter().for_each(multiproc_queue::Task::task_done);
    step(&jobs);
    parent.send(()).unwrap();
    while !parent.poll(Duration::ZERO).unwrap() {
        step(&jobs);
    }
    jobs.get().unwrap().task_done();
}

/// Puts the next task before the current one is done: at every moment, one or two are unfinished.
fn follow(args: (JoinableQueue<u32>, Connection<(), ()>)) {
    repeat(args, |jobs| {
        let task = jobs.get().unwrap();
        jobs.put(0).unwrap();
        task.task_done();
    });
}

/// Puts a task back before the next one is taken: at every moment, one or two are queued.
fn alternate(args: (JoinableQueue<u32>, Connection<(), ()>)) {
    repeat(args, |jobs| {
        jobs.put(0).unwrap();
        jobs.get().unwrap().put_back();
        jobs.get().unwrap().task_done();
    });
}

/// Returns a queue in which this is under way.
fn start(
    work: impl FnOnce((JoinableQueue<u32>, Connection<(), ()>)) + 'static,
) -> (JoinableQueue<u32>, Connection<(), ()>, Process<()>) {
    let jobs = JoinableQueue::builder().max_attempts(u32::MAX).build().unwrap();
    let (ours, theirs) = duplex().unwrap();
    let worker = Process::spawn(work, (jobs.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    (jobs, ours, worker)
}

#[test]
fn unfinished_count_of_successive_tasks_is_never_zero() {
    let _dog = watchdog();
    let (jobs, ours, worker) = start(follow);
    for _ in 0..1000 {
        let unfinished = jobs.unfinished();
        assert!((1..=2).contains(&unfinished), "{unfinished}");
    }
    ours.send(()).unwrap();
    worker.join().unwrap();
    assert_eq!(jobs.unfinished(), 0);
}

#[test]
fn length_during_redelivery_is_never_zero() {
    let _dog = watchdog();
    let (jobs, ours, worker) = start(alternate);
    for _ in 0..1000 {
        let len = jobs.len();
        assert!((1..=2).contains(&len), "{len}");
    }
    ours.send(()).unwrap();
    worker.join().unwrap();
    assert_eq!(jobs.len(), 0);
}

#[test]
fn join_of_successive_tasks_waits_for_the_last() {
    let _dog = watchdog();
    for _ in 0..5 {
        let (jobs, ours, worker) = start(follow);
        thread::scope(|scope| {
            let joiners: Vec<_> = (0..2).map(|_| scope.spawn(|| jobs.join())).collect();
            for _ in 0..50 {
                assert!(jobs.join_timeout(Duration::from_millis(2)).is_err());
            }
            assert!(joiners.iter().all(|joiner| !joiner.is_finished()));
            ours.send(()).unwrap();
            worker.join().unwrap();
            joiners.into_iter().for_each(|joiner| joiner.join().unwrap().unwrap());
        });
    }
}

/// No process waits for a task, so none searches for dead workers while it waits.
#[test]
fn tasks_of_dead_workers_come_back_while_other_tasks_are_queued() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..3).unwrap();
    killed_with(&jobs, 3);
    jobs.put_many(100..110).unwrap();
    let start = Instant::now();
    let mut back = BTreeSet::new();
    let mut next = 110;
    while back.len() < 3 {
        let task = jobs.get().unwrap();
        if task.attempt() == 2 {
            back.insert(*task);
        }
        task.task_done();
        jobs.put(next).unwrap();
        next += 1;
    }
    assert!(start.elapsed() < RECOVERY);
    assert_eq!(back, BTreeSet::from([0, 1, 2]));
}

/// No process gets tasks any more: only the joiner can notice.
#[test]
fn joiner_puts_tasks_of_dead_workers_back() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().max_attempts(1).build().unwrap();
    jobs.put(1).unwrap();
    killed_with(&jobs, 1);
    jobs.join().unwrap();
    assert_eq!((jobs.unfinished(), jobs.dead_letters_len()), (0, 1));
}

/// One notification for each task that comes back, although they come back in one step.
#[test]
fn sleeping_workers_each_get_a_task_that_comes_back() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..3).unwrap();
    let tasks: Vec<_> = (0..3).map(|_| jobs.get().unwrap()).collect();
    let work = |jobs: JoinableQueue<u32>| {
        let task = jobs.get().unwrap();
        let seen = (*task, task.attempt());
        task.task_done();
        seen
    };
    let workers: Vec<_> = (0..3).map(|_| Process::spawn(work, jobs.clone()).unwrap()).collect();
    workers.iter().for_each(|worker| until(|| is_asleep(worker.pid())));
    drop(tasks);
    let seen: BTreeSet<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    assert_eq!(seen, BTreeSet::from([(0, 2), (1, 2), (2, 2)]));
    jobs.join().unwrap();
}

/// A number. 13 cannot be decoded.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Picky(u32);

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            13 => Err(serde::de::Error::custom("13 brings bad luck")),
            n => Ok(Self(n)),
        }
    }
}

/// Panics when it is decoded for the first time.
#[derive(Debug, Serialize)]
struct Nervous;

impl<'de> Deserialize<'de> for Nervous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        static WAS_READ: AtomicBool = AtomicBool::new(false);
        <()>::deserialize(deserializer)?;
        assert!(WAS_READ.swap(true, Ordering::Relaxed), "stage fright");
        Ok(Self)
    }
}

#[test]
fn task_whose_deserialize_panics_becomes_a_dead_letter() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put(Nervous).unwrap();
    let Err(GetError::Decode(error)) = jobs.get() else { panic!("it cannot be decoded") };
    assert!(error.reason().contains("stage fright"), "{error}");
    assert_eq!((jobs.unfinished(), jobs.len(), jobs.dead_letters_len()), (0, 0, 1));
    // The second time it succeeds.
    jobs.dead_letters().unwrap().pop().unwrap().put_again();
    jobs.get().unwrap().task_done();
    jobs.join().unwrap();
}

#[test]
fn task_that_does_not_decode_is_a_dead_letter() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put(Picky(13)).unwrap();
    jobs.put(Picky(14)).unwrap();
    assert!(matches!(jobs.get(), Err(GetError::Decode(_))));
    assert_eq!((jobs.unfinished(), jobs.dead_letters_len(), jobs.died()), (1, 1, 1));
    let task = jobs.get().unwrap();
    assert_eq!(*task, Picky(14));
    task.task_done();
    jobs.join().unwrap();
    let letter = jobs.dead_letters().unwrap().pop().unwrap();
    assert!(matches!(letter.reason(), DeathReason::Undecodable(_)), "{:?}", letter.reason());
    assert_eq!((letter.item(), letter.id(), letter.attempts()), (None, 0, 1));
    // Once more, it becomes a dead letter again.
    letter.put_again();
    assert_eq!(jobs.unfinished(), 1);
    jobs.get().unwrap_err();
    assert_eq!((jobs.unfinished(), jobs.died()), (0, 2));
    assert_eq!(jobs.dead_letters().unwrap().pop().unwrap().take(), None);
    assert_eq!(jobs.dead_letters_len(), 0);
}

#[test]
fn task_that_lost_its_descriptors_is_a_dead_letter() {
    let _dog = watchdog();
    let jobs: JoinableQueue<Descriptor> = JoinableQueue::unbounded().unwrap();
    let file = || Descriptor(File::open("/dev/null").unwrap().into());
    jobs.put(file()).unwrap();
    jobs.put(file()).unwrap();
    drop(jobs.get().unwrap());
    jobs.get().unwrap().task_done();
    jobs.join().unwrap();
    let letters = jobs.dead_letters().unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(*letters[0].reason(), DeathReason::DescriptorsLost);
    assert_eq!((letters[0].id(), jobs.redelivered()), (0, 0));
}

#[test]
fn dead_letters_survive_the_process_that_examines_them() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().max_attempts(1).build().unwrap();
    jobs.put_many(0..3u32).unwrap();
    (0..3).for_each(|_| drop(jobs.get().unwrap()));
    let look = |(jobs, parent): (JoinableQueue<u32>, Connection<(), ()>)| {
        let letters = jobs.dead_letters().unwrap();
        assert_eq!(letters.len(), 3);
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let (ours, theirs) = duplex().unwrap();
    let child = Process::spawn(look, (jobs.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    assert!(jobs.dead_letters().unwrap().is_empty());
    assert_eq!(jobs.dead_letters_len(), 3);
    child.kill().unwrap();
    child.wait();
    assert!(jobs.try_get().unwrap_err().is_empty(), "this call notices the death");
    let letters = jobs.dead_letters().unwrap();
    let items: Vec<_> = letters.into_iter().map(|letter| letter.take().unwrap()).collect();
    assert_eq!(items, [0, 1, 2]);
    assert_eq!((jobs.dead_letters_len(), jobs.died()), (0, 3));
}

/// Some threads detach tasks, others count them as done, and others hold tasks in the same process.
/// Each ends only its own.
#[test]
fn detached_tasks_are_completed_by_any_thread() {
    const EACH: u32 = 2_000;
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..4 * EACH).unwrap();
    let held = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..EACH).for_each(|_| _ = jobs.get().unwrap().detach()));
            scope.spawn(|| {
                for _ in 0..EACH {
                    until(|| jobs.task_done().is_ok());
                }
            });
            scope.spawn(|| {
                for _ in 0..EACH {
                    let task = jobs.get().unwrap();
                    let before = held.fetch_add(1, Ordering::SeqCst) + 1;
                    assert!(jobs.unfinished() >= before.min(1) as usize);
                    held.fetch_sub(1, Ordering::SeqCst);
                    task.task_done();
                }
            });
        }
    });
    assert_eq!((jobs.unfinished(), jobs.task_done()), (0, Err(TooManyTaskDone)));
    assert_eq!((jobs.redelivered(), jobs.len()), (0, 0));
}

#[test]
fn task_can_be_completed_after_the_shutdown() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put_many(0..4u32).unwrap();
    let (first, second) = (jobs.get().unwrap(), jobs.get().unwrap());
    let join = |jobs: JoinableQueue<u32>| jobs.join().unwrap();
    let joiner = Process::spawn(join, jobs.clone()).unwrap();
    until(|| is_asleep(joiner.pid()));
    jobs.shutdown(Shutdown::Now);
    // Tasks in progress are completed or put back, and the others are discarded.
    assert_eq!((jobs.len(), jobs.unfinished()), (0, 2));
    assert!(jobs.try_get().unwrap_err().is_closed());
    first.task_done();
    assert_eq!(jobs.unfinished(), 1);
    assert!(joiner.is_alive());
    drop(second);
    assert_eq!((jobs.len(), jobs.unfinished()), (0, 0));
    joiner.join().unwrap();
    assert!(jobs.get().unwrap_err().is_closed());
}

/// A drained queue ends with its last task, and not before: until then, that task may come back.
#[test]
fn drained_queue_ends_after_its_tasks_in_progress() {
    let _dog = watchdog();
    for is_done in [true, false] {
        let jobs = JoinableQueue::unbounded().unwrap();
        jobs.put(5u32).unwrap();
        let task = jobs.get().unwrap();
        jobs.shutdown(Shutdown::Drain);
        let work = |jobs: JoinableQueue<u32>| {
            let tasks = jobs.iter().map(|task| {
                let task = task.unwrap();
                let seen = (*task, task.attempt());
                task.task_done();
                seen
            });
            tasks.collect::<Vec<_>>()
        };
        let worker = Process::spawn(work, jobs.clone()).unwrap();
        until(|| is_asleep(worker.pid()));
        // Another thread of this process waits as well. This one would wait for itself.
        let waits = thread::scope(|scope| {
            let other = scope.spawn(|| jobs.get_timeout(Duration::from_millis(20)).map(|_| ()));
            other.join().unwrap()
        });
        assert!(waits.unwrap_err().is_timeout());
        assert!(jobs.get().unwrap_err().is_closed());
        if is_done {
            task.task_done();
        } else {
            task.put_back();
        }
        let seen = worker.join().unwrap();
        assert_eq!(seen, if is_done { vec![] } else { vec![(5, 2)] });
        jobs.join().unwrap();
    }
}

#[test]
fn get_with_all_slots_in_use_is_too_many_tasks() {
    const MOST: usize = 16_384;
    let _dog = watchdog();
    // With room for small tasks only.
    let jobs = JoinableQueue::builder().max_bytes(200).build().unwrap();
    let mut tasks = Vec::new();
    for n in 0..MOST {
        jobs.put(n).unwrap();
        tasks.push(jobs.get().unwrap());
    }
    jobs.put(MOST).unwrap();
    assert!(matches!(jobs.try_get(), Err(TryGetError::TooManyTasks)));
    assert!(matches!(jobs.get(), Err(GetError::TooManyTasks)));
    assert_eq!((jobs.len(), jobs.unfinished()), (1, MOST + 1));
    tasks.swap_remove(77).task_done();
    let task = jobs.get().unwrap();
    assert_eq!((*task, task.attempt()), (MOST, 1));
    task.task_done();
    // All others come back, in order.
    drop(tasks);
    assert_eq!((jobs.len(), jobs.unfinished()), (MOST - 1, MOST - 1));
    let task = jobs.get().unwrap();
    assert_eq!(task.attempt(), 2);
}

/// A worker had the maximum number of tasks, died or dropped them, and new ones are queued. The
/// returned tasks are due after the new ones, but occupy all the slots that those need.
#[test]
fn returned_tasks_are_delivered_while_no_slot_is_free() {
    const MOST: u32 = 16_384;
    for is_killed in [true, false] {
        let _dog = watchdog();
        let jobs = JoinableQueue::builder().max_bytes(200).build().unwrap();
        let take = |(jobs, is_killed): (JoinableQueue<u32>, bool)| {
            let put_and_get = |n| {
                jobs.put(n).unwrap();
                jobs.get().unwrap()
            };
            let tasks: Vec<_> = (0..MOST).map(put_and_get).collect();
            (MOST..MOST + 5).for_each(|n| jobs.put(n).unwrap());
            assert!(matches!(jobs.try_get(), Err(TryGetError::TooManyTasks)));
            if is_killed {
                std::process::abort();
            }
            drop(tasks);
        };
        let worker = Process::spawn(take, (jobs.clone(), is_killed)).unwrap();
        assert_eq!(worker.join().is_err(), is_killed);
        let joiner = Process::spawn(|jobs: JoinableQueue<u32>| jobs.join().unwrap(), jobs.clone());
        let get = |n: usize| match n % 3 {
            0 => jobs.try_get().unwrap(),
            1 => jobs.get_timeout(Duration::from_secs(3600)).unwrap(),
            _ => jobs.get().unwrap(),
        };
        // While they are held, more tasks come back, and no new one is taken.
        let held: Vec<_> = (0..MOST as usize).map(get).collect();
        assert!(held.iter().all(|task| task.attempt() == 2));
        assert!(matches!(jobs.get(), Err(GetError::TooManyTasks)));
        drop(held);
        let mut done = BTreeSet::new();
        for n in 0..(MOST + 5) as usize {
            let task = get(n);
            assert_eq!(task.attempt(), if *task < MOST { 3 } else { 1 });
            assert!(done.insert(*task));
            task.task_done();
        }
        joiner.unwrap().join().unwrap();
        assert_eq!((jobs.unfinished(), jobs.dead_letters_len()), (0, 0));
    }
}

/// An item with a file needs a slot. The task that is taken instead has none of its descriptors.
#[test]
fn task_taken_instead_of_an_item_has_none_of_its_descriptors() {
    const MOST: u32 = 16_384;
    alone(|()| {
        let jobs: JoinableQueue<(u32, Option<Descriptor>)> =
            JoinableQueue::builder().max_bytes(200).build().unwrap();
        let file = || Some(Descriptor(File::open("/dev/null").unwrap().into()));
        let put_and_get = |n| {
            jobs.put((n, None)).unwrap();
            jobs.get().unwrap()
        };
        let mut tasks: Vec<_> = (0..MOST).map(put_and_get).collect();
        jobs.put((MOST, file())).unwrap();
        drop(tasks.pop());
        let before = Census::take();
        let task = jobs.get().unwrap();
        assert!(task.0 == MOST - 1 && task.1.is_none());
        assert_eq!(Census::take(), before);
        task.task_done();
        let task = jobs.get().unwrap();
        assert!(task.0 == MOST && task.1.is_some());
    });
}

/// Returns the number of 512-byte blocks of memory that a queue uses.
fn blocks<T>(jobs: &JoinableQueue<T>) -> u64 {
    let name = jobs.name().unwrap();
    let fds = fs::read_dir("/proc/self/fd").unwrap();
    let is_it = |path: &std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains(name))
    };
    let path = fds.map(|entry| entry.unwrap().path()).find(is_it).unwrap();
    fs::metadata(path).unwrap().blocks()
}

#[test]
fn long_task_does_not_keep_the_memory_of_others() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().name("long beside short").build().unwrap();
    jobs.put(Bytes(vec![1; 3000])).unwrap();
    let long = jobs.get().unwrap();
    let round = || {
        jobs.put_many((0..1000).map(|n: u32| Bytes(n.to_le_bytes().repeat(100)))).unwrap();
        (0..1000).for_each(|_| jobs.get().unwrap().task_done());
    };
    round();
    let before = blocks(&jobs);
    (0..100).for_each(|_| round());
    // Twenty times as much went through in total.
    let after = blocks(&jobs);
    assert!(after <= before + 2 * 2048, "{before} blocks became {after}");
    assert!(*long == Bytes(vec![1; 3000]));
    long.task_done();
}

#[test]
fn memory_of_large_tasks_is_released() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().name("large ones").build().unwrap();
    let large = || Bytes(vec![7; 1 << 20]);
    // A task that stays, in the first slot.
    jobs.put(large()).unwrap();
    let stays = jobs.get().unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            jobs.put(large()).unwrap();
            jobs.get().unwrap()
        })
        .collect();
    assert!(blocks(&jobs) > 64 * 2048);
    tasks.into_iter().for_each(multiproc_queue::Task::task_done);
    until(|| {
        assert!(jobs.try_get().unwrap_err().is_empty());
        blocks(&jobs) < 8 * 2048
    });
    assert!(*stays == large(), "a task in work keeps its memory");
}

#[test]
fn result_that_is_not_put_leaves_the_task_unfinished() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put(6u32).unwrap();
    let results: Queue<(u64, u32)> = Queue::unbounded().unwrap();
    results.shutdown(Shutdown::Drain);
    let task = jobs.get().unwrap();
    let id = task.id();
    let failed = task.finish_with(&results, (id, 36)).unwrap_err();
    assert!(failed.error.is_closed());
    assert_eq!((*failed.task, jobs.unfinished()), (6, 1));
    drop(failed);
    let results = Queue::unbounded().unwrap();
    let task = jobs.get().unwrap();
    assert_eq!((task.attempt(), task.id()), (2, id));
    task.finish_with(&results, (id, 36)).unwrap();
    assert_eq!((results.get().unwrap(), jobs.unfinished()), ((id, 36), 0));
}

#[test]
fn joinable_queue_sent_to_a_process_keeps_its_kind() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().max_attempts(7).capacity(9).name("far").build().unwrap();
    jobs.put(1u32).unwrap();
    let (left, right) = duplex::<JoinableQueue<u32>, ()>().unwrap();
    left.send(jobs.clone()).unwrap();
    left.send(jobs.clone()).unwrap();
    let right = right.retype::<(), JoinableQueue<u32>>();
    let there = right.recv().unwrap();
    assert!(there.is_same(&jobs) && there.max_attempts() == 7 && there.capacity() == Some(9));
    assert_eq!(*there.get().unwrap(), 1);
    let error = right.retype::<(), Queue<u32>>().recv().unwrap_err();
    assert!(error.to_string().contains("another kind"), "{error}");
    // Within a queue as well.
    let queues = Queue::bounded(1).unwrap();
    queues.put(jobs.clone()).unwrap();
    assert!(queues.get().unwrap().is_same(&jobs));
}

#[test]
fn wait_reports_a_task_that_comes_back() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put(1u32).unwrap();
    let moment = Some(Duration::from_millis(1));
    assert_eq!(wait([&jobs], None).unwrap(), [0]);
    let task = jobs.get().unwrap();
    assert!(wait([&jobs], moment).unwrap().is_empty());
    // Put back by a live process,
    let await_it = |jobs: JoinableQueue<u32>| {
        wait([&jobs], None).unwrap();
        let task = jobs.try_get().unwrap();
        let attempt = task.attempt();
        task.put_back();
        attempt
    };
    let waiter = Process::spawn(await_it, jobs.clone()).unwrap();
    until(|| is_asleep(waiter.pid()));
    drop(task);
    assert_eq!(waiter.join().unwrap(), 2);
    // and by one that is killed,
    killed_with(&jobs, 1);
    let start = Instant::now();
    assert_eq!(wait([&jobs], None).unwrap(), [0]);
    assert!(start.elapsed() < RECOVERY);
    // also when no task can be put any more.
    jobs.shutdown(Shutdown::Drain);
    killed_with(&jobs, 1);
    let start = Instant::now();
    assert_eq!(wait([&jobs], None).unwrap(), [0]);
    assert!(start.elapsed() < RECOVERY);
    let task = jobs.get().unwrap();
    assert_eq!(task.attempt(), 5);
    task.task_done();
    assert_eq!(wait([&jobs], None).unwrap(), [0], "an ended queue is ready");
    assert!(jobs.get().unwrap_err().is_closed());
}

#[test]
fn tasks_that_come_back_take_no_capacity() {
    let jobs = JoinableQueue::bounded(2).unwrap();
    jobs.put(0).unwrap();
    let task = jobs.get().unwrap();
    jobs.put(1).unwrap();
    drop(task);
    assert_eq!((jobs.len(), jobs.is_full()), (2, false));
    jobs.try_put(2).unwrap();
    assert_eq!((jobs.len(), jobs.is_full()), (3, true));
    assert!(jobs.try_put(3).unwrap_err().is_full());
}

#[test]
fn tasks_leak_nothing() {
    alone(|()| {
        let round = || {
            let jobs = JoinableQueue::unbounded().unwrap();
            jobs.put_many(0..10u32).unwrap();
            killed_with(&jobs, 2);
            let (_held, _detached) = (jobs.get().unwrap(), jobs.get().unwrap().detach());
            let (_item, _receipt) = jobs.get().unwrap().into_parts();
            drop(jobs.dead_letters().unwrap());
        };
        round();
        let before = Census::take();
        (0..20).for_each(|_| round());
        assert_eq!(Census::take(), before);
    });
}

/// A simple model of a joinable queue.
#[derive(Default)]
struct Model {
    produced: u64,
    consumed: u64,
    items: VecDeque<(u64, u32)>,
    /// (due, id, item, attempt)
    ready: BTreeSet<(u64, u64, u32, u32)>,
    detached: usize,
    /// The number of detached tasks that are counted as done.
    counted: usize,
    /// (id, item, attempts)
    dead: BTreeSet<(u64, u32, u32)>,
}

const MAX_ATTEMPTS: u32 = 3;
const CAPACITY: usize = 6;

impl Model {
    fn get(&mut self) -> Option<(u64, u32, u32)> {
        let first = self.ready.first().copied();
        let is_due = first.is_some_and(|(due, ..)| due <= self.consumed);
        if !is_due && let Some((id, item)) = self.items.pop_front() {
            self.consumed += 1;
            return Some((id, item, 1));
        }
        let (_, id, item, attempt) = self.ready.pop_first()?;
        Some((id, item, attempt))
    }

    fn put_back(&mut self, (id, item, attempt): (u64, u32, u32)) {
        if attempt == MAX_ATTEMPTS {
            self.dead.insert((id, item, attempt));
        } else {
            self.ready.insert((self.produced, id, item, attempt + 1));
        }
    }

    fn task_done(&mut self) -> bool {
        if self.detached == 0 {
            return false;
        }
        self.counted += 1;
        if self.counted == self.detached {
            (self.detached, self.counted) = (0, 0);
        }
        true
    }
}

/// Makes random calls, on the queue and on the model.
#[test]
fn random_calls_match_the_model() {
    let _dog = watchdog();
    let seed =
        env::var("MULTIPROC_SEED").map_or_else(|_| fastrand::u64(..), |n| n.parse().unwrap());
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let soak = env::var("MULTIPROC_SOAK_SECONDS").is_ok();
    for _ in 0..if soak { 20_000 } else { 500 } {
        random_calls(&mut random);
    }
}

fn random_calls(random: &mut fastrand::Rng) {
    let jobs =
        JoinableQueue::builder().capacity(CAPACITY).max_attempts(MAX_ATTEMPTS).build().unwrap();
    let clone = jobs.clone();
    let mut model = Model::default();
    let mut held = Vec::new();
    let mut receipts = Vec::new();
    for n in 0..80 {
        let jobs = if random.bool() { &jobs } else { &clone };
        match random.usize(..10) {
            0..3 => match jobs.try_put(n) {
                Ok(()) => {
                    assert!(model.items.len() < CAPACITY);
                    model.items.push_back((model.produced, n));
                    model.produced += 1;
                }
                Err(error) => assert!(error.is_full() && model.items.len() == CAPACITY),
            },
            3..6 => match jobs.try_get() {
                Ok(task) => {
                    let seen = (task.id(), *task, task.attempt());
                    assert_eq!(Some(seen), model.get());
                    held.push(task);
                }
                Err(error) => assert!(error.is_empty() && model.get().is_none()),
            },
            6 if !held.is_empty() => held.swap_remove(random.usize(..held.len())).task_done(),
            7 if !held.is_empty() => {
                let task = held.swap_remove(random.usize(..held.len()));
                model.put_back((task.id(), *task, task.attempt()));
                drop(task);
            }
            8 if !held.is_empty() && random.bool() => {
                let task = held.swap_remove(random.usize(..held.len()));
                if random.bool() {
                    model.detached += 1;
                    let _ = task.detach();
                } else {
                    receipts.push(task.into_parts());
                }
            }
            8 if !receipts.is_empty() && random.bool() => {
                let (item, receipt) = receipts.swap_remove(random.usize(..receipts.len()));
                if random.bool() {
                    receipt.task_done();
                } else {
                    model.put_back((receipt.id(), item, receipt.attempt()));
                    drop(receipt);
                }
            }
            8 => assert_eq!(jobs.task_done().is_ok(), model.task_done()),
            _ => {
                let letters = jobs.dead_letters().unwrap();
                let seen: Vec<_> =
                    letters.iter().map(|l| (l.id(), *l.item().unwrap(), l.attempts())).collect();
                assert_eq!(seen, model.dead.iter().copied().collect::<Vec<_>>());
                for letter in letters {
                    let key = (letter.id(), *letter.item().unwrap(), letter.attempts());
                    match random.usize(..3) {
                        0 => drop(letter),
                        1 => {
                            model.dead.remove(&key);
                            assert_eq!(letter.take(), Some(key.1));
                        }
                        _ => {
                            model.dead.remove(&key);
                            model.ready.insert((model.produced, key.0, key.1, 1));
                            letter.put_again();
                        }
                    }
                }
            }
        }
        let waiting = model.items.len() + model.ready.len();
        assert_eq!(jobs.len(), waiting);
        assert_eq!(jobs.is_full(), model.items.len() == CAPACITY);
        let in_progress = held.len() + receipts.len() + model.detached;
        assert_eq!(jobs.unfinished(), waiting + in_progress);
        assert_eq!(jobs.dead_letters_len(), model.dead.len());
    }
}

/// Returns the shared memory of a queue as a file. A hostile process can write to it.
fn memory<T>(queue: &JoinableQueue<T>) -> File {
    let (left, right) = duplex::<JoinableQueue<T>, ()>().unwrap();
    left.send(queue.clone()).unwrap();
    type End = Option<Descriptor>;
    type Wire = (Descriptor, End, End, End, Option<String>);
    File::from(right.retype::<(), Wire>().recv().unwrap().0)
}

/// The offsets of the control block of tasks and, in a small queue, of their slots.
const CONTROL: u64 = 128 + 1024;
const SLOTS: u64 = 12_288 + 256 * 1024;
const SLOT: u64 = 64;

#[test]
fn overwritten_slots_cause_errors_only() {
    let _dog = watchdog();
    let seed =
        env::var("MULTIPROC_SEED").map_or_else(|_| fastrand::u64(..), |n| n.parse().unwrap());
    eprintln!("seed {seed}");
    let child = Process::spawn(
        |seed: u64| {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..if env::var("MULTIPROC_SOAK_SECONDS").is_ok() { 1000 } else { 50 } {
                scribble(&mut random);
            }
        },
        seed,
    );
    child.unwrap().join().unwrap();
}

fn scribble(random: &mut fastrand::Rng) {
    let jobs = JoinableQueue::builder().max_bytes(128 << 10).max_attempts(2).build().unwrap();
    let memory = memory(&jobs);
    for n in 0..4 {
        jobs.put(Bytes(vec![n; 40])).unwrap();
    }
    let mut tasks: Vec<_> = (0..3).map(|_| jobs.get().unwrap()).collect();
    drop(tasks.pop());
    tasks.pop().unwrap().put_back();
    jobs.try_get().unwrap().put_back();
    let mut receipts = Vec::new();
    for _ in 0..10 {
        let (mut bytes, len) = ([0; 8], random.usize(1..=8));
        random.fill(&mut bytes[..len]);
        let at = match random.usize(..4) {
            0 => CONTROL + random.u64(..120),
            // Mostly a state.
            1 | 2 => SLOTS + random.u64(..4) * SLOT + random.u64(..2) * 4,
            _ => SLOTS + random.u64(..4 * SLOT),
        };
        memory.write_all_at(&bytes[..len], at).unwrap();
        let moment = Duration::from_millis(u64::from(random.u8(..8) == 0));
        let long = random.usize(..10) * 10_000;
        let _ = jobs.put_timeout(Bytes(vec![1; 40 + long]), moment);
        for _ in 0..2 {
            match jobs.get_timeout(moment) {
                Ok(task) if random.bool() => task.task_done(),
                Ok(task) if random.bool() => _ = task.detach(),
                Ok(task) if random.bool() => receipts.push(task.into_parts().1),
                Ok(task) if random.bool() => tasks.push(task),
                _ => {}
            }
        }
        let _ = (jobs.join_timeout(moment), jobs.task_done(), wait([&jobs], Some(moment)));
        if random.bool() {
            receipts.pop().into_iter().for_each(multiproc_queue::Receipt::task_done);
        }
        let _ = (jobs.len(), jobs.unfinished(), jobs.dead_letters_len(), jobs.redelivered());
        match jobs.dead_letters() {
            Ok(letters) => letters.into_iter().for_each(|letter| {
                if random.bool() { letter.put_again() } else { drop(letter.take()) }
            }),
            Err(error) => assert!(matches!(error, GetError::Corrupted(_)), "{error}"),
        }
    }
}
