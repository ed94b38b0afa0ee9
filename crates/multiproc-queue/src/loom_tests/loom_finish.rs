//! Models of tasks that are finished together with a put.

use loom::thread;
use multiproc_shm::Deadline;
use multiproc_shm::event_count::Poll;
use multiproc_shm::failpoint::die_at;
use multiproc_shm::members::Members;
use multiproc_shm::primitives::explore;

use super::loom_tasks::{Handle, handle, jobs};
use super::{DOOMED, Member, one};
use crate::FINISH_POINTS;
use crate::engine::put::Put;
use crate::engine::slots::Delivered;

impl<L: Members + Copy> Handle<L> {
    /// Finishes a task, and puts one child.
    fn finish_and_put(&self, task: Delivered, child: u64) {
        let bytes = child.to_le_bytes();
        let put =
            self.see(|work| work.finish(task.slot, one(&bytes, &[8]), Deadline::NEVER)).unwrap();
        assert_eq!(put, Put::Done);
    }

    /// Takes and completes all tasks that are available now. Returns their items.
    fn take_all(&self) -> Vec<u64> {
        let mut items = Vec::new();
        // A task that has come back is found by a search for dead members.
        while let Some((item, task)) = self.try_get(Poll::CheckLiveness) {
            items.push(item);
            self.done(task);
        }
        items
    }
}

/// A worker finishes a task together with a put while another member asks: one task is unfinished
/// at every moment, and the joiner waits for the child.
#[test]
fn loom_finish_with_a_child_is_never_all_done() {
    explore(|| {
        let jobs = jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        let worker = handle(&jobs, Member(2));
        let (_, task) = worker.get();
        let worker = thread::spawn(move || worker.finish_and_put(task, 20));
        assert!(!here.is_all_done());
        worker.join().unwrap();
        assert_eq!(here.unfinished(), 1);
        assert_eq!(here.take_all(), [20]);
    });
}

/// Whether a worker that dies at this point has finished its task.
fn is_finished_at(point: &str) -> bool {
    ["finish.committed", "finish.freed", "finish.unlocked"].contains(&point)
}

/// A worker dies while it finishes a task together with a put. Another member reclaims its tasks
/// while a third one puts, and so settles. In the end there is either the child or the task.
#[test]
fn loom_successor_of_a_member_killed_while_finishing() {
    for &point in FINISH_POINTS {
        explore(move || {
            let jobs = jobs(9);
            let here = handle(&jobs, Member(1));
            here.put(10);
            let doomed = handle(&jobs, Member(DOOMED));
            let (_, task) = doomed.get();
            assert!(die_at(point, || doomed.finish_and_put(task, 20)), "{point}");
            let other = handle(&jobs, Member(2));
            let other = thread::spawn(move || other.put(30));
            here.see(|work| work.reclaim(Deadline::NEVER));
            other.join().unwrap();
            let mut items = here.take_all();
            items.sort_unstable();
            let survivor = if is_finished_at(point) { 20 } else { 10 };
            let mut expected = vec![survivor, 30];
            expected.sort_unstable();
            assert_eq!(items, expected, "{point}");
            assert_eq!(here.unfinished(), 0, "{point}");
        });
    }
}

/// The same if the member that settles finishes a task itself, in the slot of the dead member's
/// task or in another one.
#[test]
fn loom_successor_that_finishes_as_well_keeps_its_own_task() {
    for &point in FINISH_POINTS {
        explore(move || {
            let jobs = jobs(9);
            let here = handle(&jobs, Member(1));
            here.put(10);
            let doomed = handle(&jobs, Member(DOOMED));
            let (_, task) = doomed.get();
            assert!(die_at(point, || doomed.finish_and_put(task, 20)), "{point}");
            let other = handle(&jobs, Member(2));
            let other = thread::spawn(move || {
                if let Some((item, task)) = other.try_get(Poll::CheckLiveness) {
                    other.finish_and_put(task, item + 1);
                }
            });
            here.see(|work| work.reclaim(Deadline::NEVER));
            other.join().unwrap();
            let items = here.take_all();
            let survivor = if is_finished_at(point) { 20 } else { 10 };
            // The other member may have come before the task was back.
            assert!(items == [survivor] || items == [survivor + 1], "{point}: {items:?}");
            assert_eq!(here.unfinished(), 0, "{point}");
        });
    }
}
