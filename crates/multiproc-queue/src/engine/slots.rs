//! Tasks: items that were got and are not done yet, each in a [slot](super::slot) of shared memory.
//!
//! # Invariants
//!
//! 1. A free slot is taken under the consumers' lock, and its number is [`NO_NUMBER`](super::slot::NO_NUMBER) until its bytes
//!    are complete; then the item is retired from the ring by the consumer's commit. So a slot with
//!    a number from the consumers' count on was not taken yet, and if its member is dead, never will
//!    be: the item is still in the ring, and the slot is free. Only the slot that was taken last can
//!    be one, and it is freed before the item is taken by somebody else: there is no item twice.
//! 2. Every other change is one compare-exchange of the state (or a store, by the only one who can
//!    change it), by its owner or, if none lives, by anybody. So each happens once, and there is
//!    nothing in between. What it compares with is the whole word as it was found, whatever is in it.
//! 3. A task goes from the ring into a slot, and never back.
//! 4. A slot becomes `Ready` in three steps: it is `Returning`, then `returned` is incremented, then
//!    it is `Ready`. A process that dies on the way leaves a `Returning` slot, which the next one to
//!    reclaim brings back. So a scan of the slots that has met no `Returning` one, with the same
//!    `returned` before and after, has not missed a slot that became `Ready` behind its back; and
//!    neither has a later scan to be made, until `returned` changes.
//!
//! By 3 and 4, a count of the slots is exact if the counts of the ring and `returned` were the same
//! before and after: meanwhile tasks only ended, one at a time, so the result was true at some moment
//! of the scan. If it is 0, nothing was unfinished when the scan ended.

use std::ops::Range;

use multiproc_shm::event_count::EventCount;
use multiproc_shm::failpoint;
use multiproc_shm::fences::LightFence;
use multiproc_shm::members::Members;
#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Ordering};

use super::slot::{DETACHED, Kind, NUMBER, STATE, Slot, State, THREAD, WORDS, change};

/// How many sizes there are.
pub(crate) const CLASSES: usize = 6;

/// The slots of one size: how many, and of how many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) slots: usize,
    pub(crate) bytes: usize,
}

/// What the members of a queue share of its tasks, beside the slots.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Control {
    /// Where those wait who join.
    all_done: EventCount<LightFence>,
    /// How often a task has begun to come back: see invariant 4.
    pub(crate) returned: AtomicU32,
    /// How many slots of each class have been in use. Under the consumers' lock, it grows before
    /// one is used.
    pub(super) highs: [AtomicU32; CLASSES],
    pub(crate) max_attempts: AtomicU32,
    rest: AtomicU32,
    /// How many deliveries were not the first one.
    pub(crate) redelivered: AtomicU64,
    /// How many tasks have become dead letters.
    pub(crate) died: AtomicU64,
    pub(super) taking: Taking,
}

/// On a line of its own: it changes with each task, the others seldom.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Taking {
    /// The slot that was taken last, plus 1, of all slots. Under the consumers' lock.
    pub(super) slot: AtomicU64,
    /// For the item of this number. So the slot itself, which is another member's now, need not be
    /// looked at.
    pub(super) number: AtomicU64,
    /// When memory was last given back, in ms. Under the consumers' lock.
    pub(super) trimmed_at: AtomicU64,
}

#[cfg(not(loom))]
placed!(Taking { slot, number, trimmed_at });
#[cfg(not(loom))]
placed!(Control { all_done, returned, highs, max_attempts, rest, redelivered, died, taking });

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Control>() == 128 && std::mem::offset_of!(Control, taking) == 64);
};

impl Control {
    #[cfg(loom)]
    pub(crate) fn time_out(&self) {
        self.all_done.futex().time_out();
    }

    pub(crate) fn all_done(&self) -> &EventCount<LightFence> {
        &self.all_done
    }
}

/// The memory of the slots.
pub(crate) trait Places {
    /// All slots: [`WORDS`] words each, those of one class after those of another.
    fn slots(&self) -> &[AtomicU64];

    /// The classes, from small to large.
    fn classes(&self) -> &[Class];

    /// Copies into the place of a slot. False: there is no memory left.
    fn fill(&self, class: usize, slot: usize, bytes: &[u8]) -> bool;

    /// Appends what is in the place of a slot.
    fn append_to(&self, class: usize, slot: usize, length: usize, target: &mut Vec<u8>);

    /// Gives the memory of some slots of a class back.
    fn give_back(&self, class: usize, slots: Range<usize>);
}

/// How many tasks are in the slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) ready: usize,
    pub(crate) returning: usize,
    pub(crate) in_work: usize,
}

/// A task that has been delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) slot: Slot,
    pub(crate) number: u64,
    pub(crate) deliveries: u32,
}

/// The tasks of a queue, as a member sees them.
pub(crate) struct Tasks<'a, M> {
    pub(crate) control: &'a Control,
    pub(crate) members: &'a M,
    pub(crate) max_attempts: u32,
    /// No task is longer than that, in bytes.
    pub(crate) longest: usize,
}

