//! The regions that this process has open.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError, Weak};

use rustix::fs::OFlags;

use super::layout::{Header, Layout};
use super::mapping::RegionMapping;
use crate::members::MemberId;
use crate::members::table::{MemberTable, Membership};
use crate::{CheckedFd, memfd};

/// A region as this process has it open: once, however many handles there are.
pub(crate) struct Open {
    pub(super) mapping: RegionMapping,
    pub(super) descriptor: CheckedFd,
    pub(super) key: Key,
    pub(super) membership: Membership,
    pub(super) layout: Layout,
    /// [`Control::release_slot`] of its kind.
    pub(super) release_slot: fn(&RegionMapping, Layout, usize),
    /// See [`Region::local`].
    pub(super) local: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Open {
    pub(super) fn members(&self) -> &MemberTable {
        self.mapping.view(self.layout.members)
    }

    /// Becomes a member: again, in a process that was forked from one.
    pub(super) fn join(&self) -> io::Result<MemberId> {
        let descriptor = self.descriptor.get()?;
        let member = self.members().join(descriptor, |slot| {
            (self.release_slot)(&self.mapping, self.layout, slot);
        })?;
        self.membership.set(member);
        Ok(member)
    }

    /// The first use in a process that was forked from a member.
    #[cold]
    pub(super) fn join_after_fork(&self) -> io::Result<MemberId> {
        let _alone = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        match self.membership.get() {
            Some(member) => Ok(member),
            None => self.join(),
        }
    }

    /// Makes a copy that came by fork(2) independent of the parent: with an open file description of
    /// its own, and not yet a member. To be called in the child, where no other thread runs.
    ///
    /// If that fails, the parent's death is noticed only when this process has ended, too, and the
    /// first use reports the error.
    pub(crate) fn separate(&self) -> io::Result<()> {
        self.membership.reset();
        let descriptor = self.descriptor.get()?;
        let fresh = memfd::reopen(descriptor, OFlags::RDWR)?;
        self.mapping.replace(&fresh)?;
        self.descriptor.replace(&fresh)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have opened it anew meanwhile.
        if open.get(&self.key).is_some_and(|other| other.strong_count() == 0) {
            open.remove(&self.key);
        }
        // In a forked process that has not used it, the membership is its parent's.
        if let Some(member) = self.membership.get() {
            self.members().leave(member);
        }
    }
}

/// Tells regions apart: device and inode, whose number may come round, and the region's random id.
pub(crate) type Key = (u64, u64, [u64; 2]);

/// The regions that this process has open, so that receiving one twice gives the same mapping.
///
/// Whoever makes, opens or closes a region holds it, and so does fork(2): see [`fork`](mod@fork).
pub(crate) static OPEN: LazyLock<Mutex<OpenRegions>> = LazyLock::new(Mutex::default);

pub(crate) type OpenRegions = HashMap<Key, Weak<Open>>;

pub(super) fn key(device: u64, inode: u64, header: &Header) -> Key {
    let id = [header.id[0].load(Ordering::Relaxed), header.id[1].load(Ordering::Relaxed)];
    (device, inode, id)
}

/// Maps a region by a fresh open file description. It is this one that bears the lock of the member,
/// and since the mapping keeps it, the lock lasts as long as the mapping, whatever becomes of the
/// descriptor. (A fresh open shows at once, and not when it is first sent, that /proc is there.)
pub(super) fn map(descriptor: &OwnedFd, size: usize) -> io::Result<(RegionMapping, CheckedFd)> {
    let own = CheckedFd::new(memfd::reopen(descriptor, OFlags::RDWR)?)?;
    let mapping = RegionMapping::new(own.get()?, size)?;
    Ok((mapping, own))
}
