//! The handle of a barrier, placed in a region.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use multiproc_shm::primitives::{AtomicU32, Ordering};
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{Deadline, RECHECK, placed};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Broken;
use crate::inspect::{Inspect, Inspection};
use crate::raw::barrier::{Barrier as RawBarrier, WaitOutcome};

/// A barrier: each party waits until all parties have arrived. Then all of them continue, one of
/// them as the leader, and the next round begins.
///
/// # When a process dies
///
/// Each process that has the barrier open counts as a party. If one dies without closing it (it is
/// killed, or calls `exit` while the handle exists), the barrier breaks. Its waiters get [`Broken`]
/// within about 250 ms, and so does every later caller until [`reset`](Self::reset). A process that
/// dropped its handle before it ended has left, and does not break the barrier.
///
/// Exactly as many processes or threads should use the barrier as it has parties. If there are
/// more, one that is delayed for 16 rounds of the others gets `Broken`, because the outcome of its
/// own round is no longer recorded. A waiter asks the kernel about each process that has the
/// barrier open, four times per second.
///
/// # Ordering
///
/// What a party wrote before it arrived is visible to all parties that continue from that round.
///
/// # Examples
///
/// ```
/// use multiproc_sync::Barrier;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let barrier = Barrier::new(2)?;
/// let other = barrier.clone();
/// let thread = std::thread::spawn(move || other.wait().unwrap().is_leader());
/// let me = barrier.wait()?.is_leader();
/// assert!(me != thread.join().unwrap(), "one of the two leads");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Barrier {
    region: Region<BarrierControl>,
    parties: u32,
}

/// The control block.
#[derive(Debug, Default)]
#[repr(C)]
struct BarrierControl {
    barrier: RawBarrier,
    /// The number of parties. Each handle reads it once, when it is opened.
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

    /// Nothing of a barrier has an owner: parties are not named.
    fn release_slot(&self, _: &[AtomicU32], _: usize) {}
}

impl Barrier {
    /// The maximum number of parties.
    pub const MAX: u32 = RawBarrier::MAX;

    /// Creates a barrier for `n` parties.
    ///
    /// # Errors
    ///
    /// Fails if `n` is 0 or more than [`MAX`](Self::MAX), if the process has run out of descriptors
    /// or memory, if `/proc` is not mounted, or if a resource limit is too small. The error then
    /// names the limit.
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

    /// Arrives, and waits indefinitely until all parties have arrived.
    ///
    /// If a process that has the barrier open dies, the wait ends within about 250 ms.
    ///
    /// # Errors
    ///
    /// Returns [`Broken`] if the barrier is broken, or breaks while this waits.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::Barrier;
    ///
    /// let alone = Barrier::new(1)?;
    /// match alone.wait() {
    ///     Ok(result) => assert!(result.is_leader()),
    ///     Err(broken) => println!("{broken}"),
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn wait(&self) -> Result<BarrierWaitResult, Broken> {
        self.wait_until(Deadline::NEVER)
    }

    /// Arrives, and waits for at most `timeout` until all parties have arrived.
    ///
    /// A timeout breaks the barrier, because the round can no longer become complete.
    ///
    /// # Errors
    ///
    /// Returns [`Broken`] if the barrier is broken, breaks while this waits, or the wait times out.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult, Broken> {
        self.wait_until(Deadline::after(timeout))
    }

    /// Arrives, and waits until `deadline` at most, as [`wait_timeout`](Self::wait_timeout) does.
    ///
    /// # Errors
    ///
    /// Returns [`Broken`] as [`wait_timeout`](Self::wait_timeout) does.
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

    /// Breaks the barrier: all waiters get [`Broken`], and all later callers until a reset.
    ///
    /// A party calls it when it cannot reach the barrier, so that the others do not wait for it.
    pub fn abort(&self) {
        self.raw().abort();
    }

    /// Starts a new round in which no party has arrived, also after a party died. The waiters of
    /// the current round get [`Broken`].
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::Barrier;
    ///
    /// let barrier = Barrier::new(2)?;
    /// barrier.abort();
    /// assert!(barrier.wait().is_err());
    /// barrier.reset();
    /// assert!(!barrier.is_broken());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn reset(&self) {
        self.region.forget_dead_members();
        self.raw().reset();
    }

    /// Returns the number of parties.
    #[must_use]
    pub fn parties(&self) -> u32 {
        self.parties
    }

    /// Returns the number of parties that are waiting.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.raw().waiting()
    }

    /// Returns true if the barrier is broken, until a reset.
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

/// The result of a completed round of a [`Barrier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarrierWaitResult {
    is_leader: bool,
}

impl BarrierWaitResult {
    /// Returns true for the leader of the round. That is exactly one party: the last to arrive.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.is_leader
    }
}