impl<M: Members + Places> Tasks<'_, M> {
    /// Where a slot is among all slots.
    #[inline]
    pub(super) fn index(&self, Slot { class, place }: Slot) -> usize {
        if class == 0 {
            return place;
        }
        let before: usize = self.members.classes()[..class].iter().map(|class| class.slots).sum();
        before + place
    }

    #[inline(always)]
    pub(super) fn words(&self, slot: Slot) -> &[AtomicU64] {
        #[cfg(all(test, not(loom)))]
        tests::looked(self.members.slots());
        &self.members.slots()[self.index(slot) * WORDS..][..WORDS]
    }

    #[inline]
    pub(super) fn state(&self, slot: Slot) -> State {
        State(self.words(slot)[STATE].load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn number(&self, slot: Slot) -> u64 {
        self.words(slot)[NUMBER].load(Ordering::Acquire)
    }

    /// From one state to another, if nobody was quicker.
    #[inline]
    pub(super) fn change(&self, slot: Slot, from: State, to: State) -> bool {
        change(&self.words(slot)[STATE], from, to)
    }

    /// All slots that have ever been in use since their class was empty.
    pub(super) fn all(&self) -> impl Iterator<Item = Slot> + '_ {
        let classes = self.members.classes().iter().enumerate();
        classes.flat_map(|(class, _)| (0..self.high(class)).map(move |place| Slot { class, place }))
    }

    /// The same, from `first` on: in its class, in the other classes, and what is before it.
    pub(super) fn all_from(&self, first: Slot) -> impl Iterator<Item = Slot> + '_ {
        let classes = self.members.classes().len();
        let places = |class, places: Range<usize>| places.map(move |place| Slot { class, place });
        let before = 0..first.place.min(self.high(first.class));
        let others = (1..classes).map(move |step| (first.class + step) % classes);
        places(first.class, before.end..self.high(first.class))
            .chain(others.flat_map(move |class| places(class, 0..self.high(class))))
            .chain(places(first.class, before))
    }

    #[inline]
    pub(super) fn high(&self, class: usize) -> usize {
        let high = self.control.highs[class].load(Ordering::Acquire) as usize;
        high.min(self.members.classes()[class].slots)
    }

    /// Tells a thread from all those of all members.
    #[inline]
    pub(super) fn signature(&self, thread: u64) -> u64 {
        u64::from(self.members.me().bits()) << 32 | thread & u64::from(u32::MAX)
    }

    /// The task that this member works on is done. False: it was not this member's. To be called by
    /// the thread that has it: nobody else changes the task of a living member, so a store is
    /// enough. (An exchange would wait until all that was written before has left the processor.)
    #[inline]
    pub(crate) fn ack(&self, slot: Slot) -> bool {
        let state = self.state(slot);
        if state.kind() != Kind::Held || !state.is_of(self.members.me()) {
            return false;
        }
        failpoint::reached("task.doing");
        self.words(slot)[STATE].store(State::FREE.0, Ordering::Release);
        failpoint::reached("task.done");
        true
    }

    /// The task that this member works on belongs to no thread any more. False: it was not this
    /// member's.
    pub(crate) fn detach(&self, slot: Slot) -> bool {
        let state = self.state(slot);
        let detached = State::new(DETACHED, state.owner(), state.deliveries());
        state.is_of(self.members.me()) && self.change(slot, state, detached)
    }

    /// The task that this member has detached is done. False: it was not this member's.
    pub(crate) fn ack_detached(&self, slot: Slot) -> bool {
        let state = self.state(slot);
        let is_mine = state.kind() == Kind::Detached && state.is_of(self.members.me());
        is_mine && self.change(slot, state, State::FREE)
    }

    /// Counts the tasks in the slots, as each of them is at the moment when it is looked at. Slots in
    /// work that `consumed` does not cover are being taken, and are in the ring as yet.
    pub(crate) fn tally(&self, consumed: u64) -> Tally {
        let mut tally = Tally::default();
        for slot in self.all() {
            let state = self.state(slot);
            match state.kind() {
                Kind::Free | Kind::Dead => {}
                Kind::Returning => tally.returning += 1,
                Kind::Ready => tally.ready += 1,
                Kind::Held | Kind::Detached => {
                    tally.in_work += usize::from(self.number(slot) < consumed);
                }
            }
        }
        tally
    }

    /// Finds a slot with an unfinished task; in a queue whose items are thrown away, with one in
    /// work. The search begins at `first`: it takes one look where that has one.
    pub(crate) fn find_unfinished(
        &self,
        first: Slot,
        consumed: u64,
        is_discarding: bool,
    ) -> Option<Slot> {
        let is_unfinished = |&slot: &Slot| {
            let state = self.state(slot);
            match state.kind() {
                Kind::Free | Kind::Dead => false,
                Kind::Returning | Kind::Ready => !is_discarding,
                Kind::Held | Kind::Detached => is_discarding || self.number(slot) < consumed,
            }
        };
        self.all_from(first).find(is_unfinished)
    }

    /// Whether any task may come back while this thread waits for it: not those that it has itself,
    /// and not those that end with the process.
    pub(crate) fn may_come_back(&self, thread: u64) -> bool {
        self.all().any(|slot| {
            let state = self.state(slot);
            match state.kind() {
                Kind::Returning | Kind::Ready => true,
                Kind::Held => !self.is_held_by(slot, state, thread),
                Kind::Detached => !state.is_of(self.members.me()),
                Kind::Free | Kind::Dead => false,
            }
        })
    }

    fn is_held_by(&self, slot: Slot, state: State, thread: u64) -> bool {
        state.kind() == Kind::Held
            && state.is_of(self.members.me())
            && self.words(slot)[THREAD].load(Ordering::Relaxed) == self.signature(thread)
    }

    /// Whether this thread is in the middle of a task.
    pub(crate) fn is_in_task(&self, thread: u64) -> bool {
        self.all().any(|slot| self.is_held_by(slot, self.state(slot), thread))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
