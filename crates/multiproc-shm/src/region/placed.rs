//! The types that may lie in shared memory.
//!
//! Contains `unsafe` to declare the atomics to be such types.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use bytemuck::Pod;

use crate::event_count::EventCount;
use crate::fences::Fences;
use crate::owner_lock::OwnerLock;
use crate::primitives::Futex;

/// A type that may lie in shared memory: an atomic or a struct of atomics. Implemented by
/// [`placed!`].
///
/// # Safety
///
/// The type consists of atomics only: it is valid for every pattern of bits, which other processes
/// may change at any time, and it needs no drop.
///
/// [`placed!`]: crate::placed
pub unsafe trait Placed {}

/// One atomic of up to eight bytes.
pub trait Atomic: Placed {
    /// The type of its value.
    type Value: Pod;

    /// Loads the value, relaxed.
    fn load(&self) -> Self::Value;

    /// Stores a value, relaxed.
    fn store(&self, value: Self::Value);
}

macro_rules! atomics {
    ($($atomic:ident: $value:ty),*) => {$(
        impl Atomic for $atomic {
            type Value = $value;

            #[inline]
            fn load(&self) -> $value {
                $atomic::load(self, Ordering::Relaxed)
            }

            #[inline]
            fn store(&self, value: $value) {
                $atomic::store(self, value, Ordering::Relaxed);
            }
        }
    )*};
}

atomics!(AtomicU8: u8, AtomicU32: u32, AtomicU64: u64);

macro_rules! made_of_atomics {
    ($($type:ty)*) => {$(
        // SAFETY: an atomic word, or a struct of atomic words (see its definition), without drop.
        unsafe impl Placed for $type {}
    )*};
}

made_of_atomics! { AtomicU8 AtomicU32 AtomicU64 Futex Fences  OwnerLock }

// SAFETY: an atomic word, without drop.
unsafe impl<F> Placed for EventCount<F> {}

// SAFETY: as for its elements.
unsafe impl<T: Placed, const N: usize> Placed for [T; N] {}

/// Implements [`Placed`](crate::region::Placed) for a struct whose fields all implement it.
///
/// The fields must be listed, and the compiler checks the list against the struct. A control block
/// therefore needs no unsafe code and cannot contain anything unsuitable. The struct should be
/// `repr(C)`, since its layout is a format.
///
/// ```
/// use multiproc_shm::placed;
/// use multiproc_shm::primitives::{AtomicU32, Ordering};
/// use multiproc_shm::region::{Control, Region};
///
/// #[repr(C)]
/// struct Tickets {
///     next: AtomicU32,
/// }
///
/// placed!(Tickets { next });
///
/// impl Control for Tickets {
///     const KIND: u32 = u32::from_le_bytes(*b"TICK");
///     const NAME: &'static str = "ticket counter";
///     fn release_slot(&self, _: &[AtomicU32], _: usize) {} // members own no part of it
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let region = Region::create(0, |tickets: &Tickets| tickets.next.store(1, Ordering::Relaxed))?;
/// assert_eq!(region.control().next.fetch_add(1, Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! placed {
    ($type:ident { $($field:ident),* $(,)? }) => {
        // SAFETY: `check` compiles only if these are all its fields, and each is `Placed`.
        #[allow(unsafe_code)]
        unsafe impl $crate::region::Placed for $type {}

        const _: () = {
            #[allow(dead_code)]
            fn check($type { $($field),* }: &$type) {
                fn is_placed(_: &impl $crate::region::Placed) {}
                $(is_placed($field);)*
            }
            assert!(!::core::mem::needs_drop::<$type>());
        };
    };
    ($type:ident<const $n:ident: usize> { $($field:ident),* $(,)? }) => {
        // SAFETY: `check` compiles only if these are all its fields, and each is `Placed`.
        #[allow(unsafe_code)]
        unsafe impl<const $n: usize> $crate::region::Placed for $type<$n> {}

        const _: () = {
            #[allow(dead_code)]
            fn check<const $n: usize>($type { $($field),* }: &$type<$n>) {
                fn is_placed(_: &impl $crate::region::Placed) {}
                $(is_placed($field);)*
                const { assert!(!::core::mem::needs_drop::<$type<$n>>()) };
            }
        };
    };
}
