//! The item that the benches move: 64 bytes, as a program might have them.

use serde::{Deserialize, Serialize};

/// A 64-byte struct of an id, numbers and flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The number of the item.
    pub id: u64,
    values: [u64; 6],
    kind: u32,
    flags: u32,
}

const _: () = assert!(size_of::<Item>() == 64);

impl Item {
    /// Creates the item with this number.
    #[inline]
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { id, values: [id, 1, 2, 3, 4, 5], kind: 6, flags: 7 }
    }
}
