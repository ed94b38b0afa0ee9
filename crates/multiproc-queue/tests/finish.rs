//! The ways to end a task together with a put, batches with a limit, and what dead letters report.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Source, wait};
use multiproc_queue::{DeathReason, FinishError, JoinableQueue, NotFinished, Queue, WorkerEnd};
use multiproc_testkit::{until, watchdog};

multiproc::enable_in_tests!();

/// The guaranteed bound.
const RECOVERY: Duration = Duration::from_secs(1);

#[test]
fn item_of_a_task_that_was_taken_out_is_done() {
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put("a".to_owned()).unwrap();
    assert_eq!(jobs.get().unwrap().into_inner(), "a");
    assert_eq!((jobs.unfinished(), jobs.redelivered()), (0, 0));
    assert!(jobs.try_get().unwrap_err().is_empty());
}

#[test]
fn task_with_many_results_is_done_after_all_of_them() {
    let (jobs, results) = (JoinableQueue::unbounded().unwrap(), Queue::bounded(1000).unwrap());
    jobs.put(300).unwrap();
    let task = jobs.get().unwrap();
    let n = *task;
    task.finish_with_many(&results, 0..n).unwrap();
    assert_eq!((results.len(), jobs.unfinished()), (300, 0));
    jobs.put(1).unwrap();
    results.close();
    let error = jobs.get().unwrap().finish_with_many(&results, [7, 8]).unwrap_err();
    assert!(error.error.error().is_closed());
    assert_eq!(error.error.into_items(), [7, 8]);
    drop(error.task);
    assert_eq!(jobs.len(), 1, "it was put back");
}

#[test]
fn children_replace_their_task_in_one_step() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put(0).unwrap();
    jobs.get().unwrap().finish_and_put(1..=300).unwrap();
    assert_eq!((jobs.len(), jobs.unfinished()), (300, 300));
    for n in 1..=300 {
        let task = jobs.get().unwrap();
        assert_eq!((*task, task.attempt()), (n, 1));
        task.finish_and_put([]).unwrap();
    }
    jobs.join().unwrap();
}

#[test]
fn children_without_room_are_returned_with_their_task() {
    let jobs = JoinableQueue::bounded(2).unwrap();
    jobs.put(0).unwrap();
    let task = jobs.get().unwrap();
    jobs.put(9).unwrap();
    let error = task.finish_and_put([1, 2]).unwrap_err();
    assert!(error.error.error().is_full());
    assert_eq!((jobs.len(), jobs.unfinished()), (1, 2), "none was put");
    let (task, children) = (error.task, error.error.into_items());
    assert_eq!((*task, &*children), (0, &[1, 2][..]));
    jobs.get().unwrap().task_done();
    task.finish_and_put(children).unwrap();
    assert_eq!((jobs.len(), jobs.unfinished()), (2, 2));
}

/// The workers' handles put no more, so the queue ends when all tasks are done.
#[test]
fn queue_of_children_ends_with_the_last_task() {
    let _dog = watchdog();
    let jobs = JoinableQueue::unbounded().unwrap();
    jobs.put(64_u32).unwrap();
    let work = |jobs: JoinableQueue<u32>| {
        jobs.close();
        let mut ones = 0;
        for task in jobs.iter() {
            let task = task.unwrap();
            match *task {
                1 => {
                    ones += 1;
                    task.task_done();
                }
                n => task.finish_and_put([n / 2, n - n / 2]).unwrap(),
            }
        }
        ones
    };
    let workers: Vec<_> = (0..3).map(|_| Process::spawn(work, jobs.clone()).unwrap()).collect();
    drop(jobs);
    let ones: u32 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert_eq!(ones, 64);
}

