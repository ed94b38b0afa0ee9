//! Tasks: items that were got and are not done yet, each in a [slot](super::slot) of shared memory.
//!
//! # Invariants
//!
//! 1. A free slot is allocated under the consumers' lock. Its number is
//!    [`NO_NUMBER`](super::slot::NO_NUMBER) until its bytes are complete. Then the consumer's
//!    commit removes the item from the ring. So a slot whose number is not below the consumers'
//!    count has not taken its item yet, and if its member is dead, never will: the item is still in
//!    the ring, and the slot is free. Only the slot that was allocated last can be in that state.
//!    It is freed before another consumer takes the item, so no item exists twice.
//! 2. Every other change is one compare-exchange of the state (or a store, by the only thread that
//!    can change it), by the owner, or by any member if the owner is dead. So each change happens
//!    once, without intermediate states. A transition compares against the bits that were loaded,
//!    not against a re-encoding of the decoded state. Otherwise a corrupted word could never be
//!    replaced.
//! 3. A task moves from the ring into a slot, and never back.
//! 4. A slot becomes `Ready` in three steps: it becomes `Returning`, then `returned` is
//!    incremented, then it becomes `Ready`. A process that dies in between leaves a `Returning`
//!    slot, which the next member to reclaim makes `Ready`. So a scan that has met no `Returning`
//!    slot, with the same `returned` before and after, has missed no slot that became `Ready`
//!    meanwhile. Until `returned` changes, no further scan is needed.
//!
//! By 3 and 4, a count of the slots is exact if the counts of the ring and `returned` were the same
//! before and after. Meanwhile tasks only ended, one at a time, so the result was true at some
//! moment of the scan. If it is 0, no task was unfinished when the scan ended.

use std::ops::Range;

use multiproc_shm::event_count::EventCount;
use multiproc_shm::failpoint;
use multiproc_shm::fences::LightFence;
use multiproc_shm::members::Members;
#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Ordering};

use super::slot::{DETACHED, Kind, NUMBER, STATE, Slot, State, THREAD, WORDS, change};

/// The number of sizes.
pub(crate) const CLASSES: usize = 6;

/// The slots of one size: their number, and the bytes of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) slots: usize,
    pub(crate) bytes: usize,
}

/// The shared state of the tasks, apart from the slots.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Control {
    /// The event that `join` waits for.
    all_done: EventCount<LightFence>,
    /// How many times a task has begun to come back: see invariant 4.
    pub(crate) returned: AtomicU32,
    /// The number of slots of each class that have been in use. It grows before a slot is used,
    /// under the consumers' lock.
    pub(super) highs: [AtomicU32; CLASSES],
    pub(crate) max_attempts: AtomicU32,
    /// Changes when a task becomes a dead letter or stops being one: see
    /// [`Seen`](super::letters::Seen).
    pub(super) letters: AtomicU32,
    /// The number of deliveries that were not the first one of their task.
    pub(crate) redelivered: AtomicU64,
    /// The number of tasks that have become dead letters.
    pub(crate) died: AtomicU64,
    pub(super) taking: Taking,
}

/// On a cache line of its own: it changes with each task, the other words rarely.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Taking {
    /// The index of the slot that was allocated last, plus 1. Written under the consumers' lock.
    pub(super) slot: AtomicU64,
    /// The number of the item that it was allocated for. So the slot itself, which belongs to
    /// another member now, need not be read.
    pub(super) number: AtomicU64,
    /// The time of the last release of memory, in ms. Written under the consumers' lock.
    pub(super) trimmed_at: AtomicU64,
}

#[cfg(not(loom))]
placed!(Taking { slot, number, trimmed_at });
#[cfg(not(loom))]
placed!(Control { all_done, returned, highs, max_attempts, letters, redelivered, died, taking });

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
    /// Returns all slots: [`WORDS`] words each, ordered by class.
    fn slots(&self) -> &[AtomicU64];

    /// Returns the records of the workers, [`RECORD`](super::worker::RECORD) words for each slot.
    fn workers(&self) -> &[AtomicU64] {
        &[]
    }

    /// Returns the pid and the name of this process, which its records contain.
    fn identity(&self) -> (u32, [u64; 2]) {
        (0, [0; 2])
    }

    /// Returns the classes, from small to large.
    fn classes(&self) -> &[Class];

    /// Copies bytes into the storage of a slot. Returns `false` if there is no memory left.
    fn fill(&self, class: usize, slot: usize, bytes: &[u8]) -> bool;

    /// Appends the bytes in the storage of a slot to `target`.
    fn append_to(&self, class: usize, slot: usize, length: usize, target: &mut Vec<u8>);

    /// Releases the memory of some slots of a class.
    fn give_back(&self, class: usize, slots: Range<usize>);
}

/// The numbers of tasks in the slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) ready: usize,
    pub(crate) returning: usize,
    pub(crate) in_work: usize,
}

/// A task that was delivered.
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
    /// The maximum length of a task, in bytes.
    pub(crate) longest: usize,
}

impl<M: Members + Places> Tasks<'_, M> {
    /// Returns the index of a slot among all slots.
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
        tests::on_read(self.members.slots());
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

    /// Changes the state, unless another member was faster.
    #[inline]
    pub(super) fn change(&self, slot: Slot, from: State, to: State) -> bool {
        change(&self.words(slot)[STATE], from, to)
    }

    /// Returns all slots that may be in use.
    pub(super) fn all(&self) -> impl Iterator<Item = Slot> + '_ {
        let classes = self.members.classes().iter().enumerate();
        classes.flat_map(|(class, _)| (0..self.high(class)).map(move |place| Slot { class, place }))
    }

    /// Returns the same, beginning at `first`: the rest of its class, then the other classes, then
    /// the slots before it.
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

    /// Returns a number that identifies a thread among those of all members.
    #[inline]
    pub(super) fn signature(&self, thread: u64) -> u64 {
        u64::from(self.members.me().bits()) << 32 | thread & u64::from(u32::MAX)
    }

    /// Completes a task of this member. Returns `false` if it was not this member's.
    ///
    /// To be called by the thread that has the task. No other thread changes the task of a live
    /// member, so a store is enough. (An exchange would wait until all earlier stores have left the
    /// processor.)
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

    /// Detaches a task of this member from its thread. Returns `false` if it was not this member's.
    pub(crate) fn detach(&self, slot: Slot) -> bool {
        let state = self.state(slot);
        let detached = State::new(DETACHED, state.owner(), state.deliveries());
        state.is_of(self.members.me()) && self.change(slot, state, detached)
    }

    /// Completes a detached task of this member. Returns `false` if it was not this member's.
    pub(crate) fn ack_detached(&self, slot: Slot) -> bool {
        let state = self.state(slot);
        let is_mine = state.kind() == Kind::Detached && state.is_of(self.members.me());
        is_mine && self.change(slot, state, State::FREE)
    }

    /// Counts the tasks in the slots, each in its state at the moment when it is read. Slots in
    /// progress that `consumed` does not cover are still being allocated: their items are in the
    /// ring.
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

    /// Finds a slot with an unfinished task, or with a task in progress if the queue's items are
    /// discarded. The search begins at `first`, and reads one slot if that has one.
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

    /// Returns `true` if a task may come back while this thread waits. Tasks that the thread has
    /// itself, and those that end with the process, do not count.
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

    /// Returns `true` if this thread has a task.
    pub(crate) fn is_in_task(&self, thread: u64) -> bool {
        self.all().any(|slot| self.is_held_by(slot, self.state(slot), thread))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
