//! The values that a mutex and a read-write lock can hold.

use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::checked::{try_from_bytes, try_pod_read_unaligned};
use bytemuck::{CheckedBitPattern, NoUninit, cast_slice, cast_slice_mut};
use multiproc_shm::primitives::Bytes;

/// Plain data: a value that is nothing but bytes of a fixed number, so that it can be in shared
/// memory.
///
/// Numbers, arrays of them, `bool` and `char` are plain. A struct or a fieldless enum is if it
/// derives `bytemuck`'s `Pod`, or `CheckedBitPattern` and `NoUninit`:
///
/// ```
/// use bytemuck::{CheckedBitPattern, NoUninit};
/// use multiproc_sync::Mutex;
///
/// #[derive(Debug, Clone, Copy, PartialEq, CheckedBitPattern, NoUninit)]
/// #[repr(u8)]
/// enum Light {
///     Red,
///     Green,
/// }
///
/// # fn main() -> Result<(), std::io::Error> {
/// let light = Mutex::new(Light::Red)?;
/// *light.lock()? = Light::Green;
/// assert_eq!(*light.lock()?, Light::Green);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not plain data, so it cannot be in shared memory",
    note = "numbers, arrays of numbers, `bool` and `char` are plain data",
    note = "for a struct or an enum: `#[derive(Clone, Copy, bytemuck::CheckedBitPattern, \
            bytemuck::NoUninit)]` with `#[repr(C)]` or `#[repr(u8)]`",
    note = "a value with a pointer, such as `String` or `Vec`, cannot: send it through a queue, or \
            share its bytes with `SharedBytes`"
)]
pub trait Plain: CheckedBitPattern + NoUninit {}

#[diagnostic::do_not_recommend]
impl<T: CheckedBitPattern + NoUninit> Plain for T {}

/// The value when this process opened its lock: a valid one, should another process overwrite the
/// bytes. It is kept as bytes, because a `T` may be too large for the stack.
pub(crate) struct Opened<T> {
    bytes: Arc<[u64]>,
    value: PhantomData<T>,
}

impl<T> Opened<T> {
    /// Copies the value, which takes up all of `data`.
    pub(crate) fn new(data: Bytes<'_>) -> Self {
        let mut bytes = vec![0; data.len().div_ceil(8)];
        data.copy_to(0, &mut cast_slice_mut(&mut bytes)[..data.len()]);
        Self { bytes: bytes.into(), value: PhantomData }
    }
}

impl<T: Plain> Opened<T> {
    fn bytes(&self) -> &[u8] {
        &cast_slice(&self.bytes)[..size_of::<T>()]
    }

    /// Returns true if the bytes are a value of `T`, without a copy of a large one.
    pub(crate) fn is_valid(&self) -> bool {
        if align_of::<T>() <= align_of::<u64>() {
            try_from_bytes::<T>(self.bytes()).is_ok()
        } else {
            try_pod_read_unaligned::<T>(self.bytes()).is_ok()
        }
    }

    /// Returns the value, which was checked when the lock was opened.
    #[cold]
    pub(crate) fn value(&self) -> T {
        try_pod_read_unaligned(self.bytes())
            .unwrap_or_else(|_| unreachable!("checked when it was opened"))
    }
}

impl<T> Clone for Opened<T> {
    fn clone(&self) -> Self {
        Self { bytes: Arc::clone(&self.bytes), value: PhantomData }
    }
}
