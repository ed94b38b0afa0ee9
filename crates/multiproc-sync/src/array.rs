//! A table of plain values in shared memory, without a lock.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicU8;

use bytemuck::{Pod, bytes_of, cast_slice, cast_slice_mut, pod_read_unaligned};
use multiproc_shm::placed;
use multiproc_shm::primitives::{AtomicU32, AtomicU64};
use multiproc_shm::region::{Atomic as AtomicWord, Control, Region};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::inspect::{Inspect, Inspection};

/// A table of values in shared memory, of fixed length. Python calls it `Array`; this one has no
/// lock.
///
/// `T` is plain data: `bytemuck`'s `Pod`. Values are copied in and out. A process that reads a
/// value while another one writes it may get a mix of old and new bytes. Protect the table with a
/// [`Lock`](crate::Lock), let each process write values of its own, or use the atomic operations
/// that tables of integers have: [`fetch_add`](Self::fetch_add),
/// [`compare_exchange`](Self::compare_exchange) and others.
///
/// # When a process dies
///
/// A process that dies within a write leaves a mix of old and new bytes in the values that it
/// wrote.
///
/// # Examples
///
/// ```
/// use multiproc_sync::Shared;
///
/// # fn main() -> std::io::Result<()> {
/// let temperatures = Shared::new(&[20.5f32; 100])?;
/// temperatures.set(7, 21.0);
/// assert_eq!(temperatures.clone().get(7), 21.0);
/// assert_eq!(temperatures.to_vec().len(), 100);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Array")]
pub struct Shared<T> {
    region: Region<SharedControl>,
    values: PhantomData<T>,
}

/// The control block, which is empty: there is only data.
#[derive(Debug, Default)]
#[repr(C)]
struct SharedControl {
    unused: AtomicU32,
}

placed!(SharedControl { unused });

impl Control for SharedControl {
    const KIND: u32 = u32::from_le_bytes(*b"DATA");
    const NAME: &'static str = "shared table";
    const DATA: RangeInclusive<usize> = 0..=usize::MAX; // compared with the size of `T`

    /// Nothing of a table has an owner.
    fn release_slot(&self, _: &[AtomicU32], _: usize) {}
}

impl<T: Pod> Shared<T> {
    /// Creates a table with these values. Its length does not change.
    ///
    /// # Errors
    ///
    /// Fails if the process has run out of descriptors or memory, if `/proc` is not mounted, or if
    /// a resource limit is too small. The error then names the limit.
    ///
    /// # Panics
    ///
    /// Panics if `T` has size 0.
    pub fn new(values: &[T]) -> io::Result<Self> {
        assert!(size_of::<T>() > 0, "values of size 0 cannot be shared");
        let region = Region::create(size_of_val(values), |_: &SharedControl| {})?;
        let table = Self { region, values: PhantomData };
        table.write(0, values);
        Ok(table)
    }

    /// Creates a table of `len` values whose bytes are all zero, without a copy of them in this
    /// process. The table takes memory only for pages that were written.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and if the size in bytes exceeds the address space.
    ///
    /// # Panics
    ///
    /// Panics if `T` has size 0.
    ///
    /// # Examples
    ///
    /// ```
    /// let table = multiproc_sync::Shared::<u64>::zeroed(1 << 20)?;
    /// assert_eq!((table.len(), table.get(7)), (1 << 20, 0));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn zeroed(len: usize) -> io::Result<Self> {
        assert!(size_of::<T>() > 0, "values of size 0 cannot be shared");
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| {
            let text = format!("a table of {len} values exceeds the address space");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        let region = Region::create(bytes, |_: &SharedControl| {})?;
        Ok(Self { region, values: PhantomData })
    }

