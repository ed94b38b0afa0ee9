//! The read-write lock: a word for the readers of each member, and a robust lock for writers.
//!
//! # The words
//!
//! | word | meaning |
//! |---|---|
//! | queue | a [`Lock`], held by the writer, and briefly by each reader that had to wait |
//! | phase | bit 0, *closed*: a writer waits for readers, or writes; bit 1, *dirty*: see below |
//! | drained | an event count, on which a writer waits for readers to leave |
//! | used | the number of slots of the member table that may have had readers |
//! | readers | for each slot: the [`MemberId`] of its member, and how many times that member reads |
//!
//! # Invariants
//!
//! 1. Only the holder of the queue changes the phase. So if a process that holds the queue finds it
//!    *closed*, the writer that closed it is dead or has lost the queue, and it is opened again.
//! 2. A reader counts itself in the word of its member, passes a full fence, and reads only if the
//!    phase is not *closed*. A writer closes the phase, passes a full fence, and writes only when
//!    all words are 0. One of the two sees the other (Dekker's pattern).
//! 3. *dirty* is set while a writer writes. If it is still set when the queue has another holder,
//!    that writer died, or has not repaired what it found. A writer that dies while it waits for
//!    readers has changed nothing, and is not reported.
//! 4. The word of a member changes by one compare-exchange, and only that member changes it while
//!    it is alive. So the readers of a dead member are removed by one compare-exchange, which
//!    cannot affect a successor in the same slot. A waiting writer does so at each recheck.
//!
//! # Fairness
//!
//! Readers enter without the queue while the phase is open. A writer that has the queue has closed
//! it, so a stream of readers does not starve a writer. A reader that finds it closed takes the
//! queue, counts itself under it, and passes it on. So readers and writers wait in one queue, with
//! the fairness of [`lock`](super::lock), and a stream of writers does not starve a reader.
//!
//! # Orderings
//!
//! What a writer wrote must be visible to all later readers: it opens the phase with `Release`, and
//! readers load the phase with `Acquire`. What a reader read must not be affected by a later
//! writer: leaving is `AcqRel`, and a writer loads the words with `Acquire`. Writers, and readers
//! that had to wait, are ordered by the queue.
//!
//! # Sources
//!
//! One word for each reader, and a writer that inspects all of them, are those of Linux's brlock
//! and of Brandenburg and Anderson's "Reader-Writer Synchronization for Shared-Memory
//! Multiprocessor Real-Time Systems" (2009), where the readers that a writer blocked enter before
//! the next writer.

use std::time::Duration;

use multiproc_shm::event_count::{EventCount, Poll};
use multiproc_shm::fences::full_fence_after_rmw;
use multiproc_shm::members::{MEMBERS, MemberId, Members};
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Ordering};
use multiproc_shm::{Deadline, failpoint};

use super::Busy;
use super::lock::{Acquired, Lock};

/// The number of words for readers, one for each slot of the member table.
const SLOTS: usize = if cfg!(loom) { 4 } else { MEMBERS };

const CLOSED: u32 = 1;
const DIRTY: u32 = 2;

fn acquired(phase: u32) -> Acquired {
    if phase & DIRTY == 0 { Acquired::Clean } else { Acquired::OwnerDied }
}

