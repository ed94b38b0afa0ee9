//! What is moved: 64 bytes, as a program would have them.

use serde::{Deserialize, Serialize};

/// An id, some numbers, some flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Which one it is.
    pub id: u64,
    values: [u64; 6],
    kind: u32,
    flags: u32,
}

const _: () = assert!(size_of::<Item>() == 64);

impl Item {
    /// The item of that number.
    #[inline]
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { id, values: [id, 1, 2, 3, 4, 5], kind: 6, flags: 7 }
    }
}