#[test]
fn error_of_a_task_has_an_owned_form() {
    fn work(jobs: &JoinableQueue<u32>, results: &Queue<u32>) -> Result<(), NotFinished> {
        jobs.get().unwrap().finish_with(results, 1)?;
        Ok(())
    }
    fn boxed(
        jobs: &JoinableQueue<u32>,
        results: &Queue<u32>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        jobs.get()?.finish_with(results, 1).map_err(FinishError::into_owned)?;
        Ok(())
    }
    let (jobs, results) = (JoinableQueue::unbounded().unwrap(), Queue::unbounded().unwrap());
    jobs.put(1).unwrap();
    results.close();
    let error = work(&jobs, &results).unwrap_err();
    assert_eq!((error.id(), error.attempt()), (0, 1));
    assert_eq!(jobs.len(), 1, "it was put back");
    let error = boxed(&jobs, &results).unwrap_err();
    assert_eq!(error.downcast_ref::<NotFinished>().map(NotFinished::attempt), Some(2));
}

#[test]
fn text_of_each_error_of_finishing() {
    let (jobs, results) = (JoinableQueue::bounded(1).unwrap(), Queue::unbounded().unwrap());
    jobs.put(1).unwrap();
    results.close();
    let closed = "putting an item failed: the queue was shut down, or this handle was closed";
    let error = jobs.get().unwrap().finish_with(&results, 1).unwrap_err();
    let what = "the result of a task was not put";
    assert_eq!(error.to_string(), format!("{what}, and the task has not ended: {closed}"));
    let owned = error.into_owned().to_string();
    assert_eq!(owned, format!("{what}, and task 0 was put back after attempt 1: {closed}"));
    let error = jobs.get().unwrap().finish_with_many(&results, [1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "not all results of a task were put, and the task has not ended: 0 items were put; then \
             {closed}"
        )
    );
    drop(error);
    let error = jobs.get().unwrap().finish_and_put([1, 2]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the children of a task were not put, and the task has not ended: 0 items were put; then \
         the queue is full"
    );
}

#[test]
fn batch_with_a_limit_returns_the_rest() {
    let queue = Queue::bounded(130).unwrap();
    let error = queue.try_put_many(0..200).unwrap_err();
    assert!(error.error().is_full());
    assert_eq!((error.put(), queue.len()), (130, 130));
    // The iterator had more.
    assert_eq!(error.into_items(), (130..200).collect::<Vec<_>>());
    queue.get_many(2).unwrap();
    let start = Instant::now();
    let error = queue.put_many_timeout(0..4, Duration::from_millis(20)).unwrap_err();
    assert!(error.error().is_timeout() && start.elapsed() >= Duration::from_millis(20));
    assert_eq!((error.put(), error.into_items()), (2, vec![2, 3]));
    let error = queue.put_many_deadline([5], Instant::now()).unwrap_err();
    assert_eq!((error.put(), error.into_items()), (0, vec![5]));
    let consumer = {
        let queue = queue.clone();
        thread::spawn(move || (0..131).for_each(|_| _ = queue.get().unwrap()))
    };
    queue.put_many_timeout([7], Duration::from_secs(10)).unwrap();
    consumer.join().unwrap();
    assert!(queue.is_empty());
}

fn take_and_abort(jobs: JoinableQueue<u32>) {
    let _task = jobs.get().unwrap();
    std::process::abort();
}

/// The parent gets nothing and joins nothing: the source puts the task of the dead worker back.
#[test]
fn dead_letter_of_a_killed_worker_wakes_a_waiter_and_names_the_worker() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().max_attempts(1).build().unwrap();
    let letters = jobs.dead_letter_source();
    let results = Queue::<u32>::unbounded().unwrap();
    jobs.put(13).unwrap();
    let worker = Process::builder().name("doomed").spawn(take_and_abort, jobs.clone()).unwrap();
    let pid = worker.pid();
    worker.wait();
    let start = Instant::now();
    let ready = wait([&results as &dyn Source, &letters], None).unwrap();
    assert_eq!(ready, [1]);
    assert!(start.elapsed() < RECOVERY, "it took {:?}", start.elapsed());
    let letter = jobs.dead_letters().unwrap().pop().unwrap();
    assert_eq!((letter.attempts(), letter.reason()), (1, &DeathReason::Attempts));
    let worker = letter.worker().unwrap();
    assert_eq!((worker.pid(), worker.name(), worker.end()), (pid, "doomed", WorkerEnd::Died));
    // It was returned, and stays a dead letter.
    drop(letter);
    assert_eq!(jobs.dead_letters_len(), 1);
    assert!(wait([&letters], Some(Duration::ZERO)).unwrap().is_empty());
    assert_eq!(wait([&jobs.clone().dead_letter_source()], None).unwrap(), [0], "another handle");
}

