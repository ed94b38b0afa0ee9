//! Models of tasks. One file, because they share the structures at its start.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use multiproc_shm::Deadline;
use multiproc_shm::event_count::Poll;
use multiproc_shm::failpoint::die_at;
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Bytes, explore};

use super::{DOOMED, Member, NoLane, Shared, View};
use crate::engine::joinable::{Getting, Hints, Joined, Work};
use crate::engine::letters::LetterEnd;
use crate::engine::overflow::Memory;
use crate::engine::pacing::Pace;
use crate::engine::ring::Ring;
use crate::engine::slot::{Slot, WORDS};
use crate::engine::slots::{Class, Delivered, Places};
use crate::engine::worker::End;

const SLOTS: usize = 3;
const CLASS: Class = Class { slots: SLOTS, bytes: 8 };

/// The shared part of a joinable queue. Items are numbers of eight bytes.
pub(super) struct Jobs {
    pub(super) shared: Arc<Shared>,
    slots: Vec<AtomicU64>,
    /// The storage of each slot. loom checks the accesses.
    places: Vec<Bytes<'static>>,
    max_attempts: u32,
    /// If it is there, each read of a slot changes it, and so becomes a point of interleaving.
    /// (loom remembers only the last load of a word: a thread that loads a state before it changes
    /// it hides the loads of others.)
    looks: Option<AtomicU32>,
}

/// The queue, as one member sees it.
pub(super) struct Seen<'a, L> {
    view: View<'a, L>,
    jobs: &'a Jobs,
}

impl<L: Members> Members for Seen<'_, L> {
    fn me(&self) -> MemberId {
        self.view.me()
    }

    fn is_alive(&self, member: MemberId) -> bool {
        self.view.is_alive(member)
    }
}

impl<L: Members> Memory for Seen<'_, L> {
    fn reserve_hot(&self, len: u64) -> bool {
        self.view.reserve_hot(len)
    }

    fn table(&self) -> &[AtomicU32] {
        self.view.table()
    }

    fn blocks(&self) -> Bytes<'_> {
        self.view.blocks()
    }

    fn blocks_len(&self) -> u64 {
        self.view.blocks_len()
    }

    fn reserve(&self, block: u64) -> bool {
        self.view.reserve(block)
    }

    fn give_back(&self, first: u64, count: u64) {
        Memory::give_back(&self.view, first, count);
    }

    fn task_slots(&self) -> &[AtomicU64] {
        &self.jobs.slots
    }

    fn now(&self) -> Duration {
        self.view.now()
    }
}

impl<L: Members> Places for Seen<'_, L> {
    fn slots(&self) -> &[AtomicU64] {
        if let Some(looks) = &self.jobs.looks {
            looks.fetch_add(1, Ordering::Relaxed);
        }
        &self.jobs.slots
    }

    fn classes(&self) -> &[Class] {
        &[CLASS]
    }

    fn fill(&self, _: usize, slot: usize, bytes: &[u8]) -> bool {
        self.jobs.places[slot].copy_in(0, bytes);
        true
    }

    fn append_to(&self, _: usize, slot: usize, length: usize, target: &mut Vec<u8>) {
        self.jobs.places[slot].append_to(0, length, target);
    }

    fn give_back(&self, _: usize, _: Range<usize>) {
        unreachable!("small slots stay")
    }
}

/// A thread's handle of a queue.
pub(super) struct Handle<L> {
    member: L,
    jobs: Arc<Jobs>,
    hints: Hints,
}

fn getting<'a>(buffer: &'a mut Vec<u8>, lane: &'a mut NoLane) -> Getting<'a> {
    Getting::new(1, buffer, lane)
}

impl<L: Members + Copy> Handle<L> {
    pub(super) fn see<R>(&self, act: impl FnOnce(Work<'_, Seen<'_, L>>) -> R) -> R {
        let jobs = &*self.jobs;
        let view = View { member: self.member, shared: &jobs.shared };
        let members = &Seen { view, jobs };
        let Shared { control, hot, limits, .. } = &*jobs.shared;
        let (puts, gets) = (&Pace::default(), &Pace::default());
        let ring = Ring { control, limits: *limits, hot: hot.clone(), puts, gets, members };
        let max_attempts = jobs.max_attempts;
        act(Work { ring, max_attempts, hints: &self.hints, have_puts_ended: false })
    }

