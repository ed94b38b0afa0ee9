//! Tasks: items that were got and are not done yet, each in a slot of shared memory.
//!
//! # A slot
//!
//! Eight words. The first one is its **state**, and says all that a death could leave in doubt:
//!
//! | bits of the state | meaning |
//! |---|---|
//! | 0..30 | the member that has it; 0 is nobody |
//! | 30..32 | what it is: see [`Kind`] |
//! | 32..64 | how often it was delivered |
//!
//! The others are its number in the queue, from which number on it may be delivered again, how long it
//! is, whether it had descriptors, and who in its process has it. The bytes are in a place of the
//! slot's own, of one of some sizes.
//!
//! # Invariants
//!
//! 1. A free slot is taken under the consumers' lock, and its number is [`NO_NUMBER`] until its bytes
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

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic;
use std::time::Duration;

use multiproc_shm::Deadline;
use multiproc_shm::event_count::EventCount;
use multiproc_shm::failpoint;
use multiproc_shm::fences::LightFence;
use multiproc_shm::members::{MemberId, Members};
#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Ordering, fence_after_rmw, load_locked};

use super::error::EngineError;
use super::overflow::millis;

/// Words of a slot.
pub(crate) const WORDS: usize = 8;

const STATE: usize = 0;
const NUMBER: usize = 1;
const DUE: usize = 2;
const LENGTH: usize = 3;
const FLAGS: usize = 4;
const THREAD: usize = 5;

/// The number of a slot whose item is not complete.
const NO_NUMBER: u64 = u64::MAX;

/// The item had descriptors, which do not survive whoever got it.
const HAD_DESCRIPTORS: u64 = 1;

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
    highs: [AtomicU32; CLASSES],
    pub(crate) max_attempts: AtomicU32,
    rest: AtomicU32,
    /// How many deliveries were not the first one.
    pub(crate) redelivered: AtomicU64,
    /// How many tasks have become dead letters.
    pub(crate) died: AtomicU64,
    taking: Taking,
}

/// On a line of its own: it changes with each task, the others seldom.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Taking {
    /// The slot that was taken last, plus 1, of all slots. Under the consumers' lock.
    slot: AtomicU64,
    /// For the item of this number. So the slot itself, which is another member's now, need not be
    /// looked at.
    number: AtomicU64,
    /// When memory was last given back, in ms. Under the consumers' lock.
    trimmed_at: AtomicU64,
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

/// What a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Free,
    /// A task that its owner works on, and will end.
    Held,
    /// The same, but it belongs to no thread of its owner.
    Detached,
    /// A task on its way to be `Ready`, by its owner. (It counts as unfinished.)
    Returning,
    /// A task that waits to be delivered again.
    Ready,
    /// A task that is not delivered any more. If it has an owner, that one looks at it.
    Dead,
}

/// A slot's first word. Anything may be in it, if somebody has scribbled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(u64);

const OWNER: u64 = (1 << MemberId::BITS) - 1;
const HELD: u64 = 0 << 30;
const DETACHED: u64 = 1 << 30;
const READY: u64 = 2 << 30;
const DEAD: u64 = 3 << 30;

impl State {
    const FREE: Self = Self(0);

    #[inline]
    fn new(kind: u64, owner: Option<MemberId>, attempt: u32) -> Self {
        let owner = owner.map_or(0, |owner| u64::from(owner.bits()));
        Self(u64::from(attempt) << 32 | kind | owner)
    }

    #[inline]
    pub(crate) fn kind(self) -> Kind {
        match self.0 & DEAD {
            _ if self == Self::FREE => Kind::Free,
            HELD => Kind::Held,
            DETACHED => Kind::Detached,
            READY if self.0 & OWNER == 0 => Kind::Ready,
            READY => Kind::Returning,
            _ => Kind::Dead,
        }
    }

    /// Whose it is: `Held`, `Detached` and `Returning` have an owner.
    #[inline]
    fn owner(self) -> Option<MemberId> {
        u32::try_from(self.0 & OWNER).ok().and_then(MemberId::from_bits)
    }

