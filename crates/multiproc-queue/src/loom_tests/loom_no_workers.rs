//! Models of a join by a handle that cannot get: it ends when no handle is left that could.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use multiproc_shm::Deadline;
use multiproc_shm::event_count::Poll;
use multiproc_shm::failpoint::die_at;
use multiproc_shm::members::Members;
use multiproc_shm::primitives::explore;

use super::loom_tasks::{Handle, Heir, Jobs, LIFE, explore_two, handle, jobs};
use super::{DOOMED, Member, one};
use crate::engine::error::EngineError;
use crate::engine::joinable::Joined;

/// The claim of the last handle that can get, as the kernel keeps it.
#[derive(Clone)]
struct Claim(Arc<AtomicBool>);

impl Claim {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// The kernel closes the last handle, for whatever reason.
    fn end(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// The process drops the last handle.
    fn close(&self, jobs: &Jobs) {
        self.end();
        jobs.shared.control.consumer_closed();
    }

    fn join<L: Members + Copy>(&self, handle: &Handle<L>) -> Joined {
        let can_be_got = || self.0.load(Ordering::Acquire);
        handle.see(|work| work.join(Deadline::NEVER, || (), can_be_got, || false))
    }
}

/// The last worker ends its task in some way and drops its handle, while another member joins. It
/// is woken without a clock.
fn last_worker(end: fn(&Handle<Member>), expected: Joined) {
    explore(move || {
        let jobs = jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        let claim = Claim::new();
        let worker = {
            let (claim, jobs) = (claim.clone(), jobs.clone());
            let worker = handle(&jobs, Member(2));
            thread::spawn(move || {
                end(&worker);
                claim.close(&jobs);
            })
        };
        assert_eq!(claim.join(&here), expected);
        worker.join().unwrap();
        assert_eq!(claim.join(&here), expected);
    });
}

#[test]
fn loom_no_workers_after_the_task_was_done_is_done() {
    last_worker(|worker| worker.done(worker.get().1), Joined::Done);
}

#[test]
fn loom_no_workers_after_the_task_was_put_back() {
    last_worker(|worker| worker.put_back(worker.get().1), Joined::NoWorkers(1));
}

#[test]
fn loom_no_workers_without_a_get() {
    last_worker(|_| (), Joined::NoWorkers(1));
}

/// The last worker is killed at any failpoint. Its handle is closed before it counts as dead. The
/// join reports the task as left, unless it was done, or became a dead letter.
#[test]
fn loom_no_workers_after_a_kill() {
    for max_attempts in [1, 9] {
        for &(point, was_taken, was_done) in LIFE {
            explore_two(move || {
                let jobs = jobs(max_attempts);
                let doomed = handle(&jobs, Member(DOOMED));
                doomed.put(10);
                let died = Arc::new(AtomicBool::new(false));
                let over = Arc::new(AtomicBool::new(false));
                let claim = Claim::new();
                let clock = {
                    let (claim, died) = (claim.clone(), died.clone());
                    let (over, jobs) = (over.clone(), jobs.clone());
                    thread::spawn(move || {
                        let life = || {
                            let (_, task) = doomed.try_get(Poll::Retry).unwrap();
                            doomed.done(task);
                        };
                        assert!(die_at(point, life), "{point}");
                        claim.end();
                        died.store(true, Ordering::Release);
                        while !over.load(Ordering::Acquire) {
                            jobs.shared.control.time_out();
                            thread::yield_now();
                        }
                    })
                };
                let heir = Heir(died);
                let joined = claim.join(&handle(&jobs, &heir));
                over.store(true, Ordering::Release);
                clock.join().unwrap();
                let is_letter = was_taken && max_attempts == 1;
                let is_done = was_done || is_letter;
                let expected = if is_done { Joined::Done } else { Joined::NoWorkers(1) };
                assert_eq!(joined, expected, "{point}");
            });
        }
    }
}

/// Discards the tasks after the last handle that could get is gone, as each operation does that
/// finds out.
fn discard(handle: &Handle<Member>) {
    handle.see(|work| {
        work.ring.control.orphan();
        if work.record_left(Deadline::NEVER) {
            work.ring.discard(Deadline::NEVER);
            work.tasks().discard(true);
        }
    });
}

/// A task is put while the tasks are discarded: either it counts as left, or its put fails.
#[test]
fn loom_no_workers_discarded_tasks_are_counted() {
    explore_two(|| {
        let jobs = jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        let producer = {
            let jobs = jobs.clone();
            thread::spawn(move || {
                jobs.shared.seen_by(Member(2), |ring| {
                    let item = 20u64.to_le_bytes();
                    ring.put(one(&item, &[8]), None, Deadline::NEVER, |_| Ok(())).1
                })
            })
        };
        discard(&here);
        let put = producer.join().unwrap();
        assert!(matches!(put, Ok(()) | Err(EngineError::Disconnected)), "{put:?}");
        let claim = Claim::new();
        claim.end();
        let left = 1 + usize::from(put.is_ok());
        assert_eq!((claim.join(&here), here.unfinished()), (Joined::NoWorkers(left), left));
    });
}

/// Two members discard, and a third one joins meanwhile: the number is the same for all.
#[test]
fn loom_no_workers_discarding_beside_a_join() {
    explore_two(|| {
        let jobs = jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        let claim = Claim::new();
        claim.end();
        let others = [2, 3].map(|member| {
            let other = handle(&jobs, Member(member));
            thread::spawn(move || discard(&other))
        });
        assert_eq!(claim.join(&here), Joined::NoWorkers(1));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(here.unfinished(), 1);
    });
}