    pub(super) fn put(&self, item: u64) {
        let bytes = item.to_le_bytes();
        let items = super::one(&bytes, &[8]);
        let put = self.see(|work| work.ring.put(items, None, Deadline::NEVER, |_| Ok(())));
        assert_eq!(put, (1, Ok(())));
    }

    /// Takes a task and its item, and waits for one.
    pub(super) fn get(&self) -> (u64, Delivered) {
        self.see(|work| {
            let (mut bytes, mut lane) = (Vec::new(), NoLane);
            let mut getting = getting(&mut bytes, &mut lane);
            let attempt = |poll| work.attempt(&mut getting, poll, Deadline::NEVER, |_| Ok(()));
            work.ring.wait_for_item(Deadline::NEVER, attempt).unwrap().unwrap();
            let task = getting.task.unwrap();
            (u64::from_le_bytes(bytes.try_into().unwrap()), task)
        })
    }

    /// Takes a task if there is one.
    pub(super) fn try_get(&self, poll: Poll) -> Option<(u64, Delivered)> {
        self.see(|work| {
            let (mut bytes, mut lane) = (Vec::new(), NoLane);
            let mut getting = getting(&mut bytes, &mut lane);
            work.attempt(&mut getting, poll, Deadline::NEVER, |_| Ok(()))?.unwrap();
            let task = getting.task.unwrap();
            Some((u64::from_le_bytes(bytes.try_into().unwrap()), task))
        })
    }

    pub(super) fn done(&self, task: Delivered) {
        self.see(|work| work.ack(task.slot));
    }

    pub(super) fn put_back(&self, task: Delivered) {
        self.see(|work| work.nack(task.slot, End::PutBack));
    }

    fn join(&self) {
        let joined = self.see(|work| work.join(Deadline::NEVER, || (), || true, || false));
        assert_eq!(joined, Joined::Done);
    }

    pub(super) fn unfinished(&self) -> usize {
        self.see(|work| work.unfinished())
    }

    pub(super) fn is_all_done(&self) -> bool {
        self.see(|work| work.is_all_done())
    }

    /// Makes the only task a dead letter, and examines it.
    fn letter(&self) -> Slot {
        let (_, task) = self.get();
        self.see(|work| {
            work.dead_letter(task.slot);
            let letter = work.tasks().take_letter(task.slot, &mut Vec::new());
            letter.unwrap().unwrap().0.slot
        })
    }

    fn put_again(&self, letter: Slot) {
        self.see(|work| work.end_letter(letter, LetterEnd::Revive { due: work.end() }));
    }
}

fn new_jobs(max_attempts: u32) -> Jobs {
    Jobs {
        shared: Shared::new(2),
        slots: (0..SLOTS * WORDS).map(|_| AtomicU64::new(0)).collect(),
        places: (0..SLOTS).map(|_| Bytes::zeroed(CLASS.bytes)).collect(),
        max_attempts,
        looks: None,
    }
}

pub(super) fn jobs(max_attempts: u32) -> Arc<Jobs> {
    Arc::new(new_jobs(max_attempts))
}

/// Creates a queue in which every read of a slot is a point of interleaving.
fn watched_jobs(max_attempts: u32) -> Arc<Jobs> {
    Arc::new(Jobs { looks: Some(AtomicU32::new(0)), ..new_jobs(max_attempts) })
}

pub(super) fn handle<L: Members + Copy>(jobs: &Arc<Jobs>, member: L) -> Handle<L> {
    Handle { member, jobs: jobs.clone(), hints: Hints::default() }
}

/// Explores with two preemptions at most: a third one takes minutes here.
pub(super) fn explore_two(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.map_or(2, |bound| bound.min(2)));
    builder.check(model);
}

