//! The handle of an event, placed in a region.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use multiproc_shm::primitives::AtomicU32;
use multiproc_shm::region::{Control, Region};
use multiproc_shm::{Deadline, RECHECK, placed};
use serde::{Deserialize, Serialize};

use crate::inspect::{Inspect, Inspection};
use crate::raw::event::Event as RawEvent;

/// A flag between processes, which they can wait for.
///
/// # When a process dies
///
/// `set`, `clear` and `is_set` are single atomic steps and never block, so a death leaves the event
/// set or clear. If the process that sets it is killed before it has woken the waiters, they notice
/// within about 250 ms. If it is killed before it sets the event, the waiters go on waiting.
///
/// # Ordering
///
/// What was written before `set` is visible to a process after its `wait` returned, or `is_set`
/// returned true. A waiter does not miss a `set` that is followed by a `clear` at once.
///
/// # Examples
///
/// ```
/// use multiproc_sync::Event;
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let go = Event::new()?;
/// assert!(!go.wait_timeout(Duration::from_millis(1)));
/// go.set(); // usually in another process
/// go.wait();
/// assert!(go.is_set());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct Event {
    region: Region<EventControl>,
}

/// The control block.
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

    /// Nothing of an event has an owner.
    fn release_slot(&self, _: &[AtomicU32], _: usize) {}
}

impl Event {
    /// Creates an event that is not set.
    ///
    /// # Errors
    ///
    /// Fails if the process has run out of descriptors or memory, if `/proc` is not mounted, or if
    /// a resource limit is too small. The error then names the limit.
    pub fn new() -> io::Result<Self> {
        Ok(Self { region: Region::create(0, |_| {})? })
    }

    fn raw(&self) -> &RawEvent {
        &self.region.control().event
    }

    /// Sets the event and wakes all waiters. It never blocks.
    ///
    /// # Examples
    ///
    /// ```
    /// let started = multiproc_sync::Event::new()?;
    /// started.set();
    /// assert!(started.is_set());
    /// started.clear();
    /// assert!(!started.is_set());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set(&self) {
        self.raw().set();
    }

    /// Clears the event: from now on, [`wait`](Self::wait) waits.
    pub fn clear(&self) {
        self.raw().clear();
    }

    /// Returns true if the event is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.raw().is_set()
    }

    /// Waits until the event is set, indefinitely.
    ///
    /// The death of a process does not end the wait: if the only process that would set the event
    /// may die, use [`wait_timeout`](Self::wait_timeout) and check on it.
    ///
    /// # Examples
    ///
    /// ```
    /// let started = multiproc_sync::Event::new()?;
    /// let same = started.clone(); // usually sent to another process
    /// let thread = std::thread::spawn(move || same.set());
    /// started.wait();
    /// # thread.join().unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn wait(&self) {
        while !self.raw().wait(Deadline::NEVER, RECHECK) {}
    }

    /// Waits until the event is set, for at most `timeout`. Returns false if it timed out.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::Event;
    /// use std::time::Duration;
    ///
    /// let stop = Event::new()?;
    /// let mut ticks = 0;
    /// while !stop.wait_timeout(Duration::from_millis(1)) {
    ///     ticks += 1; // in a worker: do something periodically
    ///     if ticks == 3 {
    ///         stop.set(); // usually in another process
    ///     }
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.raw().wait(Deadline::after(timeout), RECHECK)
    }

    /// Waits until the event is set, until `deadline` at most. Returns false if it timed out.
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
        self.region.observe();
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
