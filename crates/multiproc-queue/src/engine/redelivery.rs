//! Redelivery: tasks of dead members and tasks that were put back become ready, and are claimed
//! again.

use std::cmp::Reverse;
use std::collections::HashMap;

use multiproc_shm::Deadline;
use multiproc_shm::failpoint;
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{Ordering, fence_after_rmw};

use super::error::EngineError;
use super::finish::is_finished;
use super::slot::{
    DEAD, DUE, ENDS, FLAGS, HAD_DESCRIPTORS, HELD, Kind, LENGTH, READY, Slot, State, THREAD,
};
use super::slots::{Delivered, Places, Tasks};
use super::worker::End;

/// A task that has come back. The one that is due first is taken first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Returned {
    due: u64,
    number: u64,
    slot: Slot,
}

/// The tasks that a handle found ready when it last scanned the slots. Each is verified when it is
/// taken, because another member may have been faster.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In reverse order: the last one is taken first.
    found: Vec<Returned>,
    /// Whether these were all.
    is_all: bool,
    /// The value of `Control::returned` before the scan.
    returned: u32,
    /// The number of slots that were scanned, and of tasks that were taken since.
    scanned: usize,
    taken: usize,
}

impl Batch {
    /// The maximum number of tasks.
    const MOST: usize = 1024;

    /// Returns the value of `Control::returned` at the scan, if no task is left to be taken.
    pub(crate) fn exhausted(&self) -> Option<u32> {
        (self.found.is_empty() && self.is_all).then_some(self.returned)
    }

    /// Returns `true` if it is time for another scan, given the current value of `returned`. While
    /// tasks come back continually, a scan must be worth its time: 64 slots for each task that was
    /// taken.
    fn is_stale(&self, returned: u32) -> bool {
        let has_changed = returned != self.returned;
        let is_time = (self.taken + 1) * 64 >= self.scanned;
        if self.found.is_empty() { has_changed || !self.is_all } else { has_changed && is_time }
    }
}