/// Two members take all tasks: each task is taken by one of them, unchanged.
#[test]
fn loom_each_task_is_taken_once() {
    explore(|| {
        let jobs = jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        here.put(20);
        let other = handle(&jobs, Member(2));
        let other = thread::spawn(move || {
            let (item, task) = other.get();
            other.done(task);
            item
        });
        let (item, task) = here.get();
        here.done(task);
        assert_eq!(item + other.join().unwrap(), 30);
        assert_eq!(here.unfinished(), 0);
    });
}

/// A joiner sleeps until the last task is done, whichever of two members ends it, and is woken:
/// there is no clock.
#[test]
fn loom_last_completion_wakes_the_joiner() {
    explore(|| {
        let jobs = jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        here.put(20);
        let (_, first) = here.get();
        let other = handle(&jobs, Member(2));
        let (_, second) = other.get();
        let other = thread::spawn(move || other.done(second));
        let joiner = handle(&jobs, Member(3));
        let joiner = thread::spawn(move || {
            joiner.join();
            assert_eq!(joiner.unfinished(), 0);
        });
        here.done(first);
        other.join().unwrap();
        joiner.join().unwrap();
    });
}

/// A task that puts another one before it is done prolongs a join.
#[test]
fn loom_join_waits_for_following_tasks() {
    explore_two(|| {
        let jobs = jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        let worker = handle(&jobs, Member(2));
        let (_, task) = worker.get();
        let done = Arc::new(AtomicBool::new(false));
        let worker = {
            let done = done.clone();
            thread::spawn(move || {
                worker.put(20);
                worker.done(task);
                let (item, task) = worker.try_get(Poll::Retry).unwrap();
                assert_eq!(item, 20);
                done.store(true, Ordering::Relaxed);
                worker.done(task);
            })
        };
        here.join();
        // A join also orders the work of the tasks before it.
        assert!(done.load(Ordering::Relaxed));
        worker.join().unwrap();
    });
}

/// A worker puts the next task before its current one is done, so one is unfinished at every
/// moment. Another member asks whether any is.
fn a_chain(ask: impl Fn(&Handle<Member>) + Send + Sync + Copy + 'static) {
    explore(move || {
        let jobs = jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        let worker = handle(&jobs, Member(2));
        let (_, task) = worker.get();
        let worker = thread::spawn(move || {
            worker.put(20);
            worker.done(task);
            worker.get()
        });
        ask(&here);
        worker.join().unwrap();
        ask(&here);
    });
}

#[test]
fn loom_chain_of_tasks_is_never_all_done() {
    a_chain(|here| assert!(!here.is_all_done()));
}

#[test]
fn loom_chain_of_tasks_counts_one_or_two() {
    a_chain(|here| assert!((1..=2).contains(&here.unfinished())));
}

/// A dead letter becomes a task again, unnoticed by a concurrent scan, before the last other task
/// is done: at no moment are all done.
#[test]
fn loom_dead_letter_put_again_is_not_missed() {
    explore(|| {
        let jobs = watched_jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        let worker = handle(&jobs, Member(2));
        let letter = worker.letter();
        here.put(20);
        let (_, last) = worker.get();
        let worker = thread::spawn(move || {
            worker.put_again(letter);
            worker.done(last);
        });
        assert!(!here.is_all_done());
        worker.join().unwrap();
        assert_eq!(here.unfinished(), 1);
    });
}

/// The other way round, the two are never unfinished together.
#[test]
fn loom_dead_letter_put_again_is_not_counted_early() {
    explore(|| {
        let jobs = watched_jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        let worker = handle(&jobs, Member(2));
        let (_, last) = worker.get();
        here.put(20);
        let letter = worker.letter();
        let worker = thread::spawn(move || {
            worker.done(last);
            worker.put_again(letter);
        });
        assert!(here.unfinished() <= 1);
        worker.join().unwrap();
        assert_eq!(here.unfinished(), 1);
    });
}

