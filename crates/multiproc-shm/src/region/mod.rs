//! Regions: shared memory of several processes that is known by a descriptor only.
//!
//! A region is a memfd of a fixed size, sealed, and mapped by each process that has it open:
//!
//! | offset | content |
//! |---|---|
//! | 0 | a header: magic, version, kind, size |
//! | 128 | the control block of its kind: a struct of atomics |
//! | next multiple of 64 | the data, if at most 2048 bytes |
//! | next multiple of 64 | the member table: 8 bytes for each of 1024 members |
//! | next page | the data, if more |
//!
//! A region with little data therefore touches one page. It ends with the last process that has it
//! open.

use std::any::Any;
use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError, Weak};

use multiproc_message as message;
use rustix::fs::{FallocateFlags, OFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};
use rustix::io::retry_on_intr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::members::table::Membership;
use crate::members::{MEMBERS, MemberId, Members};
use crate::primitives::Bytes;
use crate::{CheckedFd, memfd, ofd_lock};

mod fork;
mod layout;
mod mapping;
mod placed;
mod registry;

use layout::{CONTROL, Header, Layout, MAGIC, PAGE, VERSION};
use mapping::RegionMapping;
pub use placed::{Atomic, Placed};
use registry::{OPEN, Open, OpenRegions, key, map};

/// The control block of a kind of region: the state that its members share.
pub trait Control: Placed + Send + Sync + 'static {
    /// Identifies the kind. A region of another kind is refused.
    const KIND: u32;

    /// The name of the kind, as it appears in `/proc/PID/maps` and in errors.
    const NAME: &'static str;

    /// The permitted number of data bytes. A region with more or fewer is refused.
    const DATA: RangeInclusive<usize> = 0..=0;

    /// Cleans up after a dead member: when this returns, everything that the member in `slot` owned
    /// is free or marked as abandoned. Called before the slot is reused. `words` are those of
    /// [`Region::words`], for kinds that use them.
    fn release_slot(&self, words: &[AtomicU32], slot: usize);
}

/// A handle to a region with control block `C`. Clones share one mapping and one membership.
pub struct Region<C> {
    open: Arc<Open>,
    control: PhantomData<fn() -> C>,
}

impl<C> Clone for Region<C> {
    fn clone(&self) -> Self {
        Self { open: Arc::clone(&self.open), control: PhantomData }
    }
}

impl<C: Control> Region<C> {
    /// Creates a region with `data` bytes beside the control block, all zero.
    ///
    /// `init` sets up the control block before any other process can see it. Memory is allocated
    /// page by page when it is first touched, so `data` may be large.
    ///
    /// # Errors
    ///
    /// If there are no descriptors, no address space or no `/proc`, or if a resource limit is too
    /// small, which the error names.
    pub fn create(data: usize, init: impl FnOnce(&C)) -> io::Result<Self> {
        Self::create_named("", data, init)
    }

