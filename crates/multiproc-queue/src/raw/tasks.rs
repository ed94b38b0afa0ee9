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
//!    change it), by its owner or, if none lives, by anybody. So each happens once, and there is nothing in between. What it compares with is the
//!    whole word as it was found, whatever is in it.
//! 3. A task goes from the ring into a slot, and never back. So there is none left when there was
//!    none in the ring, then none in the slots, and meanwhile nothing was put or got.

use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

use multiproc_shm::event_count::Waiters;
use multiproc_shm::failpoint as fault;
use multiproc_shm::fences::LightFence;
use multiproc_shm::members::{MemberId, Members};
#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Ordering, fence_after_rmw, load_locked};

use super::blocks::millis;
use super::ring::Fault;

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
    all_done: Waiters<LightFence>,
    /// How often a task has come back. A hint to look for them.
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

    pub(crate) fn all_done(&self) -> &Waiters<LightFence> {
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
    /// The same, but the owner has let go of it, and will say of one of those that it is done.
    Detached,
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

    fn new(kind: u64, owner: Option<MemberId>, attempt: u32) -> Self {
        let owner = owner.map_or(0, |owner| u64::from(owner.bits()));
        Self(u64::from(attempt) << 32 | kind | owner)
    }

    pub(crate) fn kind(self) -> Kind {
        match self.0 & DEAD {
            _ if self == Self::FREE => Kind::Free,
            HELD => Kind::Held,
            DETACHED => Kind::Detached,
            READY => Kind::Ready,
            _ => Kind::Dead,
        }
    }

    /// Whose it is: `Held` and `Detached` have an owner.
    fn owner(self) -> Option<MemberId> {
        u32::try_from(self.0 & OWNER).ok().and_then(MemberId::from_bits)
    }

    fn attempt(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(0)
    }

    fn is_in_work(self) -> bool {
        matches!(self.kind(), Kind::Held | Kind::Detached)
    }

    /// Whether it is a task that this member works on.
    fn is_of(self, member: MemberId) -> bool {
        self.is_in_work() && self.owner() == Some(member)
    }

    /// Whether it is a dead letter that this member looks at.
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

/// A slot, by its class and place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    class: usize,
    pub(crate) place: usize,
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
        favourite: usize,
    ) -> Result<Delivered, Fault> {
        let taking = &self.control.taking;
        if load_locked(&taking.number) >= number {
            self.free_untaken(number);
        }
        let slot = self.find_free(bytes.len(), favourite)?;
        let words = self.words(slot);
        let attempt = 1;
        taking.slot.store(self.index(slot) as u64 + 1, Ordering::Relaxed);
        taking.number.store(number, Ordering::Relaxed);
        words[NUMBER].store(NO_NUMBER, Ordering::Relaxed);
        let held = State::new(HELD, Some(self.members.me()), attempt);
        words[STATE].store(held.0, Ordering::Release);
        fault::reached("task.taken");
        if !self.members.fill(slot.class, slot.place, bytes) {
            words[STATE].store(State::FREE.0, Ordering::Release);
            return Err(Fault::OutOfMemory);
        }
        words[LENGTH].store(bytes.len() as u64, Ordering::Relaxed);
        words[FLAGS].store(u64::from(had_descriptors) * HAD_DESCRIPTORS, Ordering::Relaxed);
        words[THREAD].store(self.signature(thread), Ordering::Relaxed);
        fault::reached("task.filled");
        words[NUMBER].store(number, Ordering::Release);
        fault::reached("task.numbered");
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

    /// A free slot for so many bytes: the caller's favourite, whose lines are in its cache; else the
    /// first one, so that few are in use.
    #[inline]
    fn find_free(&self, length: usize, favourite: usize) -> Result<Slot, Fault> {
        let fits = |class: &Class| class.bytes >= length;
        let smallest = self.members.classes().iter().position(fits).ok_or(Fault::TooManyTasks)?;
        let slot = Slot { class: smallest, place: favourite };
        if favourite < self.high(smallest) && self.state(slot).kind() == Kind::Free {
            return Ok(slot);
        }
        self.find_first_free(smallest)
    }

    #[cold]
    fn find_first_free(&self, smallest: usize) -> Result<Slot, Fault> {
        for (class, &Class { slots, .. }) in
            self.members.classes().iter().enumerate().skip(smallest)
        {
            let high = self.high(class);
            for place in 0..high {
                let slot = Slot { class, place };
                if self.state(slot).kind() == Kind::Free {
                    return Ok(slot);
                }
            }
            if high < slots {
                let higher = u32::try_from(high + 1).unwrap_or(u32::MAX);
                self.control.highs[class].store(higher, Ordering::Release);
                return Ok(Slot { class, place: high });
            }
        }
        Err(Fault::TooManyTasks)
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
        fault::reached("task.doing");
        self.words(slot)[STATE].store(State::FREE.0, Ordering::Release);
        fault::reached("task.done");
        true
    }

    /// Lets go of a task that will be ended later.
    pub(crate) fn detach(&self, slot: Slot) {
        let state = self.state(slot);
        if state.is_of(self.members.me()) {
            self.change(slot, state, State::new(DETACHED, state.owner(), state.attempt()));
        }
    }

    /// One of the detached tasks of this member is done: the one that was put first. False: there is
    /// none.
    pub(crate) fn detached_done(&self) -> bool {
        let me = self.members.me();
        let mine = |slot| {
            let state = self.state(slot);
            (state.kind() == Kind::Detached && state.is_of(me)).then_some((slot, state))
        };
        // Another thread may be quicker: then there may be another one.
        while let Some((slot, state)) =
            self.all().filter_map(mine).min_by_key(|&(slot, _)| self.number(slot))
        {
            if self.change(slot, state, State::FREE) {
                return true;
            }
        }
        false
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

    /// Puts the tasks of dead members back. `consumed` is the consumers' count, and was read before.
    /// Whether there were any.
    ///
    /// Some system calls: one for each owner.
    pub(crate) fn reclaim(&self, consumed: impl Fn() -> Option<u64>, due: u64) -> bool {
        let me = self.members.me();
        // Tasks of one owner often lie side by side.
        let asked: Cell<Option<(MemberId, bool)>> = Cell::new(None);
        let is_alive = |owner: MemberId| match asked.get() {
            Some((same, is_alive)) if same == owner => is_alive,
            _ => {
                let is_alive = owner == me || self.members.is_alive(owner);
                asked.set(Some((owner, is_alive)));
                is_alive
            }
        };
        let mut any = false;
        for slot in self.all() {
            let state = self.state(slot);
            match (state.kind(), state.owner()) {
                (Kind::Free | Kind::Ready, _) | (Kind::Dead, None) => continue,
                (_, Some(owner)) if is_alive(owner) => continue,
                (Kind::Dead, Some(_)) => {
                    self.change(slot, state, State::new(DEAD, None, state.attempt()));
                    continue;
                }
                (Kind::Held | Kind::Detached, _) => {}
            }
            // Its owner is dead, so the number is what it will stay; the commit came after it, or
            // never will.
            let number = self.number(slot);
            let Some(consumed) = consumed() else { return any };
            fault::reached("task.reclaiming");
            any |= match number < consumed {
                true => self.give_up(slot, state, due),
                false => self.change(slot, state, State::FREE),
            };
        }
        any
    }

    /// To be delivered again; or, if that makes no sense any more, a dead letter.
    fn give_up(&self, slot: Slot, state: State, due: u64) -> bool {
        let words = self.words(slot);
        let had_descriptors = words[FLAGS].load(Ordering::Relaxed) & HAD_DESCRIPTORS != 0;
        let next = if had_descriptors || state.attempt() >= self.max_attempts {
            State::new(DEAD, None, state.attempt())
        } else {
            words[DUE].store(due, Ordering::Relaxed);
            State::new(READY, None, state.attempt().saturating_add(1))
        };
        let changed = self.change(slot, state, next);
        fault::reached("task.given_up");
        if changed && next.kind() == Kind::Ready {
            self.control.returned.fetch_add(1, Ordering::AcqRel);
            fence_after_rmw();
        } else if changed {
            self.control.died.fetch_add(1, Ordering::Relaxed);
        }
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

    /// Takes a task that has come back, of those whose time has come, and appends its bytes.
    pub(crate) fn take_returned(
        &self,
        consumed: u64,
        thread: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<Delivered>, Fault> {
        loop {
            let due = |slot: Slot| self.words(slot)[DUE].load(Ordering::Relaxed);
            let first = self
                .all()
                .filter(|&slot| self.state(slot).kind() == Kind::Ready && due(slot) <= consumed)
                .min_by_key(|&slot| (due(slot), self.number(slot)));
            let Some(slot) = first else { return Ok(None) };
            if let Some(task) = self.seize(slot, Kind::Ready, HELD, bytes)? {
                self.words(slot)[THREAD].store(self.signature(thread), Ordering::Relaxed);
                self.control.redelivered.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(task));
            }
        }
    }

    /// Makes a slot of nobody, of kind `from`, this member's own, and appends its bytes. `None`:
    /// somebody was quicker.
    fn seize(
        &self,
        slot: Slot,
        from: Kind,
        to: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<Delivered>, Fault> {
        let state = self.state(slot);
        let attempt = state.attempt();
        let mine = State::new(to, Some(self.members.me()), attempt);
        let is_anybodys = from == Kind::Ready || state.owner().is_none();
        if state.kind() != from || !is_anybodys || !self.change(slot, state, mine) {
            return Ok(None);
        }
        fault::reached("task.seized");
        let length = usize::try_from(self.words(slot)[LENGTH].load(Ordering::Relaxed));
        let most = self.members.classes()[slot.class].bytes;
        let Some(length) = length.ok().filter(|&length| length <= most) else {
            // Nobody can do anything with it. As a dead letter, it is in nobody's way.
            self.change(slot, mine, State::new(DEAD, None, attempt));
            return Err(Fault::Corrupted("the length of a task"));
        };
        self.members.append_to(slot.class, slot.place, length, bytes);
        Ok(Some(Delivered { slot, number: self.number(slot), attempt }))
    }

    /// Takes the dead letter with the least number that is above `after`, and appends its bytes.
    /// Whether it had descriptors comes with it.
    pub(crate) fn take_letter(
        &self,
        after: Option<u64>,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<(Delivered, bool)>, Fault> {
        loop {
            let is_next = |slot: &Slot| {
                let state = self.state(*slot);
                let is_dead = state.kind() == Kind::Dead && state.owner().is_none();
                is_dead && after.is_none_or(|after| self.number(*slot) > after)
            };
            let first = self.all().filter(is_next).min_by_key(|&slot| self.number(slot));
            let Some(slot) = first else { return Ok(None) };
            if let Some(task) = self.seize(slot, Kind::Dead, DEAD, bytes)? {
                let flags = self.words(slot)[FLAGS].load(Ordering::Relaxed);
                return Ok(Some((task, flags & HAD_DESCRIPTORS != 0)));
            }
        }
    }

    /// What becomes of a dead letter that this member has taken.
    pub(crate) fn end_letter(&self, slot: Slot, end: LetterEnd) {
        let state = self.state(slot);
        if !state.is_letter_of(self.members.me()) {
            return;
        }
        let next = match end {
            LetterEnd::Discard => State::FREE,
            LetterEnd::LayBack => State::new(DEAD, None, state.attempt()),
            LetterEnd::Revive { due } => {
                self.words(slot)[DUE].store(due, Ordering::Relaxed);
                State::new(READY, None, 1)
            }
        };
        self.change(slot, state, next);
        if next.kind() == Kind::Ready {
            self.control.returned.fetch_add(1, Ordering::AcqRel);
            fence_after_rmw();
        }
    }

    fn count(&self, is_one: impl Fn(Slot, State) -> bool) -> usize {
        self.all().filter(|&slot| is_one(slot, self.state(slot))).count()
    }

    /// How many tasks wait to be delivered again.
    pub(crate) fn ready(&self) -> usize {
        self.count(|_, state| state.kind() == Kind::Ready)
    }

    /// How many dead letters there are.
    pub(crate) fn dead(&self) -> usize {
        self.count(|_, state| state.kind() == Kind::Dead)
    }

    /// How many tasks are in work. Those that the consumers' count does not cover are being taken,
    /// and are in the ring as yet.
    pub(crate) fn in_work(&self, consumed: u64) -> usize {
        self.count(|slot, state| state.is_in_work() && self.number(slot) < consumed)
    }

    /// How many tasks were got and are neither done nor dead.
    pub(crate) fn unfinished(&self, consumed: u64) -> usize {
        self.count(|slot, state| {
            state.kind() == Kind::Ready || state.is_in_work() && self.number(slot) < consumed
        })
    }

    /// Whether any task may come back while this thread waits for it: not those that it has itself,
    /// and not those that end with the process.
    pub(crate) fn may_come_back(&self, thread: u64) -> bool {
        self.all().any(|slot| {
            let state = self.state(slot);
            match state.kind() {
                Kind::Ready => true,
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

    /// Gives the memory of large slots back that are not in use and have none behind them that is: a
    /// piece of it. Whether there is more. Under the consumers' lock.
    pub(crate) fn trim(&self, now: Duration) -> bool {
        /// Smaller ones stay: the memory of all of them is little.
        const LARGE: usize = 64 * 1024;
        /// So much at a time.
        const PIECE: usize = 16 << 20;
        for (class, &Class { bytes, .. }) in self.members.classes().iter().enumerate() {
            if bytes < LARGE {
                continue;
            }
            let high = self.high(class);
            let is_free = |&place: &usize| self.state(Slot { class, place }).kind() == Kind::Free;
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
