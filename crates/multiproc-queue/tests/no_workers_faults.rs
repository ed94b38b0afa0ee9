//! Kills the last worker at every named point of a task's life, while another process joins. Run by
//! `cargo xtask faults`, which compiles the points in.
#![cfg(multiproc_faults)]

use std::time::{Duration, Instant};

use multiproc::{JoinError, Process};
use multiproc_queue::{GET_POINTS, JoinTasksError, JoinableQueue, TaskConsumer};
use multiproc_testkit::{die_at, watchdog};

multiproc::enable_in_tests!();

/// The guaranteed bound on recovery.
const RECOVERY: Duration = Duration::from_secs(1);

const TAKING: &[&str] = &["task.taken", "task.filled", "task.numbered", "task.doing", "task.done"];

type Args = (TaskConsumer<u32>, String);

/// Takes tasks, puts each back at its first delivery and completes it at its second, and dies at
/// the first visit of the point.
fn work((tasks, point): Args) {
    die_at(&point, 1);
    for task in tasks {
        let task = task.unwrap();
        if task.attempt() > 1 { task.task_done() } else { task.put_back() }
    }
}

/// Of three tasks, those that were not done are left, or the one that was taken is a dead letter.
#[test]
fn faults_kill_of_the_last_worker_at_each_point_ends_the_join() {
    let returning = ["task.returning", "task.given_up", "task.seized"];
    for max_attempts in [1, 2, 9] {
        for &point in GET_POINTS.iter().chain(TAKING).chain(&returning) {
            // With one attempt, no task is delivered again, or completed.
            if max_attempts == 1 && point != "task.given_up" && !GET_POINTS.contains(&point) {
                continue;
            }
            let _dog = watchdog();
            let builder = JoinableQueue::builder().max_attempts(max_attempts);
            let (producer, consumer) = builder.build_tasks().unwrap();
            producer.put_many(0..3).unwrap();
            let worker = Process::spawn(work, (consumer, point.to_owned())).unwrap();
            let start = Instant::now();
            let joined = producer.join();
            assert!(start.elapsed() < RECOVERY, "{point}: it took {:?}", start.elapsed());
            assert_eq!(worker.join(), Err(JoinError::Signaled(9, false)), "{point}");
            let (left, letters) = (producer.unfinished(), producer.dead_letters_len());
            let done = usize::from(point == "task.done");
            assert_eq!(left + letters + done, 3, "{point}, {max_attempts}");
            assert_eq!(joined, Err(JoinTasksError::NoWorkers { left }), "{point}");
            assert!(letters <= 1, "{point}");
        }
    }
}
