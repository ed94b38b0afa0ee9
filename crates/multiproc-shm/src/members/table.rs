//! Membership: which processes have a region open, and which of them are alive.
//!
//! Each member holds an open-file-description lock on the byte of its slot, over a descriptor of its
//! own. The kernel drops that lock when the process dies, however it dies, and tells anybody in less
//! than a microsecond whether it is held: no pid that could be reused, no pid namespaces, no thread
//! that polls. See "Open file description locks" in [fcntl_locking(2)].
//!
//! A process that was forked from a member shares the open file description, and with it the lock.
//! So it gets another description at once, and becomes a member of its own when it first uses the
//! region: see `region/fork.rs`. What the parent holds stays the parent's.
//!
//! The lock is on the description, and the mapping keeps that: if other code in the process closes the
//! descriptor, the membership lasts, but this process can no longer ask about others. It is then
//! *cut off*: others count as alive, so that nobody is robbed, and what would wait for them fails.
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
    /// The bits of the [`MemberId`]; 0: none, since the process was forked.
    member: AtomicU32,
}

impl Membership {
    /// The member that this process is; `None` in a forked process that has not used the region.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<MemberId> {
        MemberId::from_own(self.member.load(Ordering::Relaxed))
    }

    /// Whether this process is that member: false in a child that was forked from it.
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

/// One slot of the member table. It helps to find a free slot and to name a holder; whether a
/// member is alive is the kernel's word alone.
#[derive(Debug)]
#[repr(C)]
struct Slot {
    /// The last member that took this slot.
    member: AtomicU32,
    /// Its process, as it sees itself; 0 when it left.
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
    /// Takes a slot. `descriptor` holds the lock from now on, and must not be shared.
    ///
    /// `release` is called with the slot before it is used anew: it cleans up after whoever had it.
    pub(crate) fn join(
        &self,
        descriptor: impl AsFd,
        release: impl Fn(usize),
    ) -> io::Result<MemberId> {
        // First the slots that look free, then also those of members that did not leave but died.
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

    /// Marks the slot as free; the lock ends with the descriptor. Until then nobody else takes the slot,
    /// and the member's death is no news.
    pub(crate) fn leave(&self, member: MemberId) {
        self.slots[member.slot()].pid.store(0, Ordering::Relaxed);
    }

    /// Whether `member` is alive, asked over the descriptor of another member (or of itself: one's
    /// own lock is not reported, so the caller must know itself).
    pub(crate) fn is_alive(&self, descriptor: impl AsFd, member: MemberId) -> bool {
        let slot = &self.slots[member.slot()];
        // Somebody else has the slot now, and has cleaned up after this one.
        if slot.member.load(Ordering::Acquire) != member.bits() {
            return false;
        }
        lock::is_locked(descriptor, byte(member.slot()))
    }

    /// The slots of those who died without leaving, and the pids they had; asked by `me`.
    fn dead(&self, descriptor: impl AsFd, me: MemberId) -> impl Iterator<Item = (&Slot, u32)> {
        self.slots.iter().enumerate().filter_map(move |(index, slot)| {
            let read = || (slot.member.load(Ordering::Acquire), slot.pid.load(Ordering::Acquire));
            let (member, pid) = read();
            // Looked at again: one that has left meanwhile has said so before it let go of the lock.
            let is_dead = pid != 0
                && index != me.slot()
                && !lock::is_locked(&descriptor, byte(index))
                && read() == (member, pid);
            is_dead.then_some((slot, pid))
        })
    }

    /// Whether somebody died without leaving.
    pub(crate) fn has_dead(&self, descriptor: impl AsFd, me: MemberId) -> bool {
        self.dead(descriptor, me).next().is_some()
    }

    /// Marks the slots of the dead as free. They are cleaned up after when they are used anew.
    pub(crate) fn forget_dead(&self, descriptor: impl AsFd, me: MemberId) {
        for (slot, pid) in self.dead(descriptor, me) {
            // Somebody may have taken the slot meanwhile, and entered a pid.
            let _ = slot.pid.compare_exchange(pid, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The process of `member`, as that one saw itself when it joined. 0 is unknown.
    pub(crate) fn pid(&self, member: MemberId) -> u32 {
        self.slots[member.slot()].pid.load(Ordering::Relaxed)
    }

    /// How many members are alive; those that stand aside do not count. A system call for each.
    pub(crate) fn count_alive(&self, descriptor: impl AsFd, me: Option<MemberId>) -> usize {
        let is_me = |index| me.is_some_and(|me| me.slot() == index);
        let is_alive = |(index, slot): &(usize, &Slot)| {
            slot.pid.load(Ordering::Relaxed) != 0
                && (is_me(*index) || lock::is_locked(&descriptor, byte(*index)))
        };
        self.slots.iter().enumerate().filter(is_alive).count()
    }

    /// How many slots are taken, by members alive or not yet noticed as dead.
    pub(crate) fn count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.pid.load(Ordering::Relaxed) != 0).count()
    }
}

/// The byte of a slot.
fn byte(slot: usize) -> u32 {
    // A slot of the table: below MEMBERS.
    u32::try_from(slot).unwrap_or(u32::MAX)
}
