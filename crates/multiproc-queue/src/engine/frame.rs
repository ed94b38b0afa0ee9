//! A frame: an item as it is stored in a ring.
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | sequence number, little-endian `u64`: the number of items that were put before |
//! | 8..12 | length of the item, little-endian `u32` |
//! | 12..16 | tag of its packet in the descriptor lane, little-endian `u32`; 0 if it has none |
//! | 16.. | the item, then unused bytes up to the next multiple of 16 |
//!
//! Frames start at multiples of 16, so the end of a ring or of a block never splits a header. It
//! may split an item.

/// Frames start and end at multiples of this.
pub(crate) const ALIGN: u64 = 16;

/// The length of a header.
pub(crate) const HEADER: usize = 16;

/// The maximum length of an item in a frame.
pub(crate) const LONGEST: usize = u32::MAX as usize - 2 * HEADER;

/// Returns the number of bytes that an item of this length takes in a ring.
#[inline]
pub(crate) const fn size(length: usize) -> u64 {
    (HEADER + length).next_multiple_of(HEADER) as u64
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: u64,
    pub(crate) length: u32,
    pub(crate) tag: u32,
}

impl Header {
    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let rest = u64::from(self.tag) << 32 | u64::from(self.length);
        (u128::from(rest) << 64 | u128::from(self.number)).to_le_bytes()
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // takes it apart
    pub(crate) fn from_bytes(bytes: [u8; HEADER]) -> Self {
        let all = u128::from_le_bytes(bytes);
        Self { number: all as u64, length: (all >> 64) as u32, tag: (all >> 96) as u32 }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn header_has_the_documented_layout() {
        let header =
            Header { number: 0x0102_0304_0506_0708, length: 0x1112_1314, tag: 0x2122_2324 };
        let bytes = header.to_bytes();
        assert_eq!(bytes[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[8..], [0x14, 0x13, 0x12, 0x11, 0x24, 0x23, 0x22, 0x21]);
        assert_eq!(Header::from_bytes(bytes), header);
    }

    #[test]
    fn size_is_rounded_up() {
        assert_eq!([0, 1, 16, 17].map(size), [16, 32, 32, 48]);
        assert!(u32::try_from(LONGEST).is_ok());
    }
}