    /// Creates a region with a name of its own beside that of its kind. The name appears in
    /// `/proc/PID/maps` and is cut after some 200 bytes.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_named(name: &str, data: usize, init: impl FnOnce(&C)) -> io::Result<Self> {
        let layout = Layout::of::<C>(data)
            .ok_or_else(|| invalid(format!("{data} bytes are more than can be mapped")))?;
        let size = layout.size;
        memfd::check_limit(size as u64)?;
        let descriptor = memfd::create(&memfd_name(C::NAME, name))?;
        ftruncate(&descriptor, size as u64)?;
        fcntl_add_seals(&descriptor, SEALS)?;

        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (mapping, descriptor) = map(&descriptor, size)?;
        let id = random_id()?;
        let header: &Header = mapping.view(0);
        header.magic.store(MAGIC, Ordering::Relaxed);
        header.version.store(VERSION, Ordering::Relaxed);
        header.kind.store(C::KIND, Ordering::Relaxed);
        header.size.store(size as u64, Ordering::Relaxed);
        header.data_len.store(data as u64, Ordering::Relaxed);
        header.id[0].store(id[0], Ordering::Relaxed);
        header.id[1].store(id[1], Ordering::Relaxed);
        init(mapping.view(CONTROL));
        Self::join(mapping, descriptor, layout, open)
    }

    /// Opens a received region through an open file description of its own, so that no copy of the
    /// descriptor in another process can hide the death of this one.
    ///
    /// # Errors
    ///
    /// If it is not a region, is of another kind or version, lacks a seal, or already has
    /// [`MEMBERS`] members. The error states what was expected and
    /// received.
    pub fn open(descriptor: OwnedFd) -> io::Result<Self> {
        let stat = memfd::check_seals(&descriptor, SEALS).map_err(|error| {
            io::Error::new(error.kind(), format!("expected a multiproc {}: {error}", C::NAME))
        })?;
        let size = usize::try_from(stat.st_size).unwrap_or(0);
        // That of the smallest kind, so that a region of another kind is named as such below, where
        // the size is compared with the layout of this kind.
        let least = Layout::of::<()>(0).map_or(0, |layout| layout.size);
        if size < least {
            return Err(invalid(format!(
                "expected a multiproc {} of {least} bytes at least, got shared memory of {size}",
                C::NAME
            )));
        }

        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (mapping, descriptor) = map(&descriptor, size)?;
        let header: &Header = mapping.view(0);
        if header.magic.load(Ordering::Relaxed) != MAGIC {
            return Err(invalid(format!(
                "expected a multiproc {}, got shared memory of another program",
                C::NAME
            )));
        }
        let version = header.version.load(Ordering::Relaxed);
        if version != VERSION {
            return Err(invalid(format!(
                "expected a multiproc {} of version {VERSION}, got version {version}; both \
                 programs must use the same version of multiproc",
                C::NAME
            )));
        }
        let kind = header.kind.load(Ordering::Relaxed);
        if kind != C::KIND {
            return Err(invalid(format!(
                "expected a multiproc {}, got one of another kind ({})",
                C::NAME,
                kind.to_le_bytes().escape_ascii()
            )));
        }
        let data = usize::try_from(header.data_len.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let layout = Layout::of::<C>(data).filter(|layout| {
            C::DATA.contains(&data)
                && layout.size == size
                && header.size.load(Ordering::Relaxed) == size as u64
        });
        let layout = layout.ok_or_else(|| {
            invalid(format!(
                "expected a multiproc {} whose header states its size, got one of {size} bytes",
                C::NAME
            ))
        })?;
        if let Some(known) =
            open.get(&key(stat.st_dev, stat.st_ino, header)).and_then(Weak::upgrade)
        {
            // The kind was compared above, in the same file. The layout may have been forged since
            // the other handle was opened, which uses its own copy.
            if known.layout != layout {
                // `known` may be the last handle by now, and its drop takes this lock.
                drop(open);
                return Err(invalid(format!("this multiproc {} has changed its layout", C::NAME)));
            }
            return Ok(Self { open: known, control: PhantomData });
        }
        Self::join(mapping, descriptor, layout, open)
    }

    fn join(
        mapping: RegionMapping,
        descriptor: CheckedFd,
        layout: Layout,
        mut open: MutexGuard<'_, OpenRegions>,
    ) -> io::Result<Self> {
        let (device, inode) = descriptor.identity();
        let key = key(device, inode, mapping.view(0));
        let membership = Membership::default();
        let release_slot = |mapping: &RegionMapping, layout, slot| {
            mapping.view::<C>(CONTROL).release_slot(mapping.data_as(layout), slot);
        };
        fork::register();
        let local = OnceLock::new();
        let this = Open { mapping, descriptor, key, membership, layout, release_slot, local };
        if let Err(error) = this.join() {
            // Dropping `this` takes the lock.
            drop(open);
            return Err(error);
        }
        let this = Arc::new(this);
        open.insert(key, Arc::downgrade(&this));
        Ok(Self { open: this, control: PhantomData })
    }

    /// Returns a value in private memory that all handles of the region in this process share. The
    /// first call creates it, and it ends with the last handle. A forked child has a copy.
    ///
    /// # Panics
    ///
    /// If another call used another type.
    pub fn local<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> &T {
        let local = self.open.local.get_or_init(|| Box::new(make()));
        let Some(local) = local.downcast_ref() else { panic!("one type for each kind of region") };
        local
    }

    /// Returns the membership of this process.
    pub fn membership(&self) -> &Membership {
        &self.open.membership
    }

    /// Returns this process as a member of the region. A process that was forked from a member
    /// becomes a member of its own with the first call.
    ///
    /// # Errors
    ///
    /// In a forked process, if the region has the maximum number of members, or other code has
    /// closed its descriptor.
    #[inline]
    pub fn member(&self) -> io::Result<MemberId> {
        match self.open.membership.get() {
            Some(member) => Ok(member),
            None => self.open.join_after_fork(),
        }
    }

    /// Panics if this process can no longer tell whether other members are alive. An operation
    /// without an error type calls this where it would otherwise wait for a dead member
    /// forever.
    ///
    /// # Panics
    ///
    /// If other code in this process has closed the region's descriptor.
    #[track_caller]
    pub fn assert_connected(&self) {
        if let Err(error) = self.open.descriptor.get() {
            panic!("multiproc {}: {error}", C::NAME);
        }
    }

    /// Returns the control block.
    #[inline]
    #[must_use]
    pub fn control(&self) -> &C {
        self.open.mapping.view(CONTROL)
    }

    /// Returns the data as bytes. A kind uses either this or [`words`](Self::words), or both for
    /// separate parts of the data: see [`words_at`](Self::words_at).
    #[inline]
    #[must_use]
    pub fn data(&self) -> Bytes<'_> {
        self.open.mapping.bytes(self.open.layout)
    }

    /// Returns `count` words of four bytes at offset `at` of the data, for a kind that has both
    /// words and bytes in separate parts.
    ///
    /// # Panics
    ///
    /// If they are not all in range.
    #[inline]
    #[must_use]
    pub fn words_at(&self, at: usize, count: usize) -> &[AtomicU32] {
        &self.words()[at / size_of::<AtomicU32>()..][..count]
    }

    /// Allocates memory for `len` bytes at offset `at` of the data where there is none yet, so that
    /// touching them cannot fail later.
    ///
    /// # Errors
    ///
    /// If no memory is left.
    pub fn reserve(&self, at: usize, len: usize) -> io::Result<()> {
        // Before Linux 6.11 a signal undoes a whole call. Pieces are small enough to complete
        // between two signals.
        const PIECE: usize = 1 << 20;
        let at = self.offset_of(at, len);
        if len == 0 {
            return Ok(());
        }
        let descriptor = self.open.descriptor.get()?;
        for start in (at..at + len).step_by(PIECE) {
            let len = PIECE.min(at + len - start);
            let flags = FallocateFlags::empty();
            retry_on_intr(|| fallocate(descriptor, flags, start as u64, len as u64))?;
        }
        Ok(())
    }

    /// Returns the memory of the whole pages within `len` bytes at offset `at` of the data to the
    /// system. They are zero from then on.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, as it does for locked memory (mlockall(2)).
    pub fn give_back(&self, at: usize, len: usize) -> io::Result<()> {
        let at = self.offset_of(at, len);
        let (start, end) = (at.next_multiple_of(PAGE), (at + len) / PAGE * PAGE);
        if start >= end {
            return Ok(());
        }
        // On the mapping, because the descriptor's number may refer to another file by now.
        self.open.mapping.remove(start, end - start)
    }

    /// Returns the offset in the region of `len` bytes at offset `at` of the data.
    fn offset_of(&self, at: usize, len: usize) -> usize {
        let Layout { data, data_len, .. } = self.open.layout;
        assert!(at <= data_len && len <= data_len - at, "{len} bytes at {at} of {data_len}");
        data + at
    }

    /// Returns the data as words of four bytes.
    #[inline]
    #[must_use]
    pub fn words(&self) -> &[AtomicU32] {
        self.data_as()
    }

    /// Returns the data as atomics. A remainder at the end is left out.
    #[inline]
    #[must_use]
    pub fn data_as<T: Atomic>(&self) -> &[T] {
        self.open.mapping.data_as(self.open.layout)
    }

    /// Returns the process id of a member as it saw itself when it opened the region, or 0 if
    /// unknown.
    #[must_use]
    pub fn pid(&self, member: MemberId) -> u32 {
        self.open.members().pid(member)
    }

    /// Returns the number of processes that have the region open. A dead one may be counted until
    /// its death is noticed.
    #[must_use]
    pub fn members(&self) -> usize {
        self.open.members().count()
    }

    /// Makes this process an observer: it is not counted, and its death has no effect. For a
    /// process that keeps the region for others and does not work with it: while it has the region
    /// open, the region is [kept](Self::is_kept).
    pub fn observe(&self) {
        if let Some(member) = self.open.membership.get() {
            self.open.members().leave(member);
        }
        if let Ok(descriptor) = self.open.descriptor.get() {
            // If the kernel is out of memory, the region does not count as kept.
            let _ = ofd_lock::try_lock(descriptor, ofd_lock::Kind::Shared, KEEPER);
        }
    }

    /// Returns `true` if another process [keeps](Self::observe) the region for others, and also
    /// if this cannot be determined. One system call.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        ofd_lock::is_locked(self.open.descriptor.unchecked(), KEEPER)
    }

    /// The former name of [`observe`](Self::observe).
    #[doc(hidden)]
    pub fn stand_aside(&self) {
        self.observe();
    }

    /// Returns the number of living processes that have the region open. One system call for each.
    #[must_use]
    pub fn live_members(&self) -> usize {
        let Ok(descriptor) = self.open.descriptor.get() else { return self.members() };
        self.open.members().count_alive(descriptor, self.open.membership.get())
    }

    /// Returns `true` if a process has died without closing the region and its slot was not reused,
    /// and also if this cannot be determined because other code has closed the region's
    /// descriptor. One system call for each member.
    #[must_use]
    pub fn has_dead_members(&self) -> bool {
        let Ok(descriptor) = self.open.descriptor.get() else { return true };
        self.open.members().has_dead(descriptor, self.me())
    }

    /// Forgets dead members: [`has_dead_members`](Self::has_dead_members) returns `false` until
    /// another member dies.
    pub fn forget_dead_members(&self) {
        if let Ok(descriptor) = self.open.descriptor.get() {
            self.open.members().forget_dead(descriptor, self.me());
        }
    }

    /// Returns a new descriptor that claims the region: while it, a duplicate, or one that is on
    /// its way to another process, is open, [`is_claimed`](Self::is_claimed) returns `true`. What
    /// a claim means is up to the kind of region.
    ///
    /// It is an open file description with a lock, so the kernel ends a claim with the last process
    /// that has it, however that process ends.
    ///
    /// # Errors
    ///
    /// If no descriptor is left, or other code in this process has closed the region's.
    pub fn claim(&self) -> io::Result<OwnedFd> {
        let claim = memfd::reopen(self.open.descriptor.get()?, OFlags::RDONLY)?;
        ofd_lock::try_lock(&claim, ofd_lock::Kind::Shared, CLAIM)?;
        Ok(claim)
    }

    /// Ends a claim for all descriptors of it, which may stay open.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn end_claim(claim: impl AsFd) -> io::Result<()> {
        ofd_lock::unlock(claim, CLAIM)
    }

    /// Returns `true` if any process has a [claim](Self::claim), and also if this cannot be
    /// determined because other code has closed the region's descriptor. Makes two system calls.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        let descriptor = &self.open.descriptor;
        // Checked afterwards: if the descriptor is intact now, it was so during the query.
        ofd_lock::is_locked(descriptor.unchecked(), CLAIM) || !descriptor.is_intact()
    }

    /// Returns `true` if both handles are of the same region.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.open, &other.open)
    }
}

