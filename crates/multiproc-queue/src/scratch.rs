//! One buffer per thread, lent to one operation at a time.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

/// A larger buffer is not kept for the next item. (Fresh memory is more expensive than a copy.)
const KEEP: usize = 4 * 1024 * 1024;

/// An empty buffer of this thread, for one operation. A new one is created while it is lent, and
/// also where the thread's thread-locals are already destroyed: in the destructor of another one,
/// or when the process exits.
pub(crate) struct ScratchBuffer {
    /// `Some` until it is dropped.
    buffer: Option<Box<Buffer>>,
}

/// Boxed, so that lending it moves only a pointer.
#[derive(Default)]
struct Buffer(Vec<u8>);

thread_local! {
    static BUFFER: Cell<Option<Box<Buffer>>> = const { Cell::new(None) };
}

impl ScratchBuffer {
    #[inline]
    pub(crate) fn empty() -> Self {
        let mut buffer = BUFFER.try_with(Cell::take).ok().flatten().unwrap_or_default();
        buffer.0.clear();
        Self { buffer: Some(buffer) }
    }
}

impl Drop for ScratchBuffer {
    #[inline]
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take().filter(|buffer| buffer.0.capacity() <= KEEP) {
            let _ = BUFFER.try_with(|kept| kept.set(Some(buffer)));
        }
    }
}

impl Deref for ScratchBuffer {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        self.buffer.as_deref().map_or(const { &Vec::new() }, |buffer| &buffer.0)
    }
}

impl DerefMut for ScratchBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buffer.get_or_insert_default().0
    }
}
