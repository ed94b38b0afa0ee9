//! Finishing a task together with a put: its children become available and the task is done, in one
//! step.
//!
//! # Protocol
//!
//! The commit of the put is the linearization point for both. All of this happens under the
//! producers' lock, after the frames of the children were written:
//!
//! 1. `finishing` names the slot and its member.
//! 2. The flag [`FINISHING`](super::control::FINISHING) is set in the queue's state.
//! 3. The slot's word `ENDS` becomes the number of items that will have been put after the commit.
//! 4. The commit.
//! 5. The slot becomes free, `ENDS` becomes 0, and the flag is cleared.
//!
//! A slot whose `ENDS` is neither 0 nor above the producers' count is done. A process that dies
//! before the commit leaves an `ENDS` above the count, so its task is delivered again. One that
//! dies after the commit leaves one that is not above it, so no process delivers the task again.
//!
//! # Recovery
//!
//! A later put would raise the count to an `ENDS` whose commit never happened. So a producer that
//! acquires the lock and finds the flag first [settles](Ring::settle) what its predecessor left: it
//! frees the slot if the task is done, sets `ENDS` to 0, and only then puts. The flag is in the
//! word that each put reads anyway, so a put without it costs no additional instruction.
//!
//! # Orderings
//!
//! - A member that [reclaims](super::slots::Tasks::reclaim) the slot reads the count before `ENDS`.
//!   If it sees a count that a later put has raised, it sees that `ENDS` was set to 0 before.
//! - `ENDS` is written under the producers' lock, and set to 0 when the slot is allocated. A slot
//!   in progress whose member is alive has an `ENDS` of 0 outside of this critical section.
//! - The named member tells the slot of a dead process from the same slot when it is in use again.

use multiproc_shm::Deadline;
use multiproc_shm::failpoint;
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{AtomicU64, Ordering, load_locked};

use super::control::OPEN;
use super::error::EngineError;
use super::joinable::Work;
use super::overflow::Memory;
use super::put::{Items, Put};
use super::ring::{Ring, saturating_u32};
use super::side_lock::Producers;
use super::slot::{ENDS, STATE, Slot, State, WORDS, change};
use super::slots::Places;

/// Returns `true` if the put that was to complete a task has been committed, given the number of
/// items that were put.
pub(super) fn is_finished(ends: u64, produced: u64) -> bool {
    ends != 0 && ends <= produced
}

impl<M: Members + Memory + Places> Work<'_, M> {
    /// Puts the items and completes a task of this member, in one step: both or neither. Never
    /// waits for room. Returns [`Put::Done`], or why there was no room. There is at least one item.
    ///
    /// To be called by the thread that has the task.
    pub(crate) fn finish(
        &self,
        slot: Slot,
        items: Items<'_>,
        deadline: Deadline,
    ) -> Result<Put, EngineError> {
        let tasks = self.tasks();
        let put = self.ring.finish(tasks.index(slot), items, deadline)?;
        if put == Put::Done {
            self.ended();
        }
        Ok(put)
    }
}

impl<M: Members + Memory> Ring<'_, M> {
    fn finish(
        &self,
        slot: usize,
        items: Items<'_>,
        deadline: Deadline,
    ) -> Result<Put, EngineError> {
        let held = self.lock::<Producers>(|| deadline)?;
        let result = self.finish_locked(slot, items);
        let passed = held.release();
        failpoint::reached("finish.unlocked");
        if result == Ok(Put::Done) {
            let count = saturating_u32(items.ends.len());
            self.control.not_empty.waiters.notify(count, passed);
        }
        result
    }

    fn finish_locked(&self, slot: usize, items: Items<'_>) -> Result<Put, EngineError> {
        let producers = &self.control.producers;
        let state = self.control.state();
        if state != OPEN {
            self.reopen(state)?;
        }
        let Some(words) = self.task_words(slot) else {
            return Err(EngineError::Corrupted("the slot of a task"));
        };
        let (epoch, tail) = producers.current();
        let mut head = producers.cached_peer();
        let mut next = tail;
        let mut start = items.start;
        for &end in items.ends {
            match self.put_one(&mut head, &mut next, &items.bytes[start..end], &mut None)? {
                Put::Done => start = end,
                // Frames that are not committed are in free bytes, and have no meaning.
                full => return Ok(full),
            }
        }
        let used = next.count.wrapping_sub(head.count);
        self.puts.left(self.limits.capacity.saturating_sub(used));
        failpoint::reached("finish.written");
        let me = self.members.me();
        let named = u64::from(me.bits()) << 32 | (slot as u64 + 1);
        self.control.blocks.finishing.store(named, Ordering::Relaxed);
        self.control.set_finishing(true);
        failpoint::reached("finish.named");
        words[ENDS].store(next.count, Ordering::Release);
        failpoint::reached("finish.armed");
        producers.prepare(epoch, next);
        producers.commit(epoch);
        failpoint::reached("finish.committed");
        // No other thread changes the task of a live member, so a store is enough.
        words[STATE].store(State::FREE.0, Ordering::Release);
        failpoint::reached("finish.freed");
        words[ENDS].store(0, Ordering::Release);
        self.control.set_finishing(false);
        Ok(Put::Done)
    }

    /// Completes or cancels what the previous owner of the lock left when it died in
    /// [`finish`](Work::finish). The caller holds the producers' lock, and has not put yet.
    pub(super) fn settle(&self) {
        let named = load_locked(&self.control.blocks.finishing);
        let slot = usize::try_from(named & u64::from(u32::MAX)).unwrap_or(0);
        let member = u32::try_from(named >> 32).ok().and_then(MemberId::from_bits);
        if let (Some(slot), Some(member)) = (slot.checked_sub(1), member)
            && let Some(words) = self.task_words(slot)
        {
            let (_, tail) = self.control.producers.current();
            let ends = words[ENDS].load(Ordering::Acquire);
            let state = State(words[STATE].load(Ordering::Acquire));
            // If it is not this member's any more, it was delivered again or is done.
            if is_finished(ends, tail.count) && state.is_of(member) {
                change(&words[STATE], state, State::FREE);
            }
            failpoint::reached("finish.settling");
            words[ENDS].store(0, Ordering::Release);
        }
        self.control.set_finishing(false);
    }

    fn task_words(&self, slot: usize) -> Option<&[AtomicU64]> {
        self.members.task_slots().get(slot.checked_mul(WORDS)?..)?.get(..WORDS)
    }
}
