//! Which worker had a task last, and how it ended: for dead letters.
//!
//! Each slot has a record of four words. A worker signs it when it takes a task, unless its
//! signature is there already:
//!
//! | word | content |
//! |---|---|
//! | 0 | bits 0..30: the member's number; bits 32..64: its pid |
//! | 1, 2 | its name: 16 bytes, padded with zeros |
//! | 3 | bits 0..30: the member that had the task when it died; bits 32..40: its end |
//!
//! The record only informs. If both members differ, because the worker was killed before it had
//! signed, the worker is unknown.

use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::Ordering;

use super::slot::Slot;
use super::slots::{Places, Tasks};

/// The number of words of a record.
pub(crate) const RECORD: usize = 4;

const MEMBER: u64 = (1 << MemberId::BITS) - 1;

/// How the last attempt of a dead letter ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The worker died.
    Died = 1,
    /// The worker put the task back.
    PutBack = 2,
    /// A panic dropped the task.
    Panicked = 3,
    /// The worker could not decode the task.
    Undecodable = 4,
}

/// The worker that had a task last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) pid: u32,
    pub(crate) name: [u8; 16],
    pub(crate) end: End,
}

impl<M: Members + Places> Tasks<'_, M> {
    /// Signs the record of a slot that this member has just taken.
    #[inline]
    pub(super) fn sign(&self, slot: Slot) {
        let at = self.index(slot) * RECORD;
        let Some(word) = self.members.workers().get(at) else { return };
        if word.load(Ordering::Relaxed) & MEMBER != u64::from(self.members.me().bits()) {
            self.sign_anew(at);
        }
    }

    #[cold]
    fn sign_anew(&self, at: usize) {
        let (pid, name) = self.members.identity();
        let Some(words) = self.members.workers().get(at..at + RECORD) else { return };
        words[1].store(name[0], Ordering::Relaxed);
        words[2].store(name[1], Ordering::Relaxed);
        let member = u64::from(self.members.me().bits());
        words[0].store(u64::from(pid) << 32 | member, Ordering::Release);
    }

    /// Records how the last attempt of a task ended, which becomes a dead letter.
    pub(super) fn record_end(&self, slot: Slot, owner: Option<MemberId>, end: End) {
        let at = self.index(slot) * RECORD + 3;
        if let (Some(word), Some(owner)) = (self.members.workers().get(at), owner) {
            word.store((end as u64) << 32 | u64::from(owner.bits()), Ordering::Relaxed);
        }
    }

    /// Returns the worker that had a dead letter last, if it is known.
    pub(crate) fn worker(&self, slot: Slot) -> Option<Record> {
        let at = self.index(slot) * RECORD;
        let words = self.members.workers().get(at..at + RECORD)?;
        let signature = words[0].load(Ordering::Acquire);
        let [low, high, last] = [1, 2, 3].map(|n| words[n].load(Ordering::Relaxed));
        if signature & MEMBER == 0 || signature & MEMBER != last & MEMBER {
            return None;
        }
        let end = match last >> 32 {
            1 => End::Died,
            2 => End::PutBack,
            3 => End::Panicked,
            4 => End::Undecodable,
            _ => return None,
        };
        let pid = u32::try_from(signature >> 32).ok()?;
        let name = u128::from(high) << 64 | u128::from(low);
        Some(Record { pid, name: name.to_le_bytes(), end })
    }
}