/// A joiner is not woken by the last other task, but by the one that was a dead letter.
#[test]
fn loom_join_waits_for_a_dead_letter_put_again() {
    explore_two(|| {
        let jobs = jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        let worker = handle(&jobs, Member(2));
        let letter = worker.letter();
        here.put(20);
        let (_, last) = worker.get();
        let done = Arc::new(AtomicBool::new(false));
        let worker = {
            let done = done.clone();
            thread::spawn(move || {
                worker.put_again(letter);
                worker.done(last);
                let (item, task) = worker.try_get(Poll::Retry).unwrap();
                assert_eq!((item, task.deliveries), (10, 1));
                done.store(true, Ordering::Relaxed);
                worker.done(task);
            })
        };
        here.join();
        assert!(done.load(Ordering::Relaxed));
        worker.join().unwrap();
    });
}

/// Tasks are put back and taken again, and one is always ready: `len` never misses it.
#[test]
fn loom_returned_task_is_counted() {
    explore(|| {
        let jobs = watched_jobs(9);
        let here = handle(&jobs, Member(1));
        let worker = handle(&jobs, Member(2));
        let [first, second] = [10, 20].map(|item| {
            here.put(item);
            worker.get().1
        });
        // The newer task is in the first slot.
        worker.done(first);
        here.put(30);
        let (_, third) = worker.get();
        assert!(third.slot == first.slot);
        worker.put_back(second);
        let worker = thread::spawn(move || {
            worker.put_back(third);
            // The older one is due.
            assert_eq!(worker.try_get(Poll::Retry).unwrap().0, 20);
        });
        assert!((1..=2).contains(&here.see(|work| work.len())));
        worker.join().unwrap();
    });
}

/// Two consumers sleep, and two tasks come, back or for the first time: both wake up, without a
/// clock. A notification wakes one, which passes it on if there are more tasks.
fn two_sleep(is_one_new: bool) {
    let jobs = jobs(9);
    let here = handle(&jobs, Member(1));
    let [first, second] = [10, 20].map(|item| {
        here.put(item);
        here.get().1
    });
    if is_one_new {
        here.done(first);
    }
    let others = [2, 3].map(|slot| {
        let other = handle(&jobs, Member(slot));
        thread::spawn(move || other.get().0)
    });
    if is_one_new {
        // It is due before the other one, and consumes the notification.
        here.put(30);
    } else {
        here.put_back(first);
    }
    here.put_back(second);
    others.into_iter().for_each(|other| assert!(other.join().unwrap() >= 10));
    assert_eq!(here.see(|work| work.len()), 0);
}

#[test]
fn loom_two_returned_tasks_wake_two() {
    explore_two(|| two_sleep(false));
}

#[test]
fn loom_item_and_returned_task_wake_two() {
    explore_two(|| two_sleep(true));
}

/// The same when nothing else happens.
#[test]
fn loom_returned_task_wakes_a_waiter() {
    explore(|| {
        let jobs = jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        let (_, task) = here.get();
        let other = handle(&jobs, Member(2));
        let other = thread::spawn(move || other.get());
        here.put_back(task);
        let (item, task) = other.join().unwrap();
        assert_eq!((item, task.deliveries), (10, 2));
    });
}

/// The task of a dead member is claimed by exactly one of two searching members, unchanged.
#[test]
fn loom_task_of_a_dead_member_is_delivered_once() {
    explore(|| {
        let jobs = jobs(9);
        let here = handle(&jobs, Member(1));
        here.put(10);
        handle(&jobs, Member(DOOMED)).get();
        let other = handle(&jobs, Member(2));
        let other = thread::spawn(move || other.try_get(Poll::CheckLiveness).map(|(item, _)| item));
        let mine = here.try_get(Poll::CheckLiveness).map(|(item, _)| item);
        let theirs = other.join().unwrap();
        // Each may have searched while the other one held it. No other member takes it then.
        let last = here.try_get(Poll::CheckLiveness).map(|(item, _)| item);
        let all: Vec<_> = [mine, theirs, last].into_iter().flatten().collect();
        assert_eq!(all, [10]);
        assert_eq!(here.unfinished(), 1);
    });
}