    #[inline]
    fn attempt(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(0)
    }

    #[inline]
    fn is_in_work(self) -> bool {
        matches!(self.kind(), Kind::Held | Kind::Detached)
    }

    /// Whether it is a task that this member works on.
    #[inline]
    fn is_of(self, member: MemberId) -> bool {
        self.is_in_work() && self.owner() == Some(member)
    }

    /// Whether it is a dead letter that this member looks at.
    #[inline]
    fn is_letter_of(self, member: MemberId) -> bool {
        self.kind() == Kind::Dead && self.owner() == Some(member)
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

/// A class of slots larger than this gives its memory back.
const LARGE: usize = 64 * 1024;

/// So much is given back at a time.
const PIECE: usize = 16 << 20;

/// A free slot of the small classes is looked for among so many, before one more is used.
const WINDOW: usize = 64;

/// A slot, by its class and place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    class: usize,
    pub(crate) place: usize,
}

impl Slot {
    /// The slot as one number.
    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        (self.class as u64) << 32 | self.place as u64
    }

    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        let number = |bits: u64| usize::try_from(bits).unwrap_or(0);
        Self { class: number(bits >> 32), place: number(bits & u64::from(u32::MAX)) }
    }
}

/// Where a handle last took a slot, in each class. Hints.
#[derive(Debug, Default)]
pub(crate) struct Cursors([atomic::AtomicU32; CLASSES]);

impl Cursors {
    #[inline]
    fn get(&self, class: usize) -> usize {
        self.0[class].load(atomic::Ordering::Relaxed) as usize
    }

    fn set(&self, Slot { class, place }: Slot) {
        let place = u32::try_from(place).unwrap_or(0);
        self.0[class].store(place, atomic::Ordering::Relaxed);
    }
}

/// A task that has come back: the one that is due first is taken first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Returned {
    due: u64,
    number: u64,
    slot: Slot,
}

/// The tasks that a handle found ready when it last scanned the slots. Each is verified when it is
/// taken: another member may have been quicker.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The next one is the last.
    found: Vec<Returned>,
    /// Whether there were no others.
    is_all: bool,
    /// [`Control::returned`] before the scan.
    returned: u32,
    /// How many slots were scanned, and how many tasks were taken since.
    scanned: usize,
    taken: usize,
}

impl Batch {
    /// The most it holds.
    const MOST: usize = 1024;

    /// If nothing was left to be taken: [`Control::returned`] at that time.
    pub(crate) fn exhausted(&self) -> Option<u32> {
        (self.found.is_empty() && self.is_all).then_some(self.returned)
    }

    /// Whether it is time for another scan, now that `returned` is this. While tasks come back all
    /// the time, a scan must be worth its time: 64 slots for each task taken.
    fn is_stale(&self, returned: u32) -> bool {
        let has_changed = returned != self.returned;
        let is_time = (self.taken + 1) * 64 >= self.scanned;
        if self.found.is_empty() { has_changed || !self.is_all } else { has_changed && is_time }
    }
}

/// How many tasks are in the slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) ready: usize,
    pub(crate) returning: usize,
    pub(crate) in_work: usize,
}

/// What becomes of a dead letter: see [`Tasks::end_letter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LetterEnd {
    /// It is gone.
    Discard,
    /// It is one again.
    LayBack,
    /// It is a task again, as if it had never been delivered.
    Revive { due: u64 },
}

