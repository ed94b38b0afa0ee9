//! Dead letters: tasks that are not delivered any more.

use std::collections::BTreeSet;

use multiproc_shm::failpoint;
use multiproc_shm::members::Members;
use multiproc_shm::primitives::Ordering;

use super::error::EngineError;
use super::slot::{DEAD, FLAGS, HAD_DESCRIPTORS, Kind, Slot, State};
use super::slots::{Delivered, Places, Tasks};
use super::worker::End;

/// What happens to a dead letter at the end of its examination: see [`Tasks::end_letter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LetterEnd {
    /// It is removed.
    Discard,
    /// It stays a dead letter.
    LayBack,
    /// It becomes a task again, as if it had never been delivered.
    Revive { due: u64 },
}

/// The dead letters that a handle has seen.
///
/// A letter is new if its number is not among these, or if the generation has changed: the same
/// task may have been put again, and become a dead letter once more. The generation changes before
/// and after each death, and before a letter is put again. So a letter is found even if the process
/// that made it one was killed in between.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    generation: u32,
    numbers: BTreeSet<u64>,
}

impl<M: Members + Places> Tasks<'_, M> {
    /// Makes a task of this member a dead letter, because it cannot be decoded.
    pub(crate) fn dead_letter(&self, slot: Slot) {
        let state = self.state(slot);
        if state.is_of(self.members.me()) {
            self.lay_aside(slot, state, End::Undecodable);
        }
    }

    /// Makes a task a dead letter. Returns `false` if another member was faster.
    pub(super) fn lay_aside(&self, slot: Slot, from: State, end: End) -> bool {
        self.record_end(slot, from.owner(), end);
        self.control.letters.fetch_add(1, Ordering::AcqRel);
        let changed = self.change(slot, from, State::new(DEAD, None, from.deliveries()));
        failpoint::reached("task.given_up");
        if changed {
            self.control.died.fetch_add(1, Ordering::Relaxed);
            self.control.letters.fetch_add(1, Ordering::AcqRel);
        }
        changed
    }

    /// Returns the dead letters that no member examines, oldest first.
    pub(crate) fn letters(&self) -> Vec<Slot> {
        let is_letter = |state: State| state.kind() == Kind::Dead && state.owner().is_none();
        let letters = self.all().filter(|&slot| is_letter(self.state(slot)));
        let mut letters: Vec<_> = letters.map(|slot| (self.number(slot), slot)).collect();
        letters.sort_unstable();
        letters.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Takes a dead letter, and appends its bytes. Returns it with whether it had descriptors, or
    /// `None` if it is not a dead letter any more.
    pub(crate) fn take_letter(
        &self,
        slot: Slot,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<(Delivered, bool)>, EngineError> {
        let letter = self.claim(slot, Kind::Dead, DEAD, bytes)?;
        let flags = self.words(slot)[FLAGS].load(Ordering::Relaxed);
        Ok(letter.map(|task| (task, flags & HAD_DESCRIPTORS != 0)))
    }

    /// Ends the examination of a dead letter that this member has taken.
    pub(crate) fn end_letter(&self, slot: Slot, end: LetterEnd) {
        let state = self.state(slot);
        if !state.is_letter_of(self.members.me()) {
            return;
        }
        match end {
            LetterEnd::Discard => self.change(slot, state, State::FREE),
            LetterEnd::LayBack => {
                self.change(slot, state, State::new(DEAD, None, state.deliveries()))
            }
            LetterEnd::Revive { due } => {
                self.control.letters.fetch_add(1, Ordering::AcqRel);
                self.bring_back(slot, state, 1, due)
            }
        };
    }

    /// Returns what is seen now if a dead letter that no member examines is not in `seen`.
    pub(crate) fn look(&self, seen: &Seen) -> Option<Seen> {
        let generation = self.control.letters.load(Ordering::Acquire);
        let numbers = self.letters().into_iter().map(|slot| self.number(slot));
        let numbers: BTreeSet<u64> = numbers.collect();
        let is_new = generation != seen.generation || !numbers.is_subset(&seen.numbers);
        (is_new && !numbers.is_empty()).then(|| self.seen(seen, generation, numbers))
    }

    /// Returns the generation to be passed to [`seen`](Self::seen) after the letters were read.
    pub(crate) fn generation(&self) -> u32 {
        self.control.letters.load(Ordering::Acquire)
    }

    /// Returns `seen` with more letters, and without those that are dead letters no more.
    pub(crate) fn seen(
        &self,
        seen: &Seen,
        generation: u32,
        more: impl IntoIterator<Item = u64>,
    ) -> Seen {
        let is_dead = |&slot: &Slot| self.state(slot).kind() == Kind::Dead;
        let dead: BTreeSet<u64> =
            self.all().filter(is_dead).map(|slot| self.number(slot)).collect();
        let numbers = seen.numbers.intersection(&dead).copied().chain(more).collect();
        Seen { generation, numbers }
    }

    /// Returns the number of dead letters.
    pub(crate) fn dead(&self) -> usize {
        self.all().filter(|&slot| self.state(slot).kind() == Kind::Dead).count()
    }
}
