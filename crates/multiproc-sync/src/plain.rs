//! The values that a mutex can hold.

use bytemuck::{CheckedBitPattern, NoUninit};

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