/// A detached task of a member that is taken for dead by mistake is either done or comes back, not
/// both.
#[test]
fn loom_task_is_done_or_returned_but_not_both() {
    explore(|| {
        let jobs = jobs(9);
        let doomed = handle(&jobs, Member(DOOMED));
        doomed.put(10);
        let (_, task) = doomed.get();
        assert!(doomed.see(|work| work.tasks().detach(task.slot)));
        let ended = thread::spawn(move || doomed.see(|work| work.tasks().ack_detached(task.slot)));
        let here = handle(&jobs, Member(1));
        let came = here.try_get(Poll::CheckLiveness);
        assert!(came.is_none_or(|(item, task)| (item, task.deliveries) == (10, 2)));
        let is_done = ended.join().unwrap();
        assert_eq!(is_done, came.is_none());
        assert_eq!(here.unfinished(), usize::from(!is_done));
    });
}

/// The failpoints of [`TASK_POINTS`](crate::TASK_POINTS) and [`GET_POINTS`](crate::GET_POINTS) that
/// a worker passes: whether the item was taken from the ring when it dies there, and whether it is
/// done.
pub(super) const LIFE: &[(&str, bool, bool)] = &[
    ("get.locked", false, false),
    ("task.taken", false, false),
    ("task.filled", false, false),
    ("task.numbered", false, false),
    ("get.copied", false, false),
    ("get.prepared", false, false),
    ("get.committed", true, false),
    ("get.unlocked", true, false),
    ("task.doing", true, false),
    ("task.done", true, true),
];

/// Member 1, which takes the doomed member for alive until the flag is set.
pub(super) struct Heir(pub(super) Arc<AtomicBool>);

impl Members for &Heir {
    fn me(&self) -> MemberId {
        Member(1).me()
    }

    fn is_alive(&self, member: MemberId) -> bool {
        Member(1).is_alive(member) || !self.0.load(Ordering::Acquire)
    }
}

/// A worker dies at any failpoint while another one works. That one does each remaining task once,
/// and joins.
#[test]
fn loom_successor_of_a_killed_worker() {
    for &(point, was_taken, was_done) in LIFE {
        explore(move || {
            let jobs = jobs(9);
            let doomed = handle(&jobs, Member(DOOMED));
            doomed.put(10);
            let died = Arc::new(AtomicBool::new(false));
            let over = Arc::new(AtomicBool::new(false));
            let clock = {
                let (died, over, jobs) = (died.clone(), over.clone(), jobs.clone());
                thread::spawn(move || {
                    let life = || {
                        if let Some((_, task)) = doomed.try_get(Poll::Retry) {
                            doomed.done(task);
                        }
                    };
                    let has_died = die_at(point, life);
                    died.store(true, Ordering::Release);
                    while !over.load(Ordering::Acquire) {
                        jobs.shared.control.time_out();
                        thread::yield_now();
                    }
                    has_died
                })
            };
            let heir = Heir(died);
            let heir = handle(&jobs, &heir);
            let mut done = Vec::new();
            while heir.unfinished() > 0 {
                match heir.try_get(Poll::CheckLiveness) {
                    Some((item, task)) => {
                        assert_eq!(item, 10);
                        done.push(task.deliveries);
                        heir.done(task);
                    }
                    None => thread::yield_now(),
                }
            }
            heir.join();
            over.store(true, Ordering::Release);
            let has_died = clock.join().unwrap();
            let expected: &[u32] = match () {
                // The heir was faster.
                () if done == [1] => &[1],
                () if !has_died || was_done => &[],
                () if was_taken => &[2],
                () => &[1],
            };
            assert_eq!(done, expected, "{point}");
        });
    }
}

/// A worker dies before its commit, and another one takes the same item. The slot of the first one
/// is never a second task, for any observer.
#[test]
fn loom_uncommitted_slot_is_no_task() {
    for point in ["task.taken", "task.filled", "task.numbered", "get.prepared"] {
        explore(move || {
            let jobs = jobs(9);
            let here = handle(&jobs, Member(1));
            // The slot was used before.
            here.put(5);
            let (_, task) = here.get();
            here.done(task);
            here.put(10);
            let doomed = handle(&jobs, Member(DOOMED));
            assert!(die_at(point, || _ = doomed.get()));
            assert_eq!(here.unfinished(), 1, "{point}");
            let other = handle(&jobs, Member(2));
            let other = thread::spawn(move || other.see(|work| work.reclaim(Deadline::NEVER)));
            let (item, task) = here.try_get(Poll::Retry).unwrap();
            assert_eq!((item, task.deliveries), (10, 1));
            here.done(task);
            other.join().unwrap();
            assert_eq!(here.unfinished(), 0, "{point}");
            assert!(here.try_get(Poll::CheckLiveness).is_none(), "{point}");
        });
    }
}