    /// Returns the number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.region.data().len() / size_of::<T>()
    }

    /// Returns true if the table has no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the value at `index`.
    ///
    /// # Panics
    ///
    /// Panics if `index` is out of bounds.
    #[must_use]
    pub fn get(&self, index: usize) -> T {
        let mut value = [T::zeroed()];
        self.read(index, &mut value);
        value[0]
    }

    /// Sets the value at `index`.
    ///
    /// # Panics
    ///
    /// Panics if `index` is out of bounds.
    pub fn set(&self, index: usize, value: T) {
        self.write(index, &[value]);
    }

    /// Copies values from the table, beginning at index `start`, into `values`.
    ///
    /// # Panics
    ///
    /// Panics if the range is out of bounds.
    ///
    /// # Examples
    ///
    /// ```
    /// let table = multiproc_sync::Shared::new(&[1u32, 2, 3, 4])?;
    /// let mut middle = [0; 2];
    /// table.read(1, &mut middle);
    /// assert_eq!(middle, [2, 3]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn read(&self, start: usize, values: &mut [T]) {
        self.check(start, values.len());
        let bytes = cast_slice_mut(values);
        match size_of::<T>() {
            size if size % 8 == 0 => read_as::<AtomicU64>(&self.region, start * size, bytes),
            size if size % 4 == 0 => read_as::<AtomicU32>(&self.region, start * size, bytes),
            size => read_as::<AtomicU8>(&self.region, start * size, bytes),
        }
    }

    /// Copies `values` into the table, beginning at index `start`.
    ///
    /// # Panics
    ///
    /// Panics if the range is out of bounds.
    ///
    /// # Examples
    ///
    /// ```
    /// let table = multiproc_sync::Shared::new(&[0u32; 4])?;
    /// table.write(2, &[7, 8]);
    /// assert_eq!(table.to_vec(), [0, 0, 7, 8]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn write(&self, start: usize, values: &[T]) {
        self.check(start, values.len());
        let bytes = cast_slice(values);
        match size_of::<T>() {
            size if size % 8 == 0 => write_as::<AtomicU64>(&self.region, start * size, bytes),
            size if size % 4 == 0 => write_as::<AtomicU32>(&self.region, start * size, bytes),
            size => write_as::<AtomicU8>(&self.region, start * size, bytes),
        }
    }

    /// Returns a copy of all values.
    #[must_use]
    pub fn to_vec(&self) -> Vec<T> {
        let mut values = vec![T::zeroed(); self.len()];
        self.read(0, &mut values);
        values
    }

    /// Returns the table as atomics of the size of `T`.
    #[inline]
    pub(crate) fn words<A: AtomicWord>(&self) -> &[A] {
        const { assert!(size_of::<A>() == size_of::<T>()) };
        self.region.data_as::<A>()
    }

    fn check(&self, start: usize, count: usize) {
        let len = self.len();
        assert!(
            start <= len && count <= len - start,
            "{count} values from index {start} are out of bounds of a table of {len}"
        );
    }
}

/// Copies out from byte `at`, as one atomic load after the other: threads of this process may be
/// writing, so a plain copy would be a data race.
fn read_as<A: AtomicWord>(region: &Region<SharedControl>, at: usize, bytes: &mut [u8]) {
    const { assert!(size_of::<A>() == size_of::<A::Value>()) };
    let words = &region.data_as::<A>()[at / size_of::<A>()..];
    for (chunk, word) in bytes.chunks_exact_mut(size_of::<A>()).zip(words) {
        chunk.copy_from_slice(bytes_of(&word.load()));
    }
}

/// Copies in to byte `at`, as one atomic store after the other.
fn write_as<A: AtomicWord>(region: &Region<SharedControl>, at: usize, bytes: &[u8]) {
    let words = &region.data_as::<A>()[at / size_of::<A>()..];
    for (chunk, word) in bytes.chunks_exact(size_of::<A>()).zip(words) {
        word.store(pod_read_unaligned(chunk));
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { region: self.region.clone(), values: PhantomData }
    }
}

impl<T> Inspect for Shared<T> {
    fn inspect(&self) -> Inspection {
        Inspection::of(&self.region, false)
    }

    fn observe(&self) {
        self.region.observe();
    }
}

impl<T: Pod> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("len", &self.len())
            .field("members", &self.region.members())
            .finish()
    }
}

impl<T> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.region.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let region = Region::<SharedControl>::deserialize(deserializer)?;
        let (bytes, each) = (region.data().len(), size_of::<T>());
        if each == 0 || bytes % each != 0 {
            return Err(serde::de::Error::custom(format!(
                "expected a multiproc shared table of values of {each} bytes each, got one of \
                 {bytes} bytes in total"
            )));
        }
        Ok(Self { region, values: PhantomData })
    }
}
