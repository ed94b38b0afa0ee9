//! The barrier, placed in a region.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use multiproc_shm::Deadline;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Broken;
use crate::inspect::{Inspect, Inspection};
use crate::raw::barrier::{Barrier as RawBarrier, WaitOutcome};
use multiproc_shm::primitives::{AtomicU32, Ordering};
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{RECHECK, placed};

/// A point that a number of parties reach together: each waits until all are there. Then all go on,
/// one of them as the leader, and the barrier is ready for the next round.
///
/// # When a process dies
///
/// A party is any process that has the barrier open. If one dies without closing it (killed, or
/// ended by `exit` with the handle still there), the barrier breaks for those who wait, within about
/// 250 ms: they get [`Broken`], and so does everybody who comes, until [`reset`](Self::reset). A
/// party whose handle was dropped before it ended has left, and has not died.
///
/// As many processes or threads should use it as there are parties. If there are more, one that is
/// held up for 16 rounds of the others is told `Broken`, because nobody knows any more how its own
/// ended. A waiter asks the kernel for each process that has it open, four times a second.
///
/// # Ordering
///
/// What a party wrote before it arrived is visible to all who get through in that round.
///
/// ```
/// use multiproc_sync::Barrier;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let barrier = Barrier::new(2)?;
/// let other = barrier.clone();
/// let thread = std::thread::spawn(move || other.wait().unwrap().is_leader());
/// let me = barrier.wait()?.is_leader();
/// assert!(me != thread.join().unwrap(), "one of the two");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Barrier {
    region: Region<BarrierControl>,
    parties: u32,
}

/// What its members share.
#[derive(Debug, Default)]
#[repr(C)]
struct BarrierControl {
    barrier: RawBarrier,
    /// Each handle keeps the number it read when it was opened.
    parties: AtomicU32,
}

const _: () = {
    assert!(std::mem::offset_of!(BarrierControl, parties) == 16);
    assert!(size_of::<BarrierControl>() == 24);
};

placed!(BarrierControl { barrier, parties });

impl Control for BarrierControl {
    const KIND: u32 = u32::from_le_bytes(*b"BARR");
    const NAME: &'static str = "barrier";

    /// Whoever had the slot was a party, and waits no more.
    fn release_slot(&self, _: &[AtomicU32], _: usize) {}
}

impl Barrier {
    /// The most parties.
    pub const MAX: u32 = RawBarrier::MAX;

    /// A new barrier for `n` parties.
    ///
    /// # Errors
    ///
    /// If `n` is 0 or more than [`MAX`](Self::MAX), or there are no descriptors or no memory left,
    /// there is no `/proc`, or a resource limit is too small, which the error then names.
    pub fn new(n: u32) -> io::Result<Self> {
        Self::check(n, io::ErrorKind::InvalidInput)?;
        let set_up = |control: &BarrierControl| control.parties.store(n, Ordering::Relaxed);
        Ok(Self { region: Region::create(0, set_up)?, parties: n })
    }

    fn check(parties: u32, kind: io::ErrorKind) -> io::Result<()> {
        if parties == 0 || parties > Self::MAX {
            let most = Self::MAX;
            let text = format!("a barrier has between 1 and {most} parties, not {parties}");
            return Err(io::Error::new(kind, text));
        }
        Ok(())
    }

    fn raw(&self) -> &RawBarrier {
        &self.region.control().barrier
    }

    /// Arrives, and waits until all parties are there, as long as it takes.
    ///
    /// # Errors
    ///
    /// If the barrier is broken, or breaks while waiting.
    pub fn wait(&self) -> Result<BarrierWaitResult, Broken> {
        self.wait_until(Deadline::NEVER)
    }

    /// Arrives, and waits for at most `timeout` until all parties are there. Running out of time
    /// breaks the barrier: the others cannot be complete any more.
    ///
    /// # Errors
    ///
    /// If the barrier is broken, or breaks while waiting, or the time ran out.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult, Broken> {
        self.wait_until(Deadline::after(timeout))
    }

    /// Arrives, and waits until `deadline` at most; else as [`wait_timeout`](Self::wait_timeout).
    ///
    /// # Errors
    ///
    /// As [`wait_timeout`](Self::wait_timeout).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<BarrierWaitResult, Broken> {
        self.wait_until(Deadline::at(deadline))
    }

    fn wait_until(&self, deadline: Deadline) -> Result<BarrierWaitResult, Broken> {
        let anybody_died = || self.region.has_dead_members();
        match self.raw().wait(self.parties, anybody_died, deadline, RECHECK) {
            Ok(through) => Ok(BarrierWaitResult { is_leader: through == WaitOutcome::Leader }),
            Err(crate::raw::barrier::Broken) => Err(Broken),
        }
    }

    /// Breaks the barrier: all who wait get [`Broken`], and all who come until a reset.
    pub fn abort(&self) {
        self.raw().abort();
    }

    /// Makes a fresh start, also after a death: the barrier is whole again, with nobody there. Those
    /// who wait at this moment get [`Broken`].
    pub fn reset(&self) {
        self.region.forget_dead_members();
        self.raw().reset();
    }

    /// How many parties there are.
    #[must_use]
    pub fn parties(&self) -> u32 {
        self.parties
    }

    /// How many wait at this moment.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.raw().waiting()
    }

    /// Whether nobody gets through until a reset.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.raw().is_broken()
    }
}

impl Inspect for Barrier {
    fn inspect(&self) -> Inspection {
        Inspection::of(&self.region, self.waiting() > 0)
    }

    fn observe(&self) {
        self.region.stand_aside();
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("parties", &self.parties)
            .field("waiting", &self.waiting())
            .field("broken", &self.is_broken())
            .field("members", &self.region.members())
            .finish()
    }
}

impl Serialize for Barrier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.region.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Barrier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let region = Region::<BarrierControl>::deserialize(deserializer)?;
        let parties = region.control().parties.load(Ordering::Relaxed);
        Self::check(parties, io::ErrorKind::InvalidData).map_err(serde::de::Error::custom)?;
        Ok(Self { region, parties })
    }
}

/// How a party got through a [`Barrier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarrierWaitResult {
    is_leader: bool,
}

impl BarrierWaitResult {
    /// Whether this one is the leader of its round. There is exactly one: the last that arrived.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.is_leader
    }
}
