//! Kills processes at every named point of a task's life. Run by `cargo xtask faults`, which
//! compiles the points in.
#![cfg(multiproc_faults)]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::pipe::{Connection, Descriptor, duplex};
use multiproc::{JoinError, Process};
use multiproc_queue::{
    DeathReason, FINISH_POINTS, GET_POINTS, JoinableQueue, Queue, TASK_POINTS, TryGetError,
};
use multiproc_testkit::{die_at, is_asleep, until, watchdog};

multiproc::enable_in_tests!();

const KILLED: JoinError = JoinError::Signaled(9, false);

/// The guaranteed bound on recovery.
const RECOVERY: Duration = Duration::from_secs(1);

/// A number, and optionally a file.
type Item = (u32, Option<Descriptor>);

fn item(n: u32, has_file: bool) -> Item {
    (n, has_file.then(|| Descriptor(File::open("/dev/null").unwrap().into())))
}

fn within_recovery<R>(action: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = action();
    assert!(start.elapsed() < RECOVERY, "it took {:?}", start.elapsed());
    result
}

/// Runs a process that takes tasks, completes each or puts each back, and dies at the `visit`th
/// visit of `point`.
fn doomed_worker(jobs: &JoinableQueue<Item>, point: &str, visit: u32, puts_back: bool) {
    type Args = (JoinableQueue<Item>, String, u32, bool);
    let work = |(jobs, point, visit, puts_back): Args| -> () {
        die_at(&point, visit);
        loop {
            let task = jobs.get_timeout(Duration::from_secs(5)).unwrap();
            if puts_back { task.put_back() } else { task.task_done() }
        }
    };
    let args = (jobs.clone(), point.to_owned(), visit, puts_back);
    let child = Process::spawn(work, args).unwrap();
    assert_eq!(child.join().unwrap_err(), KILLED, "{point} was not reached");
}

