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

/// A region that this process has open: one value, however many handles there are.
pub(crate) struct Open {
    pub(super) mapping: RegionMapping,
    pub(super) descriptor: CheckedFd,
    pub(super) key: Key,
    pub(super) membership: Membership,
    pub(super) layout: Layout,
    /// The [`Control::release_slot`] of its kind.
    pub(super) release_slot: fn(&RegionMapping, Layout, usize),
    /// See [`Region::local`].
    pub(super) local: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Open {
    pub(super) fn members(&self) -> &MemberTable {
        self.mapping.view(self.layout.members)
    }

    /// Becomes a member, also in a process that was forked from one.
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

    /// Separates the copy in a forked child from the parent: it gets an open file description of
    /// its own and is not yet a member. Called in the child, where no other thread runs.
    ///
    /// If this fails, the parent's death is noticed only when this process has ended as well, and
    /// the first use reports the error.
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
        // Another thread may have opened it again meanwhile.
        if open.get(&self.key).is_some_and(|other| other.strong_count() == 0) {
            open.remove(&self.key);
        }
        // In a forked process that has not used it, the membership is its parent's.
        if let Some(member) = self.membership.get() {
            self.members().leave(member);
        }
    }
}

/// Identifies a region: device, inode (whose numbers are reused), and the region's random id.
pub(crate) type Key = (u64, u64, [u64; 2]);

/// The regions that this process has open, so that receiving one twice yields the same mapping.
///
/// The lock is held while a region is created, opened or closed, and during fork(2): see
/// [`fork`](mod@super::fork).
pub(crate) static OPEN: LazyLock<Mutex<OpenRegions>> = LazyLock::new(Mutex::default);

pub(crate) type OpenRegions = HashMap<Key, Weak<Open>>;

pub(super) fn key(device: u64, inode: u64, header: &Header) -> Key {
    let id = [header.id[0].load(Ordering::Relaxed), header.id[1].load(Ordering::Relaxed)];
    (device, inode, id)
}

/// Maps a region through a new open file description, which carries the lock of the member. The
/// mapping keeps the description, so the lock lasts as long as the mapping, whatever happens to the
/// descriptor. (Reopening also shows at once, and not at the first send, whether /proc is mounted.)
pub(super) fn map(descriptor: &OwnedFd, size: usize) -> io::Result<(RegionMapping, CheckedFd)> {
    let own = CheckedFd::new(memfd::reopen(descriptor, OFlags::RDWR)?)?;
    let mapping = RegionMapping::new(own.get()?, size)?;
    Ok((mapping, own))
}
