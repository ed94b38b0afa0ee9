//! The control block: what the members of a queue share, beside the bytes of its items.

use std::time::Duration;

use multiproc_shm::RECHECK;
use multiproc_shm::event_count::EventCount;
use multiproc_shm::fences::{Fences, LightFence};
#[cfg(not(loom))]
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Ordering, fence};

use super::overflow::{self, millis};
use super::side::Side;
use super::slots;

/// The control block: what the members of a queue share, beside the bytes.
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

/// Where consumers wait, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct NotEmpty {
    pub(super) waiters: EventCount<LightFence>,
    /// Somebody waits in the kernel, with poll(2), and wants the doorbell to be rung.
    doorbell: AtomicU32,
    /// When somebody last asked for that, in ms.
    asked_at: AtomicU64,
}

/// Where producers wait, on a cache line of its own. For a place, any of them is the right one to
/// wake. For bytes, the one that is woken may need more than there are, and another one less: so
/// all of those are woken.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct NotFull {
    pub(super) places: EventCount<LightFence>,
    pub(super) bytes: EventCount<LightFence>,
}

/// What only the holder of the producers' lock writes, and seldom.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct BlockTableLine {
    pub(super) blocks: overflow::Control,
    /// How much of the hot ring is sure to have memory.
    pub(super) reserved: AtomicU64,
    /// How many packets were sent, or tried, through the descriptor lane.
    pub(super) packets: AtomicU64,
}

/// What everybody reads, and nobody writes but once or twice.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Config {
    /// How many items, and how many bytes of items, there may be. Each handle keeps the numbers that
    /// it read when it was opened.
    pub(crate) capacity: AtomicU64,
    pub(crate) max_bytes: AtomicU64,
    /// [`OPEN`], or some of [`DRAIN`], [`NOW`], [`ORPHANED`].
    state: AtomicU32,
    /// How many handles that could put were closed; and get.
    pub(crate) closed_producers: AtomicU32,
    pub(crate) closed_consumers: AtomicU32,
    /// Whether what is got is a task: 1, or 0.
    pub(crate) is_joinable: AtomicU32,
    pub(crate) fences: Fences,
    rest: AtomicU32,
}

pub(super) const OPEN: u32 = 0;
/// It was shut down: nobody puts any more.
pub(super) const DRAIN: u32 = 1;
/// It was shut down: nobody puts or gets any more.
pub(super) const NOW: u32 = 2;
/// A producer has found that no consumer is left. There will never be one again.
const ORPHANED: u32 = 4;

#[cfg(not(loom))]
placed!(NotEmpty { waiters, doorbell, asked_at });
#[cfg(not(loom))]
placed!(NotFull { places, bytes });
#[cfg(not(loom))]
placed!(BlockTableLine { blocks, reserved, packets });
#[cfg(not(loom))]
placed!(Config {
    capacity,
    max_bytes,
    state,
    closed_producers,
    closed_consumers,
    is_joinable,
    fences,
    rest,
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
    /// The time of everybody who sleeps runs out, for models.
    #[cfg(loom)]
    pub(crate) fn time_out(&self) {
        self.producers.lock.futex().time_out();
        self.consumers.lock.futex().time_out();
        self.not_empty.waiters.futex().time_out();
        self.not_full.places.futex().time_out();
        self.not_full.bytes.futex().time_out();
        self.tasks.time_out();
    }

    /// Lets go of the locks of a dead member. Nothing else of it remains.
    pub(crate) fn release_slot(&self, slot: usize) {
        self.producers.lock.release_slot(self.fences(), slot);
        self.consumers.lock.release_slot(self.fences(), slot);
    }

    /// Wakes everybody who waits: what they wait for may never come.
    pub(crate) fn wake_all(&self) {
        fence(Ordering::SeqCst);
        self.not_empty.waiters.wake_all();
        self.not_full.places.wake_all();
        self.not_full.bytes.wake_all();
        self.tasks.all_done().wake_all();
    }

    /// Nobody puts any more; and, if not `drain`, nobody gets either.
    pub(crate) fn shut_down(&self, drain: bool) {
        self.become_also(if drain { DRAIN } else { NOW });
    }

    /// The last consumer is gone: nobody puts any more, in any process.
    pub(crate) fn orphan(&self) {
        if self.state() & ORPHANED == 0 {
            self.become_also(ORPHANED);
        }
    }

    fn become_also(&self, what: u32) {
        self.config.state.fetch_or(what, Ordering::AcqRel);
        self.wake_all();
    }

    #[inline]
    pub(super) fn state(&self) -> u32 {
        self.config.state.load(Ordering::Acquire)
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.state() & (DRAIN | NOW) != 0
    }

    /// Whether no consumer is left.
    pub(crate) fn is_orphaned(&self) -> bool {
        self.state() & ORPHANED != 0
    }

    /// Whether nobody gets the queued items any more: then they are discarded.
    pub(crate) fn is_discarding(&self) -> bool {
        self.state() & (NOW | ORPHANED) != 0
    }

    /// Whether consumers, producers may be asleep.
    pub(crate) fn has_sleepers(&self) -> (bool, bool) {
        let NotFull { places, bytes, .. } = &self.not_full;
        let producers = places.has_sleepers() || bytes.has_sleepers();
        (self.not_empty.waiters.has_sleepers(), producers)
    }

    /// All words of a queue that are slept on have these fences.
    #[inline]
    pub(crate) fn fences(&self) -> &Fences {
        &self.config.fences
    }

    /// Asks for the doorbell to be rung at the next put. Whoever asks looks once more before it goes to
    /// sleep.
    pub(crate) fn ask_for_doorbell(&self, now: Duration) {
        self.not_empty.asked_at.store(millis(now), Ordering::Relaxed);
        self.not_empty.doorbell.store(1, Ordering::Relaxed);
        self.fences().heavy();
    }

    /// Asks for it again, after what came of it was thrown away: somebody may sleep whom it was to
    /// wake. Who sleeps has asked within the last recheck interval.
    pub(crate) fn ask_again(&self, now: Duration) {
        let asked_at = self.not_empty.asked_at.load(Ordering::Relaxed);
        if millis(now).wrapping_sub(asked_at) <= 2 * millis(RECHECK) {
            self.not_empty.doorbell.store(1, Ordering::Relaxed);
            self.fences().heavy();
        }
    }

    /// Whether somebody wants the doorbell to be rung: it then is the caller's affair. To be called after
    /// a put has been committed, and a fence passed.
    #[inline]
    pub(crate) fn must_ring_doorbell(&self) -> bool {
        let doorbell = &self.not_empty.doorbell;
        doorbell.load(Ordering::Relaxed) != 0 && doorbell.swap(0, Ordering::Relaxed) != 0
    }
}
