//! The handle of a barrier, placed in a region.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use multiproc_shm::primitives::{AtomicU32, AtomicU64, Ordering};
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{Deadline, RECHECK, placed};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Broken;
use crate::inspect::{Inspect, Inspection};
use crate::raw::barrier::Barrier as RawBarrier;

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
    timeout: Option<Duration>,
}

/// The control block.
#[derive(Debug, Default)]
#[repr(C)]
struct BarrierControl {
    barrier: RawBarrier,
    /// The number of parties. Each handle reads it once, when it is opened.
    parties: AtomicU32,
    /// The default timeout in nanoseconds, or 0 for none. Read as `parties` is.
    timeout: AtomicU64,
}

const _: () = {
    assert!(std::mem::offset_of!(BarrierControl, parties) == 16);
    assert!(std::mem::offset_of!(BarrierControl, timeout) == 24);
    assert!(size_of::<BarrierControl>() == 32);
};

placed!(BarrierControl { barrier, parties, timeout });

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
        Self::create(n, None)
    }

    /// Creates a barrier for `n` parties, whose [`wait`](Self::wait) waits for at most `timeout`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`new`](Self::new).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::Barrier;
    /// use std::time::Duration;
    ///
    /// let barrier = Barrier::with_timeout(2, Duration::from_millis(1))?;
    /// assert!(barrier.wait().is_err(), "the other party never came");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_timeout(n: u32, timeout: Duration) -> io::Result<Self> {
        Self::create(n, Some(timeout))
    }

    fn create(n: u32, timeout: Option<Duration>) -> io::Result<Self> {
        Self::check(n, io::ErrorKind::InvalidInput)?;
        // Zero means none, so the shortest timeout is a nanosecond. The longest is 584 years.
        let nanos = timeout
            .map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).max(1));
        let set_up = |control: &BarrierControl| {
            control.parties.store(n, Ordering::Relaxed);
            control.timeout.store(nanos, Ordering::Relaxed);
        };
        Ok(Self::over(Region::create(0, set_up)?, n))
    }

    fn over(region: Region<BarrierControl>, parties: u32) -> Self {
        let nanos = region.control().timeout.load(Ordering::Relaxed);
        let timeout = (nanos > 0).then(|| Duration::from_nanos(nanos));
        Self { region, parties, timeout }
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

    /// Arrives, and waits until all parties have arrived: for at most the timeout that the barrier
    /// was [created with](Self::with_timeout), or indefinitely.
    ///
    /// If a process that has the barrier open dies, the wait ends within about 250 ms.
    ///
    /// # Errors
    ///
    /// Returns [`Broken`] if the barrier is broken, breaks while this waits, or the wait times out.
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
        self.wait_until(self.timeout.map_or(Deadline::NEVER, Deadline::after))
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
        match self.raw().arrive(self.parties, anybody_died, deadline, RECHECK) {
            Ok(index) => Ok(BarrierWaitResult { index, is_leader: index + 1 >= self.parties }),
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

    /// Returns the timeout of [`wait`](Self::wait), if the barrier was created
    /// [with one](Self::with_timeout).
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
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
        self.region.observe();
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("parties", &self.parties)
            .field("timeout", &self.timeout)
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
        Ok(Self::over(region, parties))
    }
}

/// The result of a completed round of a [`Barrier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarrierWaitResult {
    index: u32,
    is_leader: bool,
}

impl BarrierWaitResult {
    /// Returns how many parties had arrived in this round before: 0 for the first to arrive, and
    /// the number of parties less one for the last. So each party of a round gets another number.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::Barrier;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let barrier = Barrier::new(1)?;
    /// assert_eq!(barrier.wait()?.index(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Returns true for the leader of the round. That is exactly one party: the last to arrive.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.is_leader
    }
}
