//! An atomic number in shared memory.

use std::fmt;
use std::io;

use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Ordering};
use multiproc_shm::region::{Control, Region};
use serde::{Deserialize, Serialize};

use crate::inspect::{Inspect, Inspection};

/// An atomic 64-bit number in shared memory: a counter, a flag, a ticket.
///
/// All operations are sequentially consistent.
///
/// # When a process dies
///
/// Each operation is one atomic step, which a process that dies has made or not.
///
/// # Examples
///
/// ```
/// use multiproc_sync::Atomic;
///
/// # fn main() -> std::io::Result<()> {
/// let served = Atomic::new(0)?;
/// assert_eq!(served.fetch_add(5), 0);
/// assert_eq!(served.clone().load(), 5);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "AtomicU64")]
#[doc(alias = "Value")]
#[doc(alias = "counter")]
#[derive(Clone, Serialize, Deserialize)]
pub struct Atomic {
    region: Region<AtomicControl>,
}

/// The control block.
#[derive(Debug, Default)]
#[repr(C)]
struct AtomicControl {
    number: AtomicU64,
}

placed!(AtomicControl { number });

impl Control for AtomicControl {
    const KIND: u32 = u32::from_le_bytes(*b"ATOM");
    const NAME: &'static str = "atomic number";

    /// Nothing of a number has an owner.
    fn release_slot(&self, _: &[AtomicU32], _: usize) {}
}

impl Atomic {
    /// Creates a number with this value.
    ///
    /// # Errors
    ///
    /// Fails if the process has run out of descriptors or memory, if `/proc` is not mounted, or if
    /// a resource limit is too small. The error then names the limit.
    pub fn new(value: u64) -> io::Result<Self> {
        let set_up = |control: &AtomicControl| control.number.store(value, Ordering::Relaxed);
        Ok(Self { region: Region::create(0, set_up)? })
    }

    fn number(&self) -> &AtomicU64 {
        &self.region.control().number
    }

    /// Returns the current value.
    #[must_use]
    pub fn load(&self) -> u64 {
        self.number().load(Ordering::SeqCst)
    }

    /// Sets the value.
    pub fn store(&self, value: u64) {
        self.number().store(value, Ordering::SeqCst);
    }

    /// Sets the value, and returns the previous one.
    pub fn swap(&self, value: u64) -> u64 {
        self.number().swap(value, Ordering::SeqCst)
    }

    /// Adds to the value, wrapping around on overflow, and returns the previous one.
    ///
    /// # Examples
    ///
    /// ```
    /// let tickets = multiproc_sync::Atomic::new(1)?;
    /// assert_eq!(tickets.fetch_add(1), 1);
    /// assert_eq!(tickets.fetch_add(1), 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[allow(clippy::must_use_candidate)] // adding has an effect of its own
    pub fn fetch_add(&self, value: u64) -> u64 {
        self.number().fetch_add(value, Ordering::SeqCst)
    }

    /// Subtracts from the value, wrapping around on overflow, and returns the previous one.
    #[allow(clippy::must_use_candidate)] // subtracting has an effect of its own
    pub fn fetch_sub(&self, value: u64) -> u64 {
        self.number().fetch_sub(value, Ordering::SeqCst)
    }

    /// Sets the value to `new` if it is `current`, and returns the previous one.
    ///
    /// # Errors
    ///
    /// Returns the actual value if it was not `current`.
    ///
    /// # Examples
    ///
    /// ```
    /// let state = multiproc_sync::Atomic::new(1)?;
    /// assert_eq!(state.compare_exchange(1, 2), Ok(1));
    /// assert_eq!(state.compare_exchange(1, 3), Err(2));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.number().compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
    }
}

impl Inspect for Atomic {
    fn inspect(&self) -> Inspection {
        Inspection::of(&self.region, false)
    }

    fn observe(&self) {
        self.region.observe();
    }
}

impl fmt::Debug for Atomic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Atomic").field(&self.load()).finish()
    }
}
