//! Allocating slots for new tasks, and releasing the memory of large ones.

use std::sync::atomic;
use std::time::Duration;

use multiproc_shm::failpoint;
use multiproc_shm::members::Members;
use multiproc_shm::primitives::{Ordering, load_locked};

use super::error::EngineError;
use super::overflow::millis;
use super::slot::{
    ENDS, FLAGS, HAD_DESCRIPTORS, HELD, Kind, LENGTH, NO_NUMBER, NUMBER, STATE, Slot, State,
    THREAD, WORDS, change,
};
use super::slots::{CLASSES, Class, Delivered, Places, Tasks};

/// Classes of at least this size release their memory.
const LARGE: usize = 64 * 1024;

/// The number of bytes that are released at a time.
const PIECE: usize = 16 << 20;

/// The number of slots of a small class that are searched for a free one, before another slot is
/// used.
const WINDOW: usize = 64;

/// Where a handle last allocated a slot, in each class. These are hints.
#[derive(Debug, Default)]
pub(crate) struct SlotHints([atomic::AtomicU32; CLASSES]);

impl SlotHints {
    #[inline]
    fn get(&self, class: usize) -> usize {
        self.0[class].load(atomic::Ordering::Relaxed) as usize
    }

    fn set(&self, Slot { class, place }: Slot) {
        let place = u32::try_from(place).unwrap_or(0);
        self.0[class].store(place, atomic::Ordering::Relaxed);
    }
}

impl<M: Members + Places> Tasks<'_, M> {
    /// Copies an item that is about to be got into a slot. The caller holds the consumers' lock,
    /// and commits afterwards.
    #[inline]
    pub(crate) fn allocate(
        &self,
        number: u64,
        bytes: &[u8],
        had_descriptors: bool,
        thread: u64,
        slot_hints: &SlotHints,
    ) -> Result<Delivered, EngineError> {
        let taking = &self.control.taking;
        if load_locked(&taking.number) >= number {
            self.free_untaken(number);
        }
        let slot = self.find_free(bytes.len(), slot_hints)?;
        let words = self.words(slot);
        let deliveries = 1;
        taking.slot.store(self.index(slot) as u64 + 1, Ordering::Relaxed);
        taking.number.store(number, Ordering::Relaxed);
        words[NUMBER].store(NO_NUMBER, Ordering::Relaxed);
        let held = State::new(HELD, Some(self.members.me()), deliveries);
        words[STATE].store(held.0, Ordering::Release);
        failpoint::reached("task.taken");
        if !self.members.fill(slot.class, slot.place, bytes) {
            words[STATE].store(State::FREE.0, Ordering::Release);
            return Err(EngineError::OutOfMemory);
        }
        words[LENGTH].store(bytes.len() as u64, Ordering::Relaxed);
        words[FLAGS].store(u64::from(had_descriptors) * HAD_DESCRIPTORS, Ordering::Relaxed);
        words[THREAD].store(self.signature(thread), Ordering::Relaxed);
        words[ENDS].store(0, Ordering::Relaxed);
        self.sign(slot);
        failpoint::reached("task.filled");
        words[NUMBER].store(number, Ordering::Release);
        failpoint::reached("task.numbered");
        Ok(Delivered { slot, number, deliveries })
    }

    /// Frees the slot of a previous consumer that died before its commit. `number` is that of the
    /// next item.
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

    /// Returns a free slot for `length` bytes: the one that was used last, whose cache lines are
    /// warm, or another one.
    #[inline]
    fn find_free(&self, length: usize, slot_hints: &SlotHints) -> Result<Slot, EngineError> {
        let fits = |class: &Class| class.bytes >= length;
        let smallest =
            self.members.classes().iter().position(fits).ok_or(EngineError::TooManyTasks)?;
        let slot = Slot { class: smallest, place: slot_hints.get(smallest) };
        if slot.place < self.high(smallest) && self.is_free(slot) {
            return Ok(slot);
        }
        self.find_other_free(smallest, slot_hints)
    }

    #[inline]
    fn is_free(&self, slot: Slot) -> bool {
        self.state(slot).kind() == Kind::Free
    }

    /// Returns another free slot. In a class that releases its memory, it is the first free one, so
    /// that those at the end become free. In other classes, it is one of the next few, or one that
    /// was never used: a search for the first free slot would take longer with each task in
    /// progress.
    #[cold]
    fn find_other_free(
        &self,
        smallest: usize,
        slot_hints: &SlotHints,
    ) -> Result<Slot, EngineError> {
        let classes = || self.members.classes().iter().enumerate().skip(smallest);
        for (class, &Class { slots, bytes }) in classes() {
            let high = self.high(class);
            let (first, count) = if bytes >= LARGE {
                (0, high)
            } else {
                (slot_hints.get(class) + 1, WINDOW.min(high))
            };
            let slot = |place| Slot { class, place };
            let mut places = (first..first + count).map(|place| slot(place % high));
            if let Some(free) = places.find(|&slot| self.is_free(slot)) {
                slot_hints.set(free);
                return Ok(free);
            }
            if high < slots {
                let higher = u32::try_from(high + 1).unwrap_or(u32::MAX);
                self.control.highs[class].store(higher, Ordering::Release);
                slot_hints.set(slot(high));
                return Ok(slot(high));
            }
            slot_hints.set(slot((first + count) % high.max(1)));
        }
        // All slots that were searched are in use.
        for (class, _) in classes() {
            let mut places = (0..self.high(class)).map(|place| Slot { class, place });
            if let Some(free) = places.find(|&slot| self.is_free(slot)) {
                slot_hints.set(free);
                return Ok(free);
            }
        }
        Err(EngineError::TooManyTasks)
    }

    /// Discards the tasks that wait to be delivered again, which no process takes any more. With
    /// `is_orphaned`, discards those in progress as well: no process is left that could end one.
    /// Dead letters stay, because a process that puts and joins can examine them.
    #[cold]
    pub(crate) fn discard(&self, is_orphaned: bool) {
        for slot in self.all() {
            let state = self.state(slot);
            if state.kind() == Kind::Ready || is_orphaned && state.kind() != Kind::Dead {
                self.change(slot, state, State::FREE);
            }
        }
    }

    /// Returns how many pieces of memory [`trim`](Self::trim) can release at most, if none is used
    /// again.
    pub(crate) fn pieces(&self) -> usize {
        let large = self.members.classes().iter().filter(|class| class.bytes >= LARGE);
        large.map(|class| class.slots.div_ceil(PIECE.div_ceil(class.bytes))).sum()
    }

    /// Releases the memory of large slots that are free and have no used slot after them: one
    /// piece. Returns `true` if there may be more. The caller holds the consumers' lock.
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

    /// Returns `true` if no memory was released for a while: reserving it again is more expensive
    /// than filling it.
    pub(crate) fn is_time_to_trim(&self, now: Duration) -> bool {
        const INTERVAL: u64 = 100;
        let before = self.control.taking.trimmed_at.load(Ordering::Relaxed);
        millis(now).wrapping_sub(before) >= INTERVAL
    }
}