impl<M: Members + Places> Tasks<'_, M> {
    /// Puts a task of this member back. `due` is the number that the next item put will have:
    /// queued items come first.
    pub(crate) fn nack(&self, slot: Slot, due: u64, end: End) -> bool {
        let state = self.state(slot);
        if !state.is_of(self.members.me()) {
            return false;
        }
        self.words(slot)[THREAD].store(0, Ordering::Relaxed);
        self.redeliver(slot, state, due, end)
    }

    /// Puts the tasks of dead members back. `counts` reads the counts of both sides, producers
    /// first. Returns whether there were any, and where to begin the next search: this one begins
    /// at `first`, and ends there or when the deadline passes.
    ///
    /// Takes a system call for each owner.
    pub(crate) fn reclaim(
        &self,
        first: Slot,
        counts: impl Fn() -> Option<(u64, u64)>,
        due: u64,
        deadline: Deadline,
    ) -> (bool, Slot) {
        /// The number of owners that are checked regardless of the deadline.
        const LEAST: usize = 16;
        let me = self.members.me();
        // For each dead owner, the counts, which are read after its death.
        let mut owners: HashMap<Option<MemberId>, Option<(u64, u64)>> = HashMap::new();
        let mut any = false;
        for slot in self.all_from(first) {
            let state = self.state(slot);
            let owner = state.owner();
            match state.kind() {
                Kind::Free | Kind::Ready => continue,
                Kind::Dead if owner.is_none() => continue,
                _ if owner == Some(me) => continue,
                Kind::Held | Kind::Detached | Kind::Returning | Kind::Dead => {}
            }
            if owners.len() >= LEAST && !owners.contains_key(&owner) && deadline.is_past() {
                return (any, slot);
            }
            let dead = *owners.entry(owner).or_insert_with(|| {
                let is_alive = owner.is_some_and(|owner| self.members.is_alive(owner));
                if is_alive { None } else { counts() }
            });
            let Some((produced, consumed)) = dead else { continue };
            match state.kind() {
                Kind::Dead => {
                    _ = self.change(slot, state, State::new(DEAD, None, state.deliveries()));
                }
                Kind::Returning => any |= self.bring_back(slot, state, state.deliveries(), due),
                // The owner is dead, so the number is final. Its commit came after the number, or
                // never will.
                _ => {
                    let number = self.number(slot);
                    failpoint::reached("task.reclaiming");
                    // Read after the count: see the orderings of `finish`.
                    let ends = self.words(slot)[ENDS].load(Ordering::Acquire);
                    any |= if number < consumed && !is_finished(ends, produced) {
                        self.redeliver(slot, state, due, End::Died)
                    } else {
                        self.change(slot, state, State::FREE)
                    };
                }
            }
        }
        (any, first)
    }

    /// Makes a task ready to be delivered again, or a dead letter if that is not possible any more.
    fn redeliver(&self, slot: Slot, state: State, due: u64, end: End) -> bool {
        let flags = self.words(slot)[FLAGS].load(Ordering::Relaxed);
        let deliveries = state.deliveries();
        if flags & HAD_DESCRIPTORS == 0 && deliveries < self.max_attempts {
            return self.bring_back(slot, state, deliveries.saturating_add(1), due);
        }
        self.lay_aside(slot, state, end)
    }

    /// Makes a slot `Ready` by the steps of invariant 4 of [`slots`](super::slots). Returns `false`
    /// if another member was faster.
    pub(super) fn bring_back(&self, slot: Slot, from: State, deliveries: u32, due: u64) -> bool {
        let returning = State::new(READY, Some(self.members.me()), deliveries);
        if !self.change(slot, from, returning) {
            return false;
        }
        failpoint::reached("task.returning");
        self.words(slot)[DUE].store(due, Ordering::Relaxed);
        self.control.returned.fetch_add(1, Ordering::AcqRel);
        fence_after_rmw();
        let changed = self.change(slot, returning, State::new(READY, None, deliveries));
        failpoint::reached("task.given_up");
        changed
    }

    /// Takes a task that has come back and is due, and appends its bytes. Scans the slots at most
    /// once.
    pub(crate) fn take_returned(
        &self,
        batch: &mut Batch,
        due: u64,
        thread: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<Delivered>, EngineError> {
        let mut was_scanned = false;
        loop {
            if !was_scanned && batch.is_stale(self.control.returned.load(Ordering::Acquire)) {
                self.fill(batch);
                was_scanned = true;
            }
            let Some(next) = batch.found.pop_if(|next| next.due <= due) else { return Ok(None) };
            batch.taken += 1;
            if self.back(next.slot) != Some(next) {
                continue;
            }
            if let Some(task) = self.claim(next.slot, Kind::Ready, HELD, bytes)? {
                self.sign(task.slot);
                self.words(task.slot)[THREAD].store(self.signature(thread), Ordering::Relaxed);
                self.control.redelivered.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(task));
            }
        }
    }

    /// Finds the tasks that have come back.
    fn fill(&self, batch: &mut Batch) {
        let Batch { found, is_all, returned, scanned, taken } = batch;
        *returned = self.control.returned.load(Ordering::Acquire);
        (*is_all, *scanned, *taken) = (true, 0, 0);
        found.clear();
        for slot in self.all() {
            *scanned += 1;
            match self.state(slot).kind() {
                Kind::Returning => *is_all = false,
                Kind::Ready => found.extend(self.back(slot)),
                _ => {}
            }
        }
        if found.len() > Batch::MOST {
            found.select_nth_unstable(Batch::MOST);
            found.truncate(Batch::MOST);
            found.shrink_to_fit();
            *is_all = false;
        }
        found.sort_unstable_by_key(|&task| Reverse(task));
    }

    /// Returns the task in a slot, if it is ready.
    fn back(&self, slot: Slot) -> Option<Returned> {
        let words = self.words(slot);
        let is_ready = self.state(slot).kind() == Kind::Ready;
        let due = words[DUE].load(Ordering::Relaxed);
        is_ready.then(|| Returned { due, number: self.number(slot), slot })
    }

    /// Makes this member the owner of a slot of kind `from` without an owner, and appends its
    /// bytes. Returns `None` if another member was faster.
    pub(super) fn claim(
        &self,
        slot: Slot,
        from: Kind,
        to: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<Delivered>, EngineError> {
        let state = self.state(slot);
        let deliveries = state.deliveries();
        let mine = State::new(to, Some(self.members.me()), deliveries);
        let is_anybodys = from == Kind::Ready || state.owner().is_none();
        if state.kind() != from || !is_anybodys || !self.change(slot, state, mine) {
            return Ok(None);
        }
        failpoint::reached("task.seized");
        let length = usize::try_from(self.words(slot)[LENGTH].load(Ordering::Relaxed));
        let most = self.members.classes()[slot.class].bytes.min(self.longest);
        let Some(length) = length.ok().filter(|&length| length <= most) else {
            // No member can use it. As a dead letter, it is not in the way.
            self.change(slot, mine, State::new(DEAD, None, deliveries));
            return Err(EngineError::Corrupted("the length of a task"));
        };
        self.members.append_to(slot.class, slot.place, length, bytes);
        Ok(Some(Delivered { slot, number: self.number(slot), deliveries }))
    }
}
