//! The control block: what the members of a queue share, apart from the bytes of its items.

use std::time::Duration;

use multiproc_shm::RECHECK;
use multiproc_shm::event_count::EventCount;
use multiproc_shm::fences::{Fences, LightFence};
#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Ordering, fence, fence_after_rmw};

use super::overflow::{self, millis};
use super::side::Side;
use super::slots;

/// The control block: what the members of a queue share, apart from the bytes of its items.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Control {
    pub(super) producers: Side,
    pub(super) consumers: Side,
    pub(super) not_empty: NotEmpty,
    pub(super) not_full: NotFull,
    pub(super) blocks: BlockTableLine,
    pub(crate) config: Config,
    pub(crate) tasks: slots::Control,
}

/// What consumers wait for, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct NotEmpty {
    pub(super) waiters: EventCount<LightFence>,
    /// 1 if a process waits with poll(2) and has requested the doorbell.
    doorbell: AtomicU32,
    /// The time of the last request, in ms.
    asked_at: AtomicU64,
}

/// What producers wait for, on a cache line of its own.
///
/// A freed place suits any producer, so one is woken. Freed bytes may suit a small item but not a
/// large one, so all producers that wait for bytes are woken.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct NotFull {
    pub(super) places: EventCount<LightFence>,
    pub(super) bytes: EventCount<LightFence>,
}

/// Rarely written words of the owner of the producers' lock.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct BlockTableLine {
    pub(super) blocks: overflow::Control,
    /// How many bytes of the hot ring have reserved memory.
    pub(super) reserved: AtomicU64,
    /// The number of packets that were sent, or attempted, through the descriptor lane.
    pub(super) packets: AtomicU64,
    /// The task that is being finished together with a put: see [`finish`](super::finish).
    pub(super) finishing: AtomicU64,
}

/// Words that all members read, and that are written once or twice.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Config {
    /// The maximum number of items, and of their bytes. Each handle keeps the values that it read
    /// when it was opened.
    pub(crate) capacity: AtomicU64,
    pub(crate) max_bytes: AtomicU64,
    /// [`OPEN`], or some of [`DRAIN`], [`NOW`], [`ORPHANED`], [`FINISHING`].
    state: AtomicU32,
    /// The number of closed handles that could put, and of those that could get.
    pub(crate) closed_producers: AtomicU32,
    pub(crate) closed_consumers: AtomicU32,
    /// 1 if items are got as tasks, otherwise 0.
    pub(crate) is_joinable: AtomicU32,
    pub(crate) fences: Fences,
    /// Of a queue of tasks that is [`ORPHANED`]: the number of tasks that were left, plus 1. 0
    /// until it was recorded, which precedes the discarding of the tasks.
    left: AtomicU32,
}

pub(super) const OPEN: u32 = 0;
/// Shut down: no item can be put.
pub(super) const DRAIN: u32 = 1;
/// Shut down: no item can be put or got.
pub(super) const NOW: u32 = 2;
/// A producer has found that no consumer is left. This is final.
const ORPHANED: u32 = 4;
/// The owner of the producers' lock is finishing a task together with a put. A flag of the state,
/// so that an ordinary put needs no instruction to find it: see [`finish`](super::finish).
pub(super) const FINISHING: u32 = 8;

#[cfg(not(loom))]
placed!(NotEmpty { waiters, doorbell, asked_at });
#[cfg(not(loom))]
placed!(NotFull { places, bytes });
#[cfg(not(loom))]
placed!(BlockTableLine { blocks, reserved, packets, finishing });
#[cfg(not(loom))]
placed!(Config {
    capacity,
    max_bytes,
    state,
    closed_producers,
    closed_consumers,
    is_joinable,
    fences,
    left,
});
#[cfg(not(loom))]
placed!(Control { producers, consumers, not_empty, not_full, blocks, config, tasks });

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Control, producers) == 0 && offset_of!(Control, consumers) == 256);
    assert!(offset_of!(Control, not_empty) == 512 && offset_of!(Control, not_full) == 640);
    assert!(offset_of!(Control, blocks) == 768 && offset_of!(Control, config) == 896);
    assert!(offset_of!(Config, max_bytes) == 8 && offset_of!(Config, state) == 16);
    assert!(offset_of!(Control, tasks) == 1024);
    assert!(size_of::<Control>() == 1152 && size_of::<BlockTableLine>() == 128);
};

impl Control {
    /// For models: the time of all sleepers runs out.
    #[cfg(loom)]
    pub(crate) fn time_out(&self) {
        self.producers.lock.futex().time_out();
        self.consumers.lock.futex().time_out();
        self.not_empty.waiters.futex().time_out();
        self.not_full.places.futex().time_out();
        self.not_full.bytes.futex().time_out();
        self.tasks.time_out();
    }