#[test]
fn dead_letter_that_was_put_again_wakes_a_waiter_once_more() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().max_attempts(1).build().unwrap();
    let letters = jobs.dead_letter_source();
    jobs.put(13).unwrap();
    for _ in 0..3 {
        assert!(wait([&letters], Some(Duration::ZERO)).unwrap().is_empty());
        drop(jobs.get().unwrap());
        assert_eq!(wait([&letters], None).unwrap(), [0]);
        jobs.dead_letters().unwrap().pop().unwrap().put_again();
    }
}

#[test]
fn dead_letter_is_returned_right_after_the_death_of_its_worker() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().max_attempts(1).build().unwrap();
    jobs.put(13).unwrap();
    let worker = Process::spawn(take_and_abort, jobs.clone()).unwrap();
    wait([&worker], None).unwrap();
    assert_eq!(jobs.dead_letters().unwrap().len(), 1);
}

/// The queue itself is a source that does not spin on a dead letter.
#[test]
fn queue_as_a_source_reports_a_dead_letter_once() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().max_attempts(1).build().unwrap();
    jobs.put(13).unwrap();
    let worker = Process::spawn(take_and_abort, jobs.clone()).unwrap();
    worker.wait();
    let start = Instant::now();
    assert_eq!(wait([&jobs], None).unwrap(), [0]);
    assert!(start.elapsed() < RECOVERY, "it took {:?}", start.elapsed());
    assert!(wait([&jobs], Some(Duration::from_millis(1))).unwrap().is_empty());
    assert_eq!(jobs.dead_letters().unwrap().len(), 1);
}

#[test]
fn dead_letter_names_how_its_last_attempt_ended() {
    let jobs = JoinableQueue::builder().max_attempts(2).build().unwrap();
    let end = || {
        let letter = jobs.dead_letters().unwrap().pop().unwrap();
        let worker = letter.worker().unwrap();
        assert_eq!(worker.pid(), std::process::id());
        assert!(!worker.name().is_empty());
        let end = worker.end();
        assert!(format!("{letter:?}").contains("Worker"));
        assert_eq!(letter.take(), Some(1));
        end
    };
    jobs.put(1).unwrap();
    drop(jobs.get().unwrap());
    jobs.get().unwrap().put_back();
    assert_eq!(end(), WorkerEnd::PutBack);
    jobs.put(1).unwrap();
    drop(jobs.get().unwrap());
    let other = jobs.clone();
    let panics = thread::spawn(move || {
        let _task = other.get().unwrap();
        std::panic::resume_unwind(Box::new(()));
    });
    panics.join().unwrap_err();
    assert_eq!(end(), WorkerEnd::Panicked);
}

/// A worker takes the task that another process has put back in vain: the letter names the last
/// one.
#[test]
fn dead_letter_names_the_last_of_several_workers() {
    let _dog = watchdog();
    let jobs = JoinableQueue::builder().max_attempts(2).build().unwrap();
    jobs.put(13).unwrap();
    drop(jobs.get().unwrap());
    let worker = Process::builder().name("second").spawn(take_and_abort, jobs.clone()).unwrap();
    let pid = worker.pid();
    worker.wait();
    until(|| jobs.try_get().is_err() && jobs.dead_letters_len() == 1);
    let letters = jobs.dead_letters().unwrap();
    let worker = letters[0].worker().unwrap();
    assert_eq!((worker.pid(), worker.name(), worker.end()), (pid, "second", WorkerEnd::Died));
}