/// A task that has been delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) slot: Slot,
    pub(crate) number: u64,
    pub(crate) attempt: u32,
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
    fn index(&self, Slot { class, place }: Slot) -> usize {
        if class == 0 {
            return place;
        }
        let before: usize = self.members.classes()[..class].iter().map(|class| class.slots).sum();
        before + place
    }

    #[inline(always)]
    fn words(&self, slot: Slot) -> &[AtomicU64] {
        #[cfg(all(test, not(loom)))]
        tests::looked(self.members.slots());
        &self.members.slots()[self.index(slot) * WORDS..][..WORDS]
    }

    #[inline]
    fn state(&self, slot: Slot) -> State {
        State(self.words(slot)[STATE].load(Ordering::Acquire))
    }

    /// From one state to another, if nobody was quicker.
    #[inline]
    fn change(&self, slot: Slot, from: State, to: State) -> bool {
        change(&self.words(slot)[STATE], from, to)
    }

    /// All slots that have ever been in use since their class was empty.
    fn all(&self) -> impl Iterator<Item = Slot> + '_ {
        let classes = self.members.classes().iter().enumerate();
        classes.flat_map(|(class, _)| (0..self.high(class)).map(move |place| Slot { class, place }))
    }

    /// The same, from `first` on: in its class, in the other classes, and what is before it.
    fn all_from(&self, first: Slot) -> impl Iterator<Item = Slot> + '_ {
        let classes = self.members.classes().len();
        let places = |class, places: Range<usize>| places.map(move |place| Slot { class, place });
        let before = 0..first.place.min(self.high(first.class));
        let others = (1..classes).map(move |step| (first.class + step) % classes);
        places(first.class, before.end..self.high(first.class))
            .chain(others.flat_map(move |class| places(class, 0..self.high(class))))
            .chain(places(first.class, before))
    }

    #[inline]
    fn high(&self, class: usize) -> usize {
        let high = self.control.highs[class].load(Ordering::Acquire) as usize;
        high.min(self.members.classes()[class].slots)
    }

    /// Puts an item that is about to be got into a slot. Under the consumers' lock, before the
    /// commit.
    #[inline]
    pub(crate) fn take(
        &self,
        number: u64,
        bytes: &[u8],
        had_descriptors: bool,
        thread: u64,
        cursors: &Cursors,
    ) -> Result<Delivered, EngineError> {
        let taking = &self.control.taking;
        if load_locked(&taking.number) >= number {
            self.free_untaken(number);
        }
        let slot = self.find_free(bytes.len(), cursors)?;
        let words = self.words(slot);
        let attempt = 1;
        taking.slot.store(self.index(slot) as u64 + 1, Ordering::Relaxed);
        taking.number.store(number, Ordering::Relaxed);
        words[NUMBER].store(NO_NUMBER, Ordering::Relaxed);
        let held = State::new(HELD, Some(self.members.me()), attempt);
        words[STATE].store(held.0, Ordering::Release);
        failpoint::reached("task.taken");
        if !self.members.fill(slot.class, slot.place, bytes) {
            words[STATE].store(State::FREE.0, Ordering::Release);
            return Err(EngineError::OutOfMemory);
        }
        words[LENGTH].store(bytes.len() as u64, Ordering::Relaxed);
        words[FLAGS].store(u64::from(had_descriptors) * HAD_DESCRIPTORS, Ordering::Relaxed);
        words[THREAD].store(self.signature(thread), Ordering::Relaxed);
        failpoint::reached("task.filled");
        words[NUMBER].store(number, Ordering::Release);
        failpoint::reached("task.numbered");
        Ok(Delivered { slot, number, attempt })
    }

    /// If the consumer before died with a slot, and before its commit, frees that slot. `number` is
    /// the next item's.
    #[cold]
    fn free_untaken(&self, number: u64) {
        let last = usize::try_from(load_locked(&self.control.taking.slot)).unwrap_or(0);
        let slots = self.members.slots();
        let words = last.checked_sub(1).and_then(|at| slots.chunks_exact(WORDS).nth(at));
        let Some(words) = words else { return };
        let state = State(words[STATE].load(Ordering::Acquire));
        if state.kind() == Kind::Held && words[NUMBER].load(Ordering::Acquire) >= number {
            change(&words[STATE], state, State::FREE);
        }
    }

    /// Tells a thread from all those of all members.
    #[inline]
    fn signature(&self, thread: u64) -> u64 {
        u64::from(self.members.me().bits()) << 32 | thread & u64::from(u32::MAX)
    }

    /// A free slot for so many bytes: the one taken last, whose lines are in the cache, or another.
    #[inline]
    fn find_free(&self, length: usize, cursors: &Cursors) -> Result<Slot, EngineError> {
        let fits = |class: &Class| class.bytes >= length;
        let smallest =
            self.members.classes().iter().position(fits).ok_or(EngineError::TooManyTasks)?;
        let slot = Slot { class: smallest, place: cursors.get(smallest) };
        if slot.place < self.high(smallest) && self.is_free(slot) {
            return Ok(slot);
        }
        self.find_other_free(smallest, cursors)
    }

    #[inline]
    fn is_free(&self, slot: Slot) -> bool {
        self.state(slot).kind() == Kind::Free
    }

    /// Of a class that gives its memory back, the first free slot, so that those at the end become
    /// free. Of another one, a free slot among the next few, or one more: a search that ends at the
    /// first free slot would take longer with each task that is held.
    #[cold]
    fn find_other_free(&self, smallest: usize, cursors: &Cursors) -> Result<Slot, EngineError> {
        let classes = || self.members.classes().iter().enumerate().skip(smallest);
        for (class, &Class { slots, bytes }) in classes() {
            let high = self.high(class);
            let (first, count) =
                if bytes >= LARGE { (0, high) } else { (cursors.get(class) + 1, WINDOW.min(high)) };
            let slot = |place| Slot { class, place };
            let mut places = (first..first + count).map(|place| slot(place % high));
            if let Some(free) = places.find(|&slot| self.is_free(slot)) {
                cursors.set(free);
                return Ok(free);
            }
            if high < slots {
                let higher = u32::try_from(high + 1).unwrap_or(u32::MAX);
                self.control.highs[class].store(higher, Ordering::Release);
                cursors.set(slot(high));
                return Ok(slot(high));
            }
            cursors.set(slot((first + count) % high.max(1)));
        }
        // All are in use, as far as was looked.
        for (class, _) in classes() {
            let mut places = (0..self.high(class)).map(|place| Slot { class, place });
            if let Some(free) = places.find(|&slot| self.is_free(slot)) {
                cursors.set(free);
                return Ok(free);
            }
        }
        Err(EngineError::TooManyTasks)
    }

    /// The task that this member works on is done. False: it was not this member's. To be called by
    /// the thread that has it: nobody else changes the task of a living member, so a store is
    /// enough. (An exchange would wait until all that was written before has left the processor.)
    #[inline]
    pub(crate) fn done(&self, slot: Slot) -> bool {
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
        let detached = State::new(DETACHED, state.owner(), state.attempt());
        state.is_of(self.members.me()) && self.change(slot, state, detached)
    }

    /// The task that this member has detached is done. False: it was not this member's.
    pub(crate) fn detached_done(&self, slot: Slot) -> bool {
        let state = self.state(slot);
        let is_mine = state.kind() == Kind::Detached && state.is_of(self.members.me());
        is_mine && self.change(slot, state, State::FREE)
    }

    #[inline]
    fn number(&self, slot: Slot) -> u64 {
        self.words(slot)[NUMBER].load(Ordering::Acquire)
    }

    /// Puts a task back, that this member does not finish. `due` is the number that the next item
    /// put will have: what is there now comes first.
    pub(crate) fn put_back(&self, slot: Slot, due: u64) -> bool {
        let state = self.state(slot);
        if !state.is_of(self.members.me()) {
            return false;
        }
        self.words(slot)[THREAD].store(0, Ordering::Relaxed);
        self.give_up(slot, state, due)
    }

    /// Puts the tasks of dead members back. `consumed` reads the consumers' count. Whether there were
    /// any. The search begins at `first`, and ends there or when the deadline passes: then it returns
    /// where to begin the next one.
    ///
    /// Some system calls: one for each owner.
    pub(crate) fn reclaim(
        &self,
        first: Slot,
        consumed: impl Fn() -> Option<u64>,
        due: u64,
        deadline: Deadline,
    ) -> (bool, Slot) {
        /// So many owners are asked about whatever the time is.
        const LEAST: usize = 16;
        let me = self.members.me();
        // The consumers' count, of those that are dead: it was read after their death.
        let mut owners: HashMap<Option<MemberId>, Option<u64>> = HashMap::new();
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
                if is_alive { None } else { consumed() }
            });
            let Some(consumed) = dead else { continue };
            match state.kind() {
                Kind::Dead => _ = self.change(slot, state, State::new(DEAD, None, state.attempt())),
                Kind::Returning => any |= self.bring_back(slot, state, state.attempt(), due),
                // Its owner is dead, so the number is what it will stay; the commit came after it, or
                // never will.
                _ => {
                    let number = self.number(slot);
                    failpoint::reached("task.reclaiming");
                    any |= match number < consumed {
                        true => self.give_up(slot, state, due),
                        false => self.change(slot, state, State::FREE),
                    };
                }
            }
        }
        (any, first)
    }

    /// To be delivered again; or, if that makes no sense any more, a dead letter.
    fn give_up(&self, slot: Slot, state: State, due: u64) -> bool {
        let flags = self.words(slot)[FLAGS].load(Ordering::Relaxed);
        let attempt = state.attempt();
        if flags & HAD_DESCRIPTORS == 0 && attempt < self.max_attempts {
            return self.bring_back(slot, state, attempt.saturating_add(1), due);
        }
        let changed = self.change(slot, state, State::new(DEAD, None, attempt));
        failpoint::reached("task.given_up");
        if changed {
            self.control.died.fetch_add(1, Ordering::Relaxed);
        }
        changed
    }

    /// Makes a slot `Ready` by the steps of invariant 4. False: another member was quicker.
    fn bring_back(&self, slot: Slot, from: State, attempt: u32, due: u64) -> bool {
        let returning = State::new(READY, Some(self.members.me()), attempt);
        if !self.change(slot, from, returning) {
            return false;
        }
        failpoint::reached("task.returning");
        self.words(slot)[DUE].store(due, Ordering::Relaxed);
        self.control.returned.fetch_add(1, Ordering::AcqRel);
        fence_after_rmw();
        let changed = self.change(slot, returning, State::new(READY, None, attempt));
        failpoint::reached("task.given_up");
        changed
    }

    /// This member does not deliver the task again: it cannot be decoded.
    pub(crate) fn bury(&self, slot: Slot) {
        let state = self.state(slot);
        let dead = State::new(DEAD, None, state.attempt());
        if state.is_of(self.members.me()) && self.change(slot, state, dead) {
            self.control.died.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes a task that has come back, of those that are due, and appends its bytes. It scans the
    /// slots once at most.
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
            if let Some(task) = self.seize(next.slot, Kind::Ready, HELD, bytes)? {
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

    /// The task in a slot that is ready.
    fn back(&self, slot: Slot) -> Option<Returned> {
        let words = self.words(slot);
        let is_ready = self.state(slot).kind() == Kind::Ready;
        let due = words[DUE].load(Ordering::Relaxed);
        is_ready.then(|| Returned { due, number: self.number(slot), slot })
    }

    /// Makes a slot of nobody, of kind `from`, this member's own, and appends its bytes. `None`:
    /// somebody was quicker.
    fn seize(
        &self,
        slot: Slot,
        from: Kind,
        to: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<Delivered>, EngineError> {
        let state = self.state(slot);
        let attempt = state.attempt();
        let mine = State::new(to, Some(self.members.me()), attempt);
        let is_anybodys = from == Kind::Ready || state.owner().is_none();
        if state.kind() != from || !is_anybodys || !self.change(slot, state, mine) {
            return Ok(None);
        }
        failpoint::reached("task.seized");
        let length = usize::try_from(self.words(slot)[LENGTH].load(Ordering::Relaxed));
        let most = self.members.classes()[slot.class].bytes.min(self.longest);
        let Some(length) = length.ok().filter(|&length| length <= most) else {
            // Nobody can do anything with it. As a dead letter, it is in nobody's way.
            self.change(slot, mine, State::new(DEAD, None, attempt));
            return Err(EngineError::Corrupted("the length of a task"));
        };
        self.members.append_to(slot.class, slot.place, length, bytes);
        Ok(Some(Delivered { slot, number: self.number(slot), attempt }))
    }

    /// The dead letters that nobody looks at, from the oldest on.
    pub(crate) fn letters(&self) -> Vec<Slot> {
        let is_letter = |state: State| state.kind() == Kind::Dead && state.owner().is_none();
        let letters = self.all().filter(|&slot| is_letter(self.state(slot)));
        let mut letters: Vec<_> = letters.map(|slot| (self.number(slot), slot)).collect();
        letters.sort_unstable();
        letters.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Takes a dead letter, and appends its bytes. Whether it had descriptors comes with it. `None`: it
    /// is none any more.
    pub(crate) fn take_letter(
        &self,
        slot: Slot,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<(Delivered, bool)>, EngineError> {
        let letter = self.seize(slot, Kind::Dead, DEAD, bytes)?;
        let flags = self.words(slot)[FLAGS].load(Ordering::Relaxed);
        Ok(letter.map(|task| (task, flags & HAD_DESCRIPTORS != 0)))
    }

    /// What becomes of a dead letter that this member has taken.
    pub(crate) fn end_letter(&self, slot: Slot, end: LetterEnd) {
        let state = self.state(slot);
        if !state.is_letter_of(self.members.me()) {
            return;
        }
        match end {
            LetterEnd::Discard => self.change(slot, state, State::FREE),
            LetterEnd::LayBack => self.change(slot, state, State::new(DEAD, None, state.attempt())),
            LetterEnd::Revive { due } => self.bring_back(slot, state, 1, due),
        };
    }

    /// How many dead letters there are.
    pub(crate) fn dead(&self) -> usize {
        self.all().filter(|&slot| self.state(slot).kind() == Kind::Dead).count()
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

    /// Discards the tasks that wait to be delivered again: nobody takes one any more. With
    /// `is_orphaned`, all others as well: no process is left that could end one, or look at a dead
    /// letter.
    #[cold]
    pub(crate) fn discard(&self, is_orphaned: bool) {
        for slot in self.all() {
            let state = self.state(slot);
            if state.kind() == Kind::Ready || is_orphaned {
                self.change(slot, state, State::FREE);
            }
        }
    }

    /// How many pieces of memory [`trim`](Self::trim) can give back at most, if none is used anew.
    pub(crate) fn pieces(&self) -> usize {
        let large = self.members.classes().iter().filter(|class| class.bytes >= LARGE);
        large.map(|class| class.slots.div_ceil(PIECE.div_ceil(class.bytes))).sum()
    }

    /// Gives the memory of large slots back that are not in use and have none behind them that is: a
    /// piece of it. Whether there is more. Under the consumers' lock.
    pub(crate) fn trim(&self, now: Duration) -> bool {
        for (class, &Class { bytes, .. }) in self.members.classes().iter().enumerate() {
            if bytes < LARGE {
                continue;
            }
            let high = self.high(class);
            let is_free = |&place: &usize| self.is_free(Slot { class, place });
            let most = PIECE.div_ceil(bytes);
            let free = (0..high).rev().take(most).take_while(is_free).count();
            if free > 0 {
                let low = high - free;
                self.control.highs[class].store(u32::try_from(low).unwrap_or(0), Ordering::Release);
                self.members.give_back(class, low..high);
                self.control.taking.trimmed_at.store(millis(now), Ordering::Relaxed);
                return true;
            }
        }
        false
    }

    /// Whether memory has not been given back for a while: taking it again costs more than filling
    /// it.
    pub(crate) fn is_time_to_trim(&self, now: Duration) -> bool {
        const INTERVAL: u64 = 100;
        let before = self.control.taking.trimmed_at.load(Ordering::Relaxed);
        millis(now).wrapping_sub(before) >= INTERVAL
    }
}

#[inline]
fn change(word: &AtomicU64, from: State, to: State) -> bool {
    let changed = word.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed);
    fence_after_rmw();
    changed.is_ok()
}

/// How many slots are looked at.
#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;
    use std::iter;
    use std::thread;
    use std::time::Duration;

    use multiproc_shm::members::Members;
    use multiproc_testkit::watchdog;

    use super::*;
    use crate::{JoinableQueue, Receipt, Task};

    thread_local! {
        /// How often this thread has looked at a slot.
        static LOOKS: Cell<u64> = const { Cell::new(0) };
        /// What another process does to the slots before each look.
        static FORGE: Cell<Option<Forge>> = const { Cell::new(None) };
    }

    type Forge = fn(&[AtomicU64], u64);

    pub(super) fn looked(slots: &[AtomicU64]) {
        LOOKS.set(LOOKS.get() + 1);
        if let Some(forge) = FORGE.get() {
            forge(slots, LOOKS.get());
        }
    }

    const TASKS: u32 = 4000;

    fn looks_of(act: impl FnOnce()) -> u64 {
        let before = LOOKS.get();
        act();
        LOOKS.get() - before
    }

    fn take_all(jobs: &JoinableQueue<u32>) -> Vec<Task<u32>> {
        (0..TASKS).map(|_| jobs.get().unwrap()).collect()
    }

    #[test]
    fn taking_a_task_looks_at_few_slots_however_many_are_held() {
        let jobs = JoinableQueue::unbounded().unwrap();
        jobs.put_many(0..TASKS).unwrap();
        let mut tasks = Vec::new();
        let looks = looks_of(|| tasks = take_all(&jobs));
        assert!(looks < u64::from(TASKS) * 100, "{looks}");
        // Neither does taking them once more, beside others that are fresh.
        tasks.clear();
        jobs.put_many(0..TASKS).unwrap();
        let looks = looks_of(|| tasks = take_all(&jobs));
        assert!(tasks.iter().all(|task| task.attempt() == 2));
        assert!(looks < u64::from(TASKS) * 100, "{looks}");
        let looks = looks_of(|| tasks.extend(take_all(&jobs)));
        assert!(looks < u64::from(TASKS) * 200, "{looks}");
        tasks.clear();
        // Until now, all were held at once.
        let looks = looks_of(|| iter::from_fn(|| jobs.try_get().ok()).for_each(Task::task_done));
        assert!(looks < u64::from(TASKS) * 200, "{looks}");
        assert_eq!(jobs.unfinished(), 0);
    }

    #[test]
    fn taking_fresh_tasks_looks_at_few_slots_while_others_wait_for_their_turn() {
        let jobs = JoinableQueue::unbounded().unwrap();
        jobs.put_many(0..2 * TASKS).unwrap();
        drop(take_all(&jobs));
        let looks = looks_of(|| {
            for n in TASKS..2 * TASKS {
                let task = jobs.get().unwrap();
                assert_eq!((*task, task.attempt()), (n, 1));
                task.task_done();
            }
        });
        assert!(looks < u64::from(TASKS) * 100, "{looks}");
    }

    #[test]
    fn a_completion_looks_at_few_slots_while_a_thread_joins() {
        let jobs = JoinableQueue::unbounded().unwrap();
        jobs.put_many(0..2 * TASKS).unwrap();
        let tasks = take_all(&jobs);
        thread::scope(|scope| {
            let joiner = scope.spawn(|| jobs.join().unwrap());
            let all_done = jobs.core.store.region.control().tasks.all_done();
            let end = |tasks: Vec<Task<u32>>| {
                tasks.into_iter().for_each(|task| {
                    // It sleeps, or so it seems to whoever completes a task.
                    while !all_done.has_sleepers() {
                        thread::yield_now();
                    }
                    task.task_done();
                });
            };
            // While something is in the ring, nothing needs to be looked at but the slot itself.
            let looks = looks_of(|| end(tasks));
            assert!(looks <= u64::from(TASKS) * 2, "{looks}");
            // Without that, one that is in work, mostly the same as before.
            let tasks = take_all(&jobs);
            let looks = looks_of(|| end(tasks));
            assert!(looks < u64::from(TASKS) * 10, "{looks}");
            joiner.join().unwrap();
        });
    }

    /// Slots in use while they are forged.
    const FORGED: usize = 16;

    /// Each time, each is another task.
    fn forge_all(slots: &[AtomicU64], kind: u64, owner: fn(u64) -> u64, looks: u64) {
        for (n, slot) in slots.chunks_exact(WORDS).take(FORGED).enumerate() {
            let n = looks + n as u64;
            slot[NUMBER].store(n, Ordering::Relaxed);
            slot[DUE].store(0, Ordering::Relaxed);
            slot[STATE].store((n + 1) << 32 | kind | owner(n), Ordering::Relaxed);
        }
    }

    /// Whatever another process makes of the slots, each call ends, and looks at each slot a few times.
    #[test]
    fn forged_slots_bound_what_each_call_looks_at() {
        /// Of nobody, of the creator, of a member that there never was, each time another one.
        const OWNERS: [fn(u64) -> u64; 3] = [|_| 0, |_| 1 << 10, |n| 0x1_0400 + (n << 10)];
        let forges: [Forge; 5] = [
            |slots, looks| forge_all(slots, READY, OWNERS[0], looks),
            |slots, looks| forge_all(slots, DEAD, OWNERS[0], looks),
            |slots, looks| forge_all(slots, DETACHED, OWNERS[1], looks),
            |slots, looks| forge_all(slots, HELD, OWNERS[2], looks),
            |slots, looks| forge_all(slots, READY, OWNERS[2], looks),
        ];
        let _dog = watchdog();
        for (n, forge) in forges.into_iter().enumerate() {
            let jobs = JoinableQueue::<u32>::unbounded().unwrap();
            assert_eq!(u64::from(jobs.core.store.region.me().bits()), 1 << 10, "as forged above");
            jobs.put_many(0..100).unwrap();
            let mut tasks: Vec<_> = (0..FORGED).map(|_| jobs.get().unwrap()).collect();
            let (_, receipt) = tasks.pop().unwrap().into_parts();
            let _detached = tasks.pop().unwrap().detach();
            let task = tasks.pop().unwrap();
            FORGE.set(Some(forge));
            let forged = |name: &str, act: &mut dyn FnMut()| {
                // Something seems to have come back.
                let control = jobs.core.store.region.control();
                control.tasks.returned.fetch_add(1, Ordering::Relaxed);
                let looks = looks_of(act);
                assert!(looks <= 100 * FORGED as u64 * 10, "forge {n}: {name}: {looks}");
            };
            let moment = Duration::ZERO;
            forged("try_get", &mut || drop(jobs.try_get()));
            forged("get_timeout", &mut || drop(jobs.get_timeout(moment)));
            forged("dead_letters", &mut || {
                let letters = jobs.dead_letters();
                assert!(letters.map_or(0, |letters| letters.len()) <= FORGED);
            });
            forged("unfinished", &mut || _ = jobs.unfinished());
            forged("len", &mut || _ = jobs.len());
            forged("join", &mut || _ = jobs.join_timeout(moment));
            forged("detached", &mut || jobs.task_done().unwrap());
            let (mut receipt, mut task) = (Some(receipt), Some(task));
            forged("receipt", &mut || receipt.take().into_iter().for_each(Receipt::task_done));
            forged("put_back", &mut || task.take().into_iter().for_each(Task::put_back));
            FORGE.set(None);
        }
    }
}