    /// Releases the locks of a dead member. It leaves nothing else.
    pub(crate) fn release_slot(&self, slot: usize) {
        self.producers.lock.release_slot(self.fences(), slot);
        self.consumers.lock.release_slot(self.fences(), slot);
    }

    /// Counts a handle that could put, after it was closed, and wakes all waiters.
    pub(crate) fn producer_closed(&self) {
        self.config.closed_producers.fetch_add(1, Ordering::Release);
        self.wake_all();
    }

    /// Counts a handle that could get, after it was closed, and wakes all waiters.
    pub(crate) fn consumer_closed(&self) {
        self.config.closed_consumers.fetch_add(1, Ordering::Release);
        self.wake_all();
    }

    /// Wakes all waiters, because what they wait for may never happen.
    pub(crate) fn wake_all(&self) {
        fence(Ordering::SeqCst);
        self.not_empty.waiters.wake_all();
        self.not_full.places.wake_all();
        self.not_full.bytes.wake_all();
        self.tasks.all_done().wake_all();
    }

    /// Ends putting, and unless `drain`, getting as well.
    pub(crate) fn shut_down(&self, drain: bool) {
        self.become_also(if drain { DRAIN } else { NOW });
    }

    /// Records that the last consumer is gone, which ends putting in all processes.
    pub(crate) fn orphan(&self) {
        if self.state() & ORPHANED == 0 {
            self.become_also(ORPHANED);
        }
    }

    fn become_also(&self, what: u32) {
        self.config.state.fetch_or(what, Ordering::AcqRel);
        self.wake_all();
    }

    /// Sets or clears [`FINISHING`]. The caller holds the producers' lock.
    pub(super) fn set_finishing(&self, is_finishing: bool) {
        if is_finishing {
            self.config.state.fetch_or(FINISHING, Ordering::AcqRel);
        } else {
            self.config.state.fetch_and(!FINISHING, Ordering::AcqRel);
        }
    }

    #[inline]
    pub(super) fn state(&self) -> u32 {
        self.config.state.load(Ordering::Acquire)
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.state() & (DRAIN | NOW) != 0
    }

    /// Returns `true` if no consumer is left.
    pub(crate) fn is_orphaned(&self) -> bool {
        self.state() & ORPHANED != 0
    }

    /// Returns the number of tasks that were left when no consumer was, if it was recorded.
    pub(crate) fn left(&self) -> Option<usize> {
        let left = self.config.left.load(Ordering::Acquire).checked_sub(1)?;
        Some(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Records the number of tasks that are left, unless another process has recorded it.
    pub(crate) fn record_left(&self, left: usize) {
        let left = u32::try_from(left).unwrap_or(u32::MAX).saturating_add(1);
        let (from, to) = (Ordering::AcqRel, Ordering::Relaxed);
        let _ = self.config.left.compare_exchange(0, left, from, to);
        fence_after_rmw();
    }

    /// Returns `true` if the queue was shut down and its items are discarded.
    pub(crate) fn is_shut_down_now(&self) -> bool {
        self.state() & NOW != 0
    }

    /// Returns `true` if no process can get the queued items any more, so that they are discarded.
    pub(crate) fn is_discarding(&self) -> bool {
        self.state() & (NOW | ORPHANED) != 0
    }

    /// Returns whether consumers and producers may be asleep.
    pub(crate) fn has_sleepers(&self) -> (bool, bool) {
        let NotFull { places, bytes, .. } = &self.not_full;
        let producers = places.has_sleepers() || bytes.has_sleepers();
        (self.not_empty.waiters.has_sleepers(), producers)
    }

    /// Returns the fences of all words of the queue on which processes sleep.
    #[inline]
    pub(crate) fn fences(&self) -> &Fences {
        &self.config.fences
    }

    /// Requests the doorbell at the next put. The caller must check once more before it sleeps.
    pub(crate) fn ask_for_doorbell(&self, now: Duration) {
        self.not_empty.asked_at.store(millis(now), Ordering::Relaxed);
        self.not_empty.doorbell.store(1, Ordering::Relaxed);
        self.fences().heavy();
    }

    /// Requests the doorbell again, after its packet was discarded: a process that it was meant for
    /// may be asleep. Such a process has made its request within the last recheck interval.
    pub(crate) fn ask_again(&self, now: Duration) {
        let asked_at = self.not_empty.asked_at.load(Ordering::Relaxed);
        if millis(now).wrapping_sub(asked_at) <= 2 * millis(RECHECK) {
            self.not_empty.doorbell.store(1, Ordering::Relaxed);
            self.fences().heavy();
        }
    }

    /// Returns `true` if the caller must ring the doorbell. To be called after a put was committed,
    /// and after a fence.
    #[inline]
    pub(crate) fn must_ring_doorbell(&self) -> bool {
        let doorbell = &self.not_empty.doorbell;
        doorbell.load(Ordering::Relaxed) != 0 && doorbell.swap(0, Ordering::Relaxed) != 0
    }
}
