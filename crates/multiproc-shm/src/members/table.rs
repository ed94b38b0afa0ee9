//! Membership: which processes have a region open, and which of them are alive.
//!
//! Each member holds an open-file-description lock on the byte of its slot, over a descriptor of
//! its own. The kernel drops that lock when the process ends, for whatever reason, and reports in
//! less than a microsecond whether it is held. There are no pids that could be reused, no pid
//! namespaces and no polling thread. See "Open file description locks" in [fcntl_locking(2)].
//!
//! A process that was forked from a member shares the open file description and therefore the lock.
//! It gets another description at once, and becomes a member of its own when it first uses the
//! region: see `region/fork.rs`. Whatever the parent holds remains the parent's.
//!
//! The mapping keeps the description and its lock. If other code in the process closes the
//! descriptor, the membership lasts, but this process can no longer query others. It is then *cut
//! off*: others count as alive, so that nothing is taken from a living owner, and operations that
//! would wait for them fail.
//!
//! [fcntl_locking(2)]: https://man7.org/linux/man-pages/man2/fcntl_locking.2.html

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::ofd_lock::{self as lock, Kind};

use super::id::{MEMBERS, MemberId};

/// The membership of this process in a region.
#[derive(Debug, Default)]
pub struct Membership {
    /// The bits of the [`MemberId`], or 0 after a fork.
    member: AtomicU32,
}

impl Membership {
    /// Returns the member that this process is, or `None` in a forked process that has not used the
    /// region.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<MemberId> {
        MemberId::from_own(self.member.load(Ordering::Relaxed))
    }

    /// Returns `true` if this process is `member`: not in a child that was forked from it.
    #[inline]
    #[must_use]
    pub fn is(&self, member: MemberId) -> bool {
        self.member.load(Ordering::Relaxed) == member.bits()
    }

    pub(crate) fn set(&self, member: MemberId) {
        self.member.store(member.bits(), Ordering::Relaxed);
    }

    pub(crate) fn reset(&self) {
        self.member.store(0, Ordering::Relaxed);
    }
}

/// One slot of the member table. It serves to find a free slot and to name a holder. Whether a
/// member is alive is decided by the kernel's lock alone.
#[derive(Debug)]
#[repr(C)]
struct Slot {
    /// The last member that took this slot.
    member: AtomicU32,
    /// The process id as the member sees it, or 0 after it left.
    pid: AtomicU32,
}

/// The member table of a region.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct MemberTable {
    slots: [Slot; MEMBERS],
}

const _: () = assert!(size_of::<MemberTable>() == 8 * MEMBERS);

crate::placed!(MemberTable { slots });
crate::placed!(Slot { member, pid });

impl MemberTable {
    /// Takes a slot. `descriptor` holds the lock from now on and must not be shared.
    ///
    /// `release` is called with the slot before it is reused, to clean up after its last user.
    pub(crate) fn join(
        &self,
        descriptor: impl AsFd,
        release: impl Fn(usize),
    ) -> io::Result<MemberId> {
        // First the slots that are marked free, then those of members that died without leaving.
        for look_free in [true, false] {
            for (index, slot) in self.slots.iter().enumerate() {
                let is_free = slot.pid.load(Ordering::Relaxed) == 0;
                if is_free == look_free
                    && lock::try_lock(&descriptor, Kind::Exclusive, byte(index))?
                {
                    release(index);
                    let last = slot.member.load(Ordering::Relaxed);
                    let generation = MemberId::from_bits(last).map_or(0, MemberId::generation);
                    let member = MemberId::new(index, generation.wrapping_add(1));
                    slot.member.store(member.bits(), Ordering::Release);
                    slot.pid.store(std::process::id(), Ordering::Relaxed);
                    return Ok(member);
                }
            }
        }
        Err(io::Error::new(
            io::ErrorKind::QuotaExceeded,
            format!("{MEMBERS} processes have this object open, which is the most there can be"),
        ))
    }

    /// Marks the slot as free. The lock ends with the descriptor. Until then no other process takes
    /// the slot, and the member's death is not reported.
    pub(crate) fn leave(&self, member: MemberId) {
        self.slots[member.slot()].pid.store(0, Ordering::Relaxed);
    }

    /// Returns `true` if `member` is alive, queried over the descriptor of another member. The
    /// kernel does not report a description's own lock, so the caller must compare with itself
    /// first.
    pub(crate) fn is_alive(&self, descriptor: impl AsFd, member: MemberId) -> bool {
        let slot = &self.slots[member.slot()];
        // Another member has the slot now and has cleaned up after this one.
        if slot.member.load(Ordering::Acquire) != member.bits() {
            return false;
        }
        lock::is_locked(descriptor, byte(member.slot()))
    }

    /// Returns the slots of members that died without leaving, with their pids, as seen by `me`.
    fn dead(&self, descriptor: impl AsFd, me: MemberId) -> impl Iterator<Item = (&Slot, u32)> {
        self.slots.iter().enumerate().filter_map(move |(index, slot)| {
            let read = || (slot.member.load(Ordering::Acquire), slot.pid.load(Ordering::Acquire));
            let (member, pid) = read();
            // Read again: a member that left meanwhile cleared its pid before it released the lock.
            let is_dead = pid != 0
                && index != me.slot()
                && !lock::is_locked(&descriptor, byte(index))
                && read() == (member, pid);
            is_dead.then_some((slot, pid))
        })
    }

    /// Returns `true` if a member died without leaving.
    pub(crate) fn has_dead(&self, descriptor: impl AsFd, me: MemberId) -> bool {
        self.dead(descriptor, me).next().is_some()
    }

    /// Marks the slots of dead members as free. They are cleaned up when they are reused.
    pub(crate) fn forget_dead(&self, descriptor: impl AsFd, me: MemberId) {
        for (slot, pid) in self.dead(descriptor, me) {
            // Another process may have taken the slot meanwhile and entered its pid.
            let _ = slot.pid.compare_exchange(pid, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Returns the process id of `member` as it saw itself when it joined, or 0 if unknown.
    pub(crate) fn pid(&self, member: MemberId) -> u32 {
        self.slots[member.slot()].pid.load(Ordering::Relaxed)
    }

    /// Returns the number of living members, without mere observers. One system call for each.
    pub(crate) fn count_alive(&self, descriptor: impl AsFd, me: Option<MemberId>) -> usize {
        let is_me = |index| me.is_some_and(|me| me.slot() == index);
        let is_alive = |(index, slot): &(usize, &Slot)| {
            slot.pid.load(Ordering::Relaxed) != 0
                && (is_me(*index) || lock::is_locked(&descriptor, byte(*index)))
        };
        self.slots.iter().enumerate().filter(is_alive).count()
    }

    /// Returns the number of slots that are taken, by members that are alive or not yet noticed as
    /// dead.
    pub(crate) fn count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.pid.load(Ordering::Relaxed) != 0).count()
    }
}

/// Returns the byte that the lock of a slot is on.
fn byte(slot: usize) -> u32 {
    // A slot of the table: below MEMBERS.
    u32::try_from(slot).unwrap_or(u32::MAX)
}
