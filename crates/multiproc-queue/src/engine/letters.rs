//! Dead letters: tasks that are not delivered any more.

use multiproc_shm::members::Members;
use multiproc_shm::primitives::Ordering;

use super::error::EngineError;
use super::slot::{DEAD, FLAGS, HAD_DESCRIPTORS, Kind, Slot, State};
use super::slots::{Delivered, Places, Tasks};

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

impl<M: Members + Places> Tasks<'_, M> {
    /// Makes a task of this member a dead letter, because it cannot be decoded.
    pub(crate) fn dead_letter(&self, slot: Slot) {
        let state = self.state(slot);
        let dead = State::new(DEAD, None, state.deliveries());
        if state.is_of(self.members.me()) && self.change(slot, state, dead) {
            self.control.died.fetch_add(1, Ordering::Relaxed);
        }
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
            LetterEnd::Revive { due } => self.bring_back(slot, state, 1, due),
        };
    }

    /// Returns the number of dead letters.
    pub(crate) fn dead(&self) -> usize {
        self.all().filter(|&slot| self.state(slot).kind() == Kind::Dead).count()
    }
}