/// Returns the bits of the member in the word of a slot.
#[allow(clippy::cast_possible_truncation)] // the upper half
fn owner(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Returns the number of readers in the word of a slot.
#[allow(clippy::cast_possible_truncation)] // the lower half
fn count(word: u64) -> u32 {
    word as u32
}

fn word(member: MemberId, count: u32) -> u64 {
    u64::from(member.bits()) << 32 | u64::from(count)
}

/// A read-write lock, without data. See the documentation of the module.
#[derive(Debug)]
#[repr(C)]
pub struct RwLock {
    queue: Lock,
    phase: AtomicU32,
    drained: EventCount,
    used: AtomicU32,
    readers: [AtomicU64; SLOTS],
}

#[cfg(not(loom))]
multiproc_shm::placed!(RwLock { queue, phase, drained, used, readers });

impl Default for RwLock {
    fn default() -> Self {
        Self {
            queue: Lock::default(),
            phase: AtomicU32::new(0),
            drained: EventCount::default(),
            used: AtomicU32::new(0),
            readers: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl RwLock {
    /// Acquires the lock for reading, and waits for it. Each `recheck`, it checks whether the
    /// writer is alive.
    ///
    /// # Errors
    ///
    /// Returns [`Busy`] if living writers have the lock until the deadline. It does so earlier if
    /// it can no longer be determined which members are alive (see [`Members::is_cut_off`]).
    #[inline]
    pub fn read(
        &self,
        members: &impl Members,
        deadline: Deadline,
        recheck: Duration,
    ) -> Result<Acquired, Busy> {
        match self.enter(members.me()) {
            Some(acquired) => Ok(acquired),
            None => self.read_contended(members, deadline, recheck),
        }
    }

    #[cold]
    fn read_contended(
        &self,
        members: &impl Members,
        deadline: Deadline,
        recheck: Duration,
    ) -> Result<Acquired, Busy> {
        self.queue.lock(members, deadline, recheck)?;
        Ok(self.enter_from_queue(members.me()))
    }

    /// Acquires the lock for reading, without waiting.
    ///
    /// # Errors
    ///
    /// Returns [`Busy`] if a living writer has the lock or waits for it.
    #[inline]
    pub fn try_read(&self, members: &impl Members) -> Result<Acquired, Busy> {
        let me = members.me();
        if let Some(acquired) = self.enter(me) {
            return Ok(acquired);
        }
        match self.queue.try_lock(members) {
            Ok(_) => Ok(self.enter_from_queue(me)),
            // The queue may be held by a reader, which opens the phase that a dead writer closed.
            Err(Busy) => self.enter(me).ok_or(Busy),
        }
    }

    /// Enters as a reader, unless the phase is closed.
    #[inline]
    fn enter(&self, me: MemberId) -> Option<Acquired> {
        if self.phase.load(Ordering::Relaxed) & CLOSED != 0 {
            return None;
        }
        self.count_in(me);
        let _ = full_fence_after_rmw();
        failpoint::reached("rwlock.counted");
        let phase = self.phase.load(Ordering::Acquire);
        if phase & CLOSED != 0 {
            self.read_unlock(me);
            return None;
        }
        Some(acquired(phase))
    }

    /// Enters as a reader that holds the queue, and releases the queue.
    fn enter_from_queue(&self, me: MemberId) -> Acquired {
        self.count_in(me);
        let phase = self.phase.load(Ordering::Relaxed);
        // Closed by a writer that is dead, by invariant 1.
        self.phase.store(phase & !CLOSED, Ordering::Release);
        failpoint::reached("rwlock.passed");
        self.queue.unlock(me, Acquired::Clean);
        acquired(phase)
    }

    #[inline]
    fn count_in(&self, me: MemberId) {
        let readers = &self.readers[me.slot()];
        let mut state = readers.load(Ordering::Relaxed);
        loop {
            let new = if owner(state) == me.bits() {
                // There are never 2^32 guards, but a corrupted word may contain any number.
                word(me, count(state).checked_add(1).unwrap_or(1))
            } else {
                self.use_slot(me);
                word(me, 1)
            };
            match readers.compare_exchange(state, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
    }

    /// Makes writers inspect the word of this member, which reads for the first time.
    #[cold]
    fn use_slot(&self, me: MemberId) {
        let used = u32::try_from(me.slot() + 1).unwrap_or(u32::MAX);
        self.used.fetch_max(used, Ordering::AcqRel);
    }

    /// Releases the lock once, if `me` reads. Otherwise it does nothing.
    #[inline]
    pub fn read_unlock(&self, me: MemberId) {
        let readers = &self.readers[me.slot()];
        let mut state = readers.load(Ordering::Relaxed);
        while owner(state) == me.bits() && count(state) > 0 {
            match readers.compare_exchange(state, state - 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if count(state) == 1 => return self.notify(),
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
    }

    /// Notifies a waiting writer, after a word was changed.
    #[inline]
    fn notify(&self) {
        let fence = full_fence_after_rmw();
        failpoint::reached("rwlock.left");
        self.drained.notify(1, fence);
    }

    /// Acquires the lock for writing, and waits for it. Each `recheck`, it checks whether the
    /// writer and the readers are alive.
    ///
    /// # Errors
    ///
    /// Returns [`Busy`] if living members have the lock until the deadline. It does so earlier if
    /// it can no longer be determined which members are alive (see [`Members::is_cut_off`]).
    pub fn write(
        &self,
        members: &impl Members,
        deadline: Deadline,
        recheck: Duration,
    ) -> Result<Acquired, Busy> {
        self.queue.lock(members, deadline, recheck)?;
        self.close();
        if self.has_readers() {
            let waited = self.drained.wait_until(deadline, recheck, |poll| {
                if poll == Poll::CheckLiveness {
                    self.remove_dead_readers(members);
                }
                let is_cut_off = || poll == Poll::CheckLiveness && members.is_cut_off();
                match self.has_readers() {
                    false => Some(Ok(())),
                    true => is_cut_off().then_some(Err(Busy)),
                }
            });
            if waited.outcome != Some(Ok(())) {
                self.give_up(members.me());
                return Err(Busy);
            }
        }
        Ok(self.begin())
    }

    /// Acquires the lock for writing, without waiting.
    ///
    /// # Errors
    ///
    /// Returns [`Busy`] if a living member has the lock, or a living writer waits for it.
    pub fn try_write(&self, members: &impl Members) -> Result<Acquired, Busy> {
        self.remove_dead_readers(members);
        // Checked first, because closing the phase makes readers wait.
        if self.has_readers() {
            return Err(Busy);
        }
        self.queue.try_lock(members)?;
        self.close();
        if self.has_readers() {
            self.give_up(members.me());
            return Err(Busy);
        }
        Ok(self.begin())
    }

    /// Lets no further readers enter. The caller holds the queue.
    fn close(&self) {
        self.phase.fetch_or(CLOSED, Ordering::AcqRel);
        let _ = full_fence_after_rmw();
        failpoint::reached("rwlock.closed");
    }

    /// Returns true if there are readers, alive or dead.
    fn has_readers(&self) -> bool {
        self.used().iter().any(|readers| count(readers.load(Ordering::Acquire)) > 0)
    }

    /// Returns the words that may contain readers.
    fn used(&self) -> &[AtomicU64] {
        let used = self.used.load(Ordering::Acquire) as usize;
        &self.readers[..used.min(SLOTS)]
    }

    fn remove_dead_readers(&self, members: &impl Members) {
        for readers in self.used() {
            let state = readers.load(Ordering::Relaxed);
            if count(state) > 0 && !members.is_owner_alive(owner(state)) {
                // If the word has changed, another member has removed them.
                if readers.compare_exchange(state, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    self.notify();
                }
            }
        }
    }

    /// Begins to write: there are no readers, and no further ones enter.
    fn begin(&self) -> Acquired {
        let phase = self.phase.fetch_or(DIRTY, Ordering::AcqRel);
        failpoint::reached("rwlock.writing");
        acquired(phase)
    }

    /// Opens the phase and releases the queue, without having written.
    #[cold]
    fn give_up(&self, me: MemberId) {
        self.phase.fetch_and(!CLOSED, Ordering::AcqRel);
        self.queue.unlock(me, Acquired::Clean);
    }

    /// Releases the lock, if `me` writes. Otherwise it does nothing.
    ///
    /// With [`Acquired::OwnerDied`], the lock stays abandoned.
    #[inline]
    pub fn write_unlock(&self, me: MemberId, taken: Acquired) {
        if self.queue.owner() != Some(me) {
            return;
        }
        let phase = match taken {
            Acquired::Clean => 0,
            Acquired::OwnerDied => DIRTY,
        };
        failpoint::reached("rwlock.releasing");
        self.phase.store(phase, Ordering::Release);
        failpoint::reached("rwlock.opened");
        self.queue.unlock(me, Acquired::Clean);
    }

    /// Frees what a former user of `slot` holds. It is called before the slot gets a new user.
    pub fn release_slot(&self, slot: usize) {
        self.queue.release_slot(slot);
        if let Some(readers) = self.readers.get(slot)
            && readers.swap(0, Ordering::AcqRel) != 0
        {
            self.notify();
        }
    }

    /// Returns the lock that the writer holds, and for a moment each reader that had to wait.
    #[must_use]
    pub fn queue(&self) -> &Lock {
        &self.queue
    }

    /// Returns true if a writer has the lock or waits for readers to leave, or died there.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Returns true if a writer died while it wrote, and no writer has repaired what it left since.
    /// It is also true while a writer writes.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.phase.load(Ordering::Relaxed) & DIRTY != 0
    }

    /// Returns the number of readers, alive or dead.
    #[must_use]
    pub fn readers(&self) -> usize {
        let count = |readers: &AtomicU64| count(readers.load(Ordering::Relaxed)) as usize;
        self.used().iter().map(count).fold(0, usize::saturating_add)
    }

    /// Returns what a writer sleeps on while there are readers.
    #[must_use]
    pub fn drained(&self) -> &EventCount {
        &self.drained
    }
}