/// Another member that is dead whenever it is checked.
#[derive(Clone, Copy)]
struct Second;

impl Members for Second {
    fn me(&self) -> MemberId {
        MemberId::new(DOOMED, 2)
    }

    fn is_alive(&self, member: MemberId) -> bool {
        member.slot() != DOOMED
    }
}

/// A member that puts a dead member's task back, or then takes it, dies at any failpoint while
/// another one does the same: the task is redelivered once.
#[test]
fn loom_successor_of_a_member_killed_while_reclaiming() {
    for point in ["task.reclaiming", "task.returning", "task.given_up", "task.seized"] {
        explore(move || {
            let jobs = jobs(9);
            let here = handle(&jobs, Member(1));
            here.put(10);
            handle(&jobs, Member(DOOMED)).get();
            let second = handle(&jobs, Second);
            let second = thread::spawn(move || {
                let mut was_taken = false;
                let died =
                    die_at(point, || was_taken = second.try_get(Poll::CheckLiveness).is_some());
                was_taken || died && point == "task.seized"
            });
            let mine = here.try_get(Poll::CheckLiveness);
            let was_taken = second.join().unwrap();
            let last = here.try_get(Poll::CheckLiveness);
            let all: Vec<_> = [mine, last].into_iter().flatten().collect();
            assert_eq!(all.len(), 1, "{point}");
            // A delivery counts if the task was taken, even if the member died.
            let attempt = if was_taken { 3 } else { 2 };
            assert_eq!((all[0].0, all[0].1.deliveries), (10, attempt), "{point}");
            assert_eq!(here.unfinished(), 1);
        });
    }
}

/// The same for a member that puts its own task back, which another one waits for.
#[test]
fn loom_successor_of_a_member_killed_while_redelivering() {
    for point in ["task.returning", "task.given_up"] {
        explore(move || {
            let jobs = jobs(9);
            let doomed = handle(&jobs, Member(DOOMED));
            doomed.put(10);
            let (_, task) = doomed.get();
            // Another member may be faster than the owner itself.
            let doomed = thread::spawn(move || die_at(point, || doomed.put_back(task)));
            let here = handle(&jobs, Member(1));
            let mine = here.try_get(Poll::CheckLiveness);
            doomed.join().unwrap();
            let last = here.try_get(Poll::CheckLiveness);
            let all: Vec<_> = [mine, last].into_iter().flatten().collect();
            assert_eq!(all.len(), 1, "{point}");
            assert_eq!((all[0].0, all[0].1.deliveries), (10, 2), "{point}");
        });
    }
}

/// A member dies while it puts a dead letter back into the queue: it is a task or a dead letter,
/// not both.
#[test]
fn loom_successor_of_a_member_killed_while_putting_a_letter_again() {
    for point in ["task.returning", "task.given_up"] {
        explore(move || {
            let jobs = jobs(9);
            let doomed = handle(&jobs, Member(DOOMED));
            doomed.put(10);
            let letter = doomed.letter();
            assert!(die_at(point, || doomed.put_again(letter)));
            let here = handle(&jobs, Member(1));
            assert_eq!(here.unfinished(), 1, "{point}");
            let other = handle(&jobs, Member(2));
            let other =
                thread::spawn(move || other.try_get(Poll::CheckLiveness).map(|(_, task)| task));
            let mine = here.try_get(Poll::CheckLiveness).map(|(_, task)| task);
            let theirs = other.join().unwrap();
            let last = here.try_get(Poll::CheckLiveness).map(|(_, task)| task);
            let all: Vec<_> = [mine, theirs, last].into_iter().flatten().collect();
            assert_eq!(all.len(), 1, "{point}");
            assert_eq!(all[0].deliveries, 1, "{point}");
        });
    }
}