impl<C: Control> Members for Region<C> {
    /// # Panics
    ///
    /// In a forked process, where [`member`](Region::member) would be an error.
    #[inline]
    fn me(&self) -> MemberId {
        match self.member() {
            Ok(member) => member,
            Err(error) => not_a_member(C::NAME, &error),
        }
    }

    /// Makes some system calls: about a microsecond.
    fn is_alive(&self, member: MemberId) -> bool {
        let open = &*self.open;
        open.membership.is(member)
            || open.members().is_alive(open.descriptor.unchecked(), member)
            // Checked afterwards: if the descriptor is intact now, it was so during the query.
            || self.is_cut_off()
    }

    /// Makes one system call.
    fn is_cut_off(&self) -> bool {
        !self.open.descriptor.is_intact()
    }
}

#[cold]
fn not_a_member(name: &str, error: &io::Error) -> ! {
    panic!("multiproc {name}: this process was forked, and cannot become a member: {error}")
}

/// A region is sent as a new open file description, on which the receiver takes a lock of its own.
impl<C: Control> Serialize for Region<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let descriptor = self.open.descriptor.get();
        let fresh = descriptor.and_then(|descriptor| memfd::reopen(descriptor, OFlags::RDWR));
        message::attach(fresh.map_err(serde::ser::Error::custom)?, serializer)
    }
}

impl<'de, C: Control> Deserialize<'de> for Region<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::open(message::claim(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The byte of the file that a claim locks. The bytes before it are those of the members.
#[allow(clippy::cast_possible_truncation)] // 1024
const CLAIM: u32 = MEMBERS as u32;

/// The byte that the keepers of a region lock.
const KEEPER: u32 = CLAIM + 1;

/// The size is fixed, so an access to a mapping cannot be a SIGBUS because the file shrank.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Returns a name that memfd_create(2) accepts: without NUL and not too long.
fn memfd_name(kind: &str, name: &str) -> String {
    const LONGEST: usize = 249;
    let mut text = format!("multiproc:{kind}");
    if !name.is_empty() {
        text.push(':');
    }
    for char in name.chars().filter(|&char| char != '\0') {
        if text.len() + char.len_utf8() > LONGEST {
            break;
        }
        text.push(char);
    }
    text
}

fn random_id() -> io::Result<[u64; 2]> {
    let mut bytes = [0; 16];
    // Up to 256 bytes are never returned in part (getrandom(2)).
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let (low, high) = bytes.split_at(8);
    Ok([low, high].map(|half| half.iter().fold(0, |n, &byte| n << 8 | u64::from(byte))))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
