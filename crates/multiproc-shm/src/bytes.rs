//! Bytes in shared memory that are copied in and out.
//!
//! Contains `unsafe` for the copies.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use bytemuck::CheckedBitPattern;

/// A range of bytes that other processes may write at any time.
///
/// There is never a reference to them: they are copied in and out, and the caller checks what it
/// copied out. A copy that races with a hostile writer yields a mix of old and new bytes, nothing
/// worse.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a> {
    start: NonNull<u8>,
    len: usize,
    region: PhantomData<&'a ()>,
}

impl<'a> Bytes<'a> {
    /// Creates a range of `len` bytes from `start`.
    ///
    /// # Safety
    ///
    /// The bytes stay mapped, readable and writable, for the lifetime of the value, and no
    /// reference into them exists in this process.
    pub(crate) unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len, region: PhantomData }
    }

    /// Returns the number of bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns `true` if the range is empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the part of `len` bytes at offset `at`.
    ///
    /// # Panics
    ///
    /// If they are not all in range.
    #[inline]
    #[must_use]
    pub fn slice(&self, at: usize, len: usize) -> Bytes<'a> {
        self.check(at, len);
        // SAFETY: `check`: in range, so in one allocation.
        let start = unsafe { self.start.add(at) };
        Bytes { start, len, region: PhantomData }
    }

    /// Copies `bytes` to offset `at`.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    #[inline]
    pub fn copy_in(&self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len());
        // SAFETY: `check`: in range, so in one allocation.
        let target = unsafe { self.start.add(at) };
        // SAFETY: mapped and writable by the contract of `new`, in range by `check`; `bytes` does
        // not overlap, because there is no reference into shared memory.
        unsafe { target.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    /// Appends the `count` bytes at offset `at` to `target`.
    ///
    /// # Panics
    ///
    /// If they are not all in range.
    #[inline]
    pub fn append_to(&self, at: usize, count: usize, target: &mut Vec<u8>) {
        self.check(at, count);
        target.reserve(count);
        let old = target.len();
        // SAFETY: `check`: in range, so in one allocation.
        let source = unsafe { self.start.add(at) };
        let spare = target.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: the source is mapped (contract of `new`) and in range (`check`); the target was
        // reserved above, and a vector of this process is not in shared memory.
        unsafe { source.as_ptr().copy_to_nonoverlapping(spare, count) };
        // SAFETY: `count` more bytes are initialised now.
        unsafe { target.set_len(old + count) };
    }

    /// Fills `target` with the bytes from offset `at`.
    ///
    /// # Panics
    ///
    /// If they are not all in range.
    #[inline]
    pub fn copy_to(&self, at: usize, target: &mut [u8]) {
        self.check(at, target.len());
        // SAFETY: `check`: in range, so in one allocation.
        let source = unsafe { self.start.add(at) };
        // SAFETY: the source is mapped (contract of `new`) and in range (`check`); `target` does
        // not overlap, because there is no reference into shared memory.
        unsafe { source.as_ptr().copy_to_nonoverlapping(target.as_mut_ptr(), target.len()) };
    }

    /// Copies out the `N` bytes at offset `at`.
    ///
    /// # Panics
    ///
    /// If they are not all in range.
    #[inline]
    #[must_use]
    pub fn copy_out<const N: usize>(&self, at: usize) -> [u8; N] {
        self.check(at, N);
        // SAFETY: `check`: in range, so in one allocation.
        let source = unsafe { self.start.add(at) };
        // SAFETY: mapped (contract of `new`), in range (`check`), and any bytes are a `[u8; N]`.
        unsafe { source.cast::<[u8; N]>().read_unaligned() }
    }

    /// Copies out the value at offset `at`, or returns `None` if the bytes are not one of its type.
    ///
    /// # Panics
    ///
    /// If its bytes are not all in range.
    #[inline]
    #[must_use]
    pub fn read<T: CheckedBitPattern>(&self, at: usize) -> Option<T> {
        self.check(at, size_of::<T>());
        let mut bits = MaybeUninit::<T::Bits>::uninit();
        let target = bits.as_mut_ptr().cast::<u8>();
        // SAFETY: `check`: in range, so in one allocation.
        let source = unsafe { self.start.add(at) };
        // SAFETY: the source is mapped (contract of `new`) and in range (`check`); the target is a
        // variable of this function, of this size: `Bits` has the layout of `T`.
        unsafe { source.as_ptr().copy_to_nonoverlapping(target, size_of::<T>()) };
        // SAFETY: all bytes are initialised now, and any of them are valid (`AnyBitPattern`).
        let bits = unsafe { bits.assume_init() };
        if !T::is_valid_bit_pattern(&bits) {
            return None;
        }
        // SAFETY: `Bits` has the layout of `T`, and these are those of a valid `T`.
        Some(unsafe { (&raw const bits).cast::<T>().read() })
    }

    /// Copies a small array to offset `at` in registers, which is faster than through memory.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    #[inline]
    pub fn copy_in_array<const N: usize>(&self, at: usize, bytes: [u8; N]) {
        self.check(at, N);
        // SAFETY: `check`: in range, so in one allocation.
        let target = unsafe { self.start.add(at) };
        // SAFETY: mapped and writable (contract of `new`), in range (`check`).
        unsafe { target.cast::<[u8; N]>().write_unaligned(bytes) };
    }

    #[inline]
    fn check(&self, at: usize, count: usize) {
        if at > self.len || count > self.len - at {
            out_of_range(at, count, self.len);
        }
    }
}

#[cold]
fn out_of_range(at: usize, count: usize, len: usize) -> ! {
    panic!("{count} bytes at {at} are not in a region of {len}");
}

// SAFETY: an address and a length. The bytes are copied, never referred to, and other processes
// race for them in any case.
unsafe impl Send for Bytes<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for Bytes<'_> {}
