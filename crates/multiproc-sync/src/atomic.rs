//! A number in shared memory, without a lock.

use std::fmt;
use std::io;

use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU32, AtomicU64, Ordering};
use multiproc_shm::region::{Control, Region};
use serde::{Deserialize, Serialize};

/// A number in shared memory that processes change without a lock: a counter, a flag, a ticket.
///
/// Each operation is one step: a process that dies has done it or not. All are sequentially
/// consistent.
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
#[derive(Clone, Serialize, Deserialize)]
pub struct Atomic {
    region: Region<AtomicControl>,
}

/// What its members share.
#[derive(Debug, Default)]
#[repr(C)]
struct AtomicControl {
    number: AtomicU64,
}

placed!(AtomicControl { number });

impl Control for AtomicControl {
    const KIND: u32 = u32::from_le_bytes(*b"ATOM");
    const NAME: &'static str = "atomic number";

    /// Nobody owns anything of it.
    fn release_slot(&self, _: &[AtomicU32], _: usize) {}
}

impl Atomic {
    /// A new number.
    ///
    /// # Errors
    ///
    /// If there are no descriptors or no memory left, there is no `/proc`, or a resource limit is
    /// too small, which the error then names.
    pub fn new(value: u64) -> io::Result<Self> {
        let set_up = |control: &AtomicControl| control.number.store(value, Ordering::Relaxed);
        Ok(Self { region: Region::create(0, set_up)? })
    }

    fn number(&self) -> &AtomicU64 {
        &self.region.control().number
    }

    /// The number at this moment.
    #[must_use]
    pub fn load(&self) -> u64 {
        self.number().load(Ordering::SeqCst)
    }

    /// Sets the number.
    pub fn store(&self, value: u64) {
        self.number().store(value, Ordering::SeqCst);
    }

    /// Sets the number, and gives the one before.
    pub fn swap(&self, value: u64) -> u64 {
        self.number().swap(value, Ordering::SeqCst)
    }

    /// Adds, wrapping around, and gives the number before.
    #[allow(clippy::must_use_candidate)] // adding is something by itself
    pub fn fetch_add(&self, value: u64) -> u64 {
        self.number().fetch_add(value, Ordering::SeqCst)
    }

    /// Subtracts, wrapping around, and gives the number before.
    #[allow(clippy::must_use_candidate)] // subtracting is something by itself
    pub fn fetch_sub(&self, value: u64) -> u64 {
        self.number().fetch_sub(value, Ordering::SeqCst)
    }

    /// Sets the number to `new` if it is `current`, and gives the one before.
    ///
    /// # Errors
    ///
    /// If it was not `current`: the number that it was.
    pub fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.number().compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
    }
}

impl fmt::Debug for Atomic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Atomic").field(&self.load()).finish()
    }
}