/// Runs a process that is killed while it holds one task.
fn killed_with_a_task(jobs: &JoinableQueue<Item>) {
    let take = |(jobs, parent): (JoinableQueue<Item>, Connection<(), ()>)| {
        let _task = jobs.get().unwrap();
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let (ours, theirs) = duplex().unwrap();
    let child = Process::spawn(take, (jobs.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    child.kill().unwrap();
    child.wait();
}

/// Completes the remaining tasks until a joiner returns. Returns each item and its attempt.
fn do_the_rest(jobs: &JoinableQueue<Item>, has_file: bool) -> BTreeMap<u32, u32> {
    thread::scope(|scope| {
        let joiner = scope.spawn(|| jobs.join().unwrap());
        let mut done = BTreeMap::new();
        within_recovery(|| {
            while !joiner.is_finished() {
                let Ok(task) = jobs.get_timeout(Duration::from_millis(10)) else { continue };
                assert_eq!(task.1.is_some(), has_file);
                assert!(done.insert(task.0, task.attempt()).is_none(), "{} came twice", task.0);
                task.task_done();
            }
        });
        assert_eq!(jobs.unfinished(), 0);
        assert!(jobs.try_get().unwrap_err().is_empty());
        done
    })
}

/// Returns whether a worker that dies at `point` has taken its task, and whether it has completed
/// it.
fn has(point: &str) -> (bool, bool) {
    let is_done = point == "task.done";
    let is_taken = ["get.committed", "get.unlocked", "get.removed", "task.doing"].contains(&point);
    (is_taken || is_done, is_done)
}

const TAKING: &[&str] = &["task.taken", "task.filled", "task.numbered", "task.doing", "task.done"];

/// The worker dies at the second of three tasks that are delivered for the first time.
#[test]
fn faults_kill_at_each_point_of_a_first_delivery_loses_no_task() {
    for has_file in [false, true] {
        for &point in GET_POINTS.iter().chain(TAKING).chain(has_file.then_some(&"get.removed")) {
            let _dog = watchdog();
            let jobs = JoinableQueue::bounded(4).unwrap();
            (0..3).for_each(|n| jobs.put(item(n, has_file)).unwrap());
            doomed_worker(&jobs, point, 2, false);
            let (was_taken, was_done) = has(point);
            assert_eq!(jobs.unfinished(), if was_done { 1 } else { 2 }, "{point}");
            assert_eq!(jobs.len(), if was_taken { 1 } else { 2 }, "{point}");
            // Its files are lost with the worker.
            let is_dead = has_file && was_taken && !was_done;
            let attempt = if was_taken { 2 } else { 1 };
            let mut expected = BTreeMap::from([(2, 1)]);
            if !was_done && !is_dead {
                expected.insert(1, attempt);
            }
            assert_eq!(do_the_rest(&jobs, has_file), expected, "{point}");
            let letters = jobs.dead_letters().unwrap();
            assert_eq!(letters.len(), usize::from(is_dead), "{point}");
            if let Some(letter) = letters.first() {
                assert_eq!((letter.id(), letter.attempts()), (1, 1));
                assert_eq!(*letter.reason(), DeathReason::DescriptorsLost);
                assert!(letter.item().is_none());
            }
        }
    }
}

/// The same for three redelivered tasks.
#[test]
fn faults_kill_at_each_point_of_a_redelivery_loses_no_task() {
    for point in ["task.seized", "task.doing", "task.done"] {
        let _dog = watchdog();
        let jobs = JoinableQueue::bounded(4).unwrap();
        (0..3).for_each(|n| jobs.put(item(n, false)).unwrap());
        let tasks: Vec<_> = (0..3).map(|_| jobs.get().unwrap()).collect();
        drop(tasks);
        assert_eq!((jobs.len(), jobs.unfinished()), (3, 3));
        doomed_worker(&jobs, point, 2, false);
        let was_done = point == "task.done";
        assert_eq!(jobs.unfinished(), if was_done { 1 } else { 2 }, "{point}");
        let mut expected = BTreeMap::from([(2, 2)]);
        if !was_done {
            expected.insert(1, 3);
        }
        assert_eq!(do_the_rest(&jobs, false), expected, "{point}");
    }
}

/// One worker dies while it puts a task back. Another dies while it puts back the task of a killed
/// worker: the hint that a task is ready is lost, but the task is not.
#[test]
fn faults_kill_while_a_task_is_put_back_loses_no_task() {
    for has_file in [false, true] {
        let _dog = watchdog();
        let jobs = JoinableQueue::bounded(4).unwrap();
        // From here on, this handle knows that the queue is empty.
        assert!(jobs.try_get().unwrap_err().is_empty());
        for point in ["task.returning", "task.given_up"] {
            if has_file && point == "task.returning" {
                continue;
            }
            jobs.put(item(0, has_file)).unwrap();
            doomed_worker(&jobs, point, 1, true);
            assert_eq!(jobs.unfinished(), usize::from(!has_file), "{point}");
            let expected: &[_] = if has_file { &[] } else { &[(0, 2)] };
            let done = do_the_rest(&jobs, has_file);
            assert_eq!(done, expected.iter().copied().collect(), "{point}");
            assert_eq!(jobs.dead_letters_len(), usize::from(has_file), "{point}");
        }

        for point in ["task.reclaiming", "task.returning", "task.given_up", "task.seized"] {
            // Tasks with files become dead letters at once.
            if has_file && ["task.returning", "task.seized"].contains(&point) {
                continue;
            }
            let jobs = JoinableQueue::bounded(4).unwrap();
            jobs.put(item(0, has_file)).unwrap();
            killed_with_a_task(&jobs);
            doomed_worker(&jobs, point, 1, false);
            let attempt = if point == "task.seized" { 3 } else { 2 };
            let expected: &[_] = if has_file { &[] } else { &[(0, attempt)] };
            assert_eq!(do_the_rest(&jobs, has_file), expected.iter().copied().collect(), "{point}");
            assert_eq!(jobs.dead_letters_len(), usize::from(has_file), "{point}");
        }
    }
}

/// A joiner sleeps while a worker dies at each point and another one completes the rest.
#[test]
fn faults_joiner_survives_killed_workers() {
    for &point in GET_POINTS.iter().chain(TAKING).chain(&["event_count.about_to_wake"]) {
        let _dog = watchdog();
        let jobs = JoinableQueue::bounded(4).unwrap();
        jobs.put(item(0, false)).unwrap();
        let join = |jobs: JoinableQueue<Item>| jobs.join().unwrap();
        let joiner = Process::spawn(join, jobs.clone()).unwrap();
        until(|| is_asleep(joiner.pid()));
        doomed_worker(&jobs, point, 1, false);
        do_the_rest(&jobs, false);
        within_recovery(|| joiner.join().unwrap());
    }
}

/// A process dies while it inspects a dead letter. The dead letter remains.
#[test]
fn faults_dead_letter_held_by_a_killed_process_remains() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().max_attempts(1).build().unwrap();
    jobs.put(item(7, false)).unwrap();
    drop(jobs.get().unwrap());
    let look = |jobs: JoinableQueue<Item>| {
        die_at("task.seized", 1);
        let _ = jobs.dead_letters();
    };
    let child = Process::spawn(look, jobs.clone()).unwrap();
    assert_eq!(child.join().unwrap_err(), KILLED);
    let letters = within_recovery(|| {
        loop {
            // Any process that waits for a task notices the death.
            let _ = jobs.try_get();
            let letters = jobs.dead_letters().unwrap();
            if !letters.is_empty() {
                break letters;
            }
        }
    });
    assert_eq!(letters[0].item().map(|item| item.0), Some(7));
}

/// A process dies while it puts a dead letter again. The task becomes ready, and another process's
/// join waits for it.
#[test]
fn faults_dead_letter_put_again_by_a_killed_process_becomes_a_task() {
    for point in ["task.returning", "task.given_up"] {
        let _dog = watchdog();
        let jobs = JoinableQueue::builder().max_attempts(1).build().unwrap();
        jobs.put(item(7, false)).unwrap();
        drop(jobs.get().unwrap());
        let put_again = |(jobs, point): (JoinableQueue<Item>, String)| {
            let letter = jobs.dead_letters().unwrap().pop().unwrap();
            die_at(&point, 1);
            letter.put_again();
        };
        let child = Process::spawn(put_again, (jobs.clone(), point.to_owned())).unwrap();
        assert_eq!(child.join().unwrap_err(), KILLED);
        assert_eq!((jobs.unfinished(), jobs.dead_letters_len()), (1, 0), "{point}");
        assert_eq!(do_the_rest(&jobs, false), BTreeMap::from([(7, 1)]), "{point}");
    }
}

/// There is no memory for a task: `get` returns an error, and the task stays in the queue.
#[test]
fn faults_get_without_memory_keeps_the_task_queued() {
    let _dog = watchdog();
    let jobs = JoinableQueue::bounded(4).unwrap();
    jobs.put(item(1, false)).unwrap();
    multiproc_shm::failpoint::refuse("task.reserve", true);
    assert!(matches!(jobs.try_get(), Err(TryGetError::OutOfMemory)));
    multiproc_shm::failpoint::refuse("task.reserve", false);
    assert_eq!((jobs.len(), jobs.unfinished()), (1, 1));
    let task = jobs.get().unwrap();
    assert_eq!((task.0, task.attempt()), (1, 1));
    task.task_done();
    jobs.join().unwrap();
}

/// The list contains exactly the points that the code has, in any order.
#[test]
fn faults_list_of_task_points_matches_the_code() {
    let _dog = watchdog();
    let jobs = JoinableQueue::bounded(4).unwrap();
    jobs.put(item(1, false)).unwrap();
    killed_with_a_task(&jobs);
    drop(jobs.get().unwrap());
    jobs.get().unwrap().task_done();
    jobs.put(item(1, false)).unwrap();
    jobs.get().unwrap().task_done();
    let reached: BTreeSet<_> = multiproc_shm::failpoint::seen()
        .into_iter()
        .filter(|point| point.starts_with("task."))
        .collect();
    assert_eq!(reached, TASK_POINTS.iter().copied().collect());
}

/// A worker is killed at each point of finishing a task together with a put: either both children
/// are there and the task is done, or neither and it is delivered again. Another process puts
/// before and after the tasks of the dead worker are reclaimed.
#[test]
fn faults_kill_while_finishing_with_children_does_both_or_neither() {
    for &point in FINISH_POINTS.iter().chain(&["put.half_written"]) {
        for puts_first in [false, true] {
            let _dog = watchdog();
            let jobs: JoinableQueue<u32> = JoinableQueue::bounded(8).unwrap();
            jobs.put(1).unwrap();
            let work = |(jobs, point): (JoinableQueue<u32>, String)| {
                let task = jobs.get().unwrap();
                die_at(&point, 1);
                task.finish_and_put([10, 11]).unwrap();
            };
            let child = Process::spawn(work, (jobs.clone(), point.to_owned())).unwrap();
            assert_eq!(child.join().unwrap_err(), KILLED, "{point}");
            assert!(jobs.unfinished() > 0, "{point}");
            if puts_first {
                jobs.put_many([20, 21, 22]).unwrap();
            }
            let mut done = BTreeMap::new();
            within_recovery(|| {
                while let Ok(task) = jobs.get_timeout(Duration::from_millis(600)) {
                    let (item, attempt) = (*task, task.attempt());
                    assert!(done.insert(item, attempt).is_none(), "{item} came twice, {point}");
                    if item == 20 {
                        // The successor finishes as well.
                        task.finish_and_put([30]).unwrap();
                    } else {
                        task.task_done();
                    }
                    if done.len() == if puts_first { 6 } else { 2 } {
                        break;
                    }
                    if done.len() == if puts_first { 5 } else { 1 } && done.contains_key(&1) {
                        break;
                    }
                }
            });
            let was_finished =
                ["finish.committed", "finish.freed", "finish.unlocked"].contains(&point);
            let mut expected = BTreeMap::new();
            if puts_first {
                expected.extend([(20, 1), (21, 1), (22, 1), (30, 1)]);
            }
            expected.extend(if was_finished { vec![(10, 1), (11, 1)] } else { vec![(1, 2)] });
            assert_eq!(done, expected, "{point}, puts first: {puts_first}");
            within_recovery(|| jobs.join().unwrap());
            assert!(jobs.try_get().unwrap_err().is_empty(), "{point}");
            assert_eq!((jobs.unfinished(), jobs.died()), (0, 0), "{point}");
        }
    }
}

/// The list contains exactly the points that the code has, in order. (`finish.settling` is reached
/// only after a death.)
#[test]
fn faults_list_of_finish_points_matches_the_code() {
    let jobs: JoinableQueue<u32> = JoinableQueue::bounded(8).unwrap();
    jobs.put(1).unwrap();
    jobs.get().unwrap().finish_and_put([2]).unwrap();
    let reached: BTreeSet<_> = multiproc_shm::failpoint::seen()
        .into_iter()
        .filter(|point| point.starts_with("finish.") && *point != "finish.settling")
        .collect();
    assert_eq!(reached, FINISH_POINTS.iter().copied().collect());
}

/// Four workers are killed at random points and replaced while tasks flow, for one second or for
/// the duration from the environment. Each task is done, and a task that is done more than once was
/// delivered more than once.
#[test]
fn faults_soak_with_random_kills_completes_all_tasks() {
    let seconds = env::var("MULTIPROC_SOAK_SECONDS").map_or(1, |text| text.parse().unwrap());
    let seed =
        env::var("MULTIPROC_SEED").map_or_else(|_| fastrand::u64(..), |n| n.parse().unwrap());
    eprintln!("seed {seed}, for {seconds} s");
    let mut random = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        random_kills(&mut random);
        if Instant::now() >= end {
            break;
        }
    }
}

fn random_kills(random: &mut fastrand::Rng) {
    const TASKS: u32 = 20_000;
    // One watchdog per round, so that a long soak does not trigger it.
    let _dog = watchdog();
    let jobs: JoinableQueue<u32> =
        JoinableQueue::builder().capacity(64).max_attempts(1000).build().unwrap();
    let results: Queue<(u32, u32)> = Queue::unbounded().unwrap();
    type Args = (JoinableQueue<u32>, Queue<(u32, u32)>, String, u32);
    let work = |(jobs, results, point, visit): Args| -> () {
        die_at(&point, visit);
        loop {
            let task = jobs.get().unwrap();
            let attempt = task.attempt();
            if attempt == 1 && *task % 64 == 0 {
                task.put_back();
            } else {
                let n = *task;
                task.finish_with(&results, (n, attempt)).unwrap();
            }
        }
    };
    let points: Vec<_> = TASK_POINTS.iter().chain(GET_POINTS).copied().collect();
    let start_worker = |random: &mut fastrand::Rng| {
        let point = points[random.usize(..points.len())].to_owned();
        // Some tasks are put back without a crash.
        let seldom = ["task.reclaiming", "task.returning", "task.given_up", "task.seized"];
        let is_seldom = seldom.contains(&&*point);
        let visit = random.u32(1..if is_seldom { 5 } else { 500 });
        let args = (jobs.clone(), results.clone(), point, visit);
        Process::spawn(work, args).unwrap()
    };
    let mut workers: Vec<_> = (0..4).map(|_| start_worker(random)).collect();
    let put = |jobs: JoinableQueue<u32>| (0..TASKS).for_each(|n| jobs.put(n).unwrap());
    let producer = Process::spawn(put, jobs.clone()).unwrap();
    let join = |jobs: JoinableQueue<u32>| jobs.join().unwrap();
    let mut joiner = None;
    let mut deaths = 0;
    loop {
        for worker in &mut workers {
            if !worker.is_alive() {
                assert_eq!(worker.exit_status().unwrap().signal(), Some(9));
                deaths += 1;
                *worker = start_worker(random);
            }
        }
        match &joiner {
            None if !producer.is_alive() => {
                joiner = Some(Process::spawn(join, jobs.clone()).unwrap())
            }
            Some(joiner) if !joiner.is_alive() => break,
            _ => thread::sleep(Duration::from_millis(2)),
        }
    }
    producer.join().unwrap();
    joiner.unwrap().join().unwrap();
    assert_eq!((jobs.unfinished(), jobs.len(), jobs.died()), (0, 0, 0));
    workers.iter().for_each(|worker| worker.kill().unwrap());
    workers.iter().for_each(|worker| _ = worker.wait());
    let mut attempts: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    while let Ok((n, attempt)) = results.try_get() {
        attempts.entry(n).or_default().push(attempt);
    }
    eprintln!("{deaths} deaths, {} delivered again", jobs.redelivered());
    assert!(deaths > 10, "only {deaths} workers were killed");
    assert_eq!(attempts.len(), TASKS as usize, "each task is done");
    for (n, attempts) in attempts {
        let different: BTreeSet<_> = attempts.iter().collect();
        assert_eq!(
            different.len(),
            attempts.len(),
            "{n} was done twice in one attempt: {attempts:?}"
        );
    }
}
