//! Dead letters: tasks that are not delivered any more.

use multiproc_shm::members::Members;
use multiproc_shm::primitives::Ordering;

use super::error::EngineError;
use super::slot::{DEAD, FLAGS, HAD_DESCRIPTORS, Kind, Slot, State};
use super::slots::{Delivered, Places, Tasks};

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

impl<M: Members + Places> Tasks<'_, M> {
    /// This member does not deliver the task again: it cannot be decoded.
    pub(crate) fn dead_letter(&self, slot: Slot) {
        let state = self.state(slot);
        let dead = State::new(DEAD, None, state.deliveries());
        if state.is_of(self.members.me()) && self.change(slot, state, dead) {
            self.control.died.fetch_add(1, Ordering::Relaxed);
        }
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
        let letter = self.claim(slot, Kind::Dead, DEAD, bytes)?;
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
            LetterEnd::LayBack => {
                self.change(slot, state, State::new(DEAD, None, state.deliveries()))
            }
            LetterEnd::Revive { due } => self.bring_back(slot, state, 1, due),
        };
    }

    /// How many dead letters there are.
    pub(crate) fn dead(&self) -> usize {
        self.all().filter(|&slot| self.state(slot).kind() == Kind::Dead).count()
    }
}
