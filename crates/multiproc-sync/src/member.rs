//! Membership: which processes have a region open, and which of them are alive.
//!
//! Each member holds an open-file-description lock on the byte of its slot, over a descriptor of its
//! own. The kernel drops that lock when the process dies, however it dies, and tells anybody in less
//! than a microsecond whether it is held: no pid that could be reused, no pid namespaces, no thread
//! that polls. See "Open file description locks" in [fcntl_locking(2)].
//!
//! A process that was forked from a member without exec shares the open file description, and keeps
//! the lock: this crate is not made for forked processes.
//!
//! Opens `unsafe` for two calls of fcntl(2), which rustix does not have.
//!
//! [fcntl_locking(2)]: https://man7.org/linux/man-pages/man2/fcntl_locking.2.html
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::raw::members::{MEMBERS, MemberId};

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
                if is_free == look_free && lock_byte(&descriptor, index)? {
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
        is_byte_locked(descriptor, member.slot())
    }

    /// The slots of those who died without leaving, and the pids they had; asked by `me`.
    fn dead(&self, descriptor: impl AsFd, me: MemberId) -> impl Iterator<Item = (&Slot, u32)> {
        self.slots.iter().enumerate().filter_map(move |(index, slot)| {
            let look = || (slot.member.load(Ordering::Acquire), slot.pid.load(Ordering::Acquire));
            let (member, pid) = look();
            // Looked at again: one that has left meanwhile has said so before it let go of the lock.
            let is_dead = pid != 0
                && index != me.slot()
                && !is_byte_locked(&descriptor, index)
                && look() == (member, pid);
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
    pub(crate) fn count_alive(&self, descriptor: impl AsFd, me: MemberId) -> usize {
        let is_alive = |(index, slot): &(usize, &Slot)| {
            slot.pid.load(Ordering::Relaxed) != 0
                && (*index == me.slot() || is_byte_locked(&descriptor, *index))
        };
        self.slots.iter().enumerate().filter(is_alive).count()
    }

    /// How many slots are taken, by members alive or not yet noticed as dead.
    pub(crate) fn count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.pid.load(Ordering::Relaxed) != 0).count()
    }
}

#[allow(clippy::cast_possible_truncation)] // the constants are 0 and 1
fn byte(index: usize) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        // An index of the table: below MEMBERS.
        l_start: libc::off_t::try_from(index).unwrap_or(libc::off_t::MAX),
        l_len: 1,
        l_pid: 0,
    }
}

/// Takes the lock on a byte. False: another open file description has it.
fn lock_byte(descriptor: impl AsFd, index: usize) -> io::Result<bool> {
    let lock = byte(index);
    // SAFETY: F_OFD_SETLK reads a `flock`, and this is one.
    let result =
        unsafe { libc::fcntl(descriptor.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether another open file description has the lock on a byte.
fn is_byte_locked(descriptor: impl AsFd, index: usize) -> bool {
    let mut lock = byte(index);
    // SAFETY: F_OFD_GETLK reads and writes a `flock`, and this is one.
    let result =
        unsafe { libc::fcntl(descriptor.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    // If the kernel cannot tell (it has no memory), nobody is robbed.
    result != 0 || libc::c_int::from(lock.l_type) != libc::F_UNLCK
}
