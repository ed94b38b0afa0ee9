//! The event, placed in a region.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use multiproc_shm::Deadline;
use serde::{Deserialize, Serialize};

use crate::inspect::{Inspect, Inspection};
use crate::raw::event::Event as RawEvent;
use multiproc_shm::primitives::AtomicU32;
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{RECHECK, placed};

/// A flag between processes, and those who wait until it is set.
///
/// # When a process dies
///
/// Nothing: `set`, `clear` and `is_set` are single steps and wait for nobody. If whoever sets it is
/// killed before it has woken those that wait, they notice within about 250 ms.
///
/// # Ordering
///
/// What was written before `set` is visible to whoever learns of it by `wait` or `is_set`. A waiter
/// does not miss a `set` that is followed by a `clear` at once.
///
/// ```
/// use multiproc_sync::Event;
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let go = Event::new()?;
/// assert!(!go.wait_timeout(Duration::from_millis(1)));
/// go.set(); // in another process, as a rule
/// go.wait();
/// assert!(go.is_set());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct Event {
    region: Region<EventControl>,
}

/// What its members share.
#[derive(Debug, Default)]
#[repr(C)]
struct EventControl {
    event: RawEvent,
}

const _: () = assert!(size_of::<EventControl>() == 8);

placed!(EventControl { event });

impl Control for EventControl {
    const KIND: u32 = u32::from_le_bytes(*b"EVNT");
    const NAME: &'static str = "event";

    /// Nobody owns anything of it.
    fn release_slot(&self, _: &[AtomicU32], _: usize) {}
}

impl Event {
    /// A new event, which is not set.
    ///
    /// # Errors
    ///
    /// If there are no descriptors or no memory left, there is no `/proc`, or a resource limit is
    /// too small, which the error then names.
    pub fn new() -> io::Result<Self> {
        Ok(Self { region: Region::create(0, |_| {})? })
    }

    fn raw(&self) -> &RawEvent {
        &self.region.control().event
    }

    /// Sets it, and wakes all who wait. If it is set, nothing changes.
    pub fn set(&self) {
        self.raw().set();
    }

    /// Clears it: whoever comes now waits. If it is clear, nothing changes.
    pub fn clear(&self) {
        self.raw().clear();
    }

    /// Whether it is set at this moment.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.raw().is_set()
    }

    /// Waits until it is set, as long as it takes.
    pub fn wait(&self) {
        while !self.raw().wait(Deadline::NEVER, RECHECK) {}
    }

    /// Waits until it is set, for at most `timeout`. False: it was not set in time.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.raw().wait(Deadline::after(timeout), RECHECK)
    }

    /// Waits until it is set, until `deadline` at most. False: it was not set in time.
    #[must_use]
    pub fn wait_deadline(&self, deadline: Instant) -> bool {
        self.raw().wait(Deadline::at(deadline), RECHECK)
    }
}

impl Inspect for Event {
    fn inspect(&self) -> Inspection {
        Inspection::of(&self.region, self.raw().waiters().has_sleepers())
    }

    fn observe(&self) {
        self.region.stand_aside();
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("set", &self.is_set())
            .field("waited_for", &self.raw().waiters().has_sleepers())
            .field("members", &self.region.members())
            .finish()
    }
}
