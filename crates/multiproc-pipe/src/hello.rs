//! The hello: what both sides of `Listener` and `connect` send first.
//!
//! A hello is a frame without descriptors whose body is the same in all versions:
//!
//! | offset | size | content |
//! |---|---|---|
//! | 0 | 8 | magic: `mp-hello` |
//! | 8 | 4 | version of the protocol: 1 |
//! | 12 | 4 | format of the messages that follow: 1, postcard |
//! | 16 | 8 | hash of the schema of the type that the side sends, or 0 |
//! | 24 | 8 | hash of the schema of the type that the side receives, or 0 |
//! | 32 | 112 | name of the type that it sends, padded with zeros |
//! | 144 | 112 | name of the type that it receives, padded with zeros |
//!
//! Each side sends its hello without waiting, and checks the other's before the first message.
//! Names are for error texts and are not compared. A hash of 0 matches every hash: the type cannot
//! be traced (see [`shape_of`](multiproc_message::shape_of)).

use std::any::type_name;

use multiproc_message::{Format, shape_of};
use serde::Deserialize;

use crate::error::HandshakeError;

/// The length of the body.
pub(crate) const LENGTH: usize = 256;

/// The maximum length of a body of another version, so that the error can name that version.
pub(crate) const LONGEST: usize = 4096;

const MAGIC: &[u8; 8] = b"mp-hello";
const VERSION: u32 = 1;
const POSTCARD: u32 = 1;
const NAME: usize = 112;

/// The hello of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    sends: Type,
    receives: Type,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Type {
    shape: u64,
    name: String,
}

impl Type {
    fn of<T: Deserialize<'static>>() -> Self {
        Self { shape: shape_of::<T>().unwrap_or(0), name: short(type_name::<T>()) }
    }

    fn matches(&self, other: &Self) -> bool {
        self.shape == other.shape || self.shape == 0 || other.shape == 0
    }
}

/// Cuts a name that is too long.
fn short(name: &str) -> String {
    if name.len() <= NAME {
        return name.to_owned();
    }
    let end = (0..=NAME - 3).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
    format!("{}…", &name[..end])
}

impl Hello {
    /// The format of the messages after a hello.
    pub(crate) const FORMAT: Format = Format::Postcard;

    /// Returns the hello of a side that sends `S` and receives `R`.
    pub(crate) fn new<S: Deserialize<'static>, R: Deserialize<'static>>() -> Self {
        Self { sends: Type::of::<S>(), receives: Type::of::<R>() }
    }

    pub(crate) fn to_bytes(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&POSTCARD.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sends.shape.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.receives.shape.to_le_bytes());
        for (at, name) in [(32, &self.sends.name), (32 + NAME, &self.receives.name)] {
            bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        }
        bytes
    }

    /// Parses the hello of another side.
    ///
    /// # Errors
    ///
    /// If it is not a hello, or is of another version or format.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HandshakeError> {
        let number = |at: usize| -> Result<u32, HandshakeError> {
            let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map(|bytes| u32::from_le_bytes(*bytes)).ok_or(HandshakeError::NotAHello)
        };
        let shape = |at: usize| Ok(u64::from(number(at)?) | u64::from(number(at + 4)?) << 32);
        if !bytes.starts_with(MAGIC) {
            return Err(HandshakeError::NotAHello);
        }
        match number(8)? {
            VERSION => {}
            theirs => return Err(HandshakeError::Version { ours: VERSION, theirs }),
        }
        match number(12)? {
            POSTCARD => {}
            theirs => return Err(HandshakeError::Format { ours: POSTCARD, theirs }),
        }
        if bytes.len() != LENGTH {
            return Err(HandshakeError::NotAHello);
        }
        let name = |at: usize| {
            let name = &bytes[at..at + NAME];
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(NAME);
            // It is printed, so control characters are replaced.
            let name = String::from_utf8_lossy(&name[..end]);
            name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
        };
        Ok(Self {
            sends: Type { shape: shape(16)?, name: name(32) },
            receives: Type { shape: shape(24)?, name: name(32 + NAME) },
        })
    }

    /// Checks the hello of the other side against this one.
    ///
    /// # Errors
    ///
    /// If one side sends another type than the other receives.
    pub(crate) fn check(&self, theirs: &Self) -> Result<(), HandshakeError> {
        if self.sends.matches(&theirs.receives) && self.receives.matches(&theirs.sends) {
            return Ok(());
        }
        Err(HandshakeError::Types {
            sends: self.sends.name.clone(),
            receives: self.receives.name.clone(),
            peer_sends: theirs.sends.name.clone(),
            peer_receives: theirs.receives.name.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsed_bytes_of_a_hello_are_the_hello() {
        let hello = Hello::new::<Vec<u8>, Result<String, u64>>();
        assert_eq!(Hello::parse(&hello.to_bytes()).unwrap(), hello);
        let bytes = Hello::new::<u8, ()>().to_bytes();
        assert_eq!(bytes[..16], *b"mp-hello\x01\0\0\0\x01\0\0\0");
        assert_eq!(bytes[32..35], *b"u8\0");
        assert_eq!(bytes[144..147], *b"()\0");
    }

    #[test]
    fn hello_matches_the_one_with_swapped_types() {
        let ours = Hello::new::<u8, String>();
        ours.check(&Hello::new::<String, u8>()).unwrap();
        for theirs in [
            Hello::new::<u8, String>(),
            Hello::new::<String, u16>(),
            Hello::new::<Vec<String>, u8>(),
        ] {
            assert!(matches!(ours.check(&theirs), Err(HandshakeError::Types { .. })));
        }
        // A type that cannot be traced matches any.
        let mut unknown = Hello::new::<String, u16>();
        unknown.receives.shape = 0;
        ours.check(&unknown).unwrap();
    }

    #[test]
    fn other_bytes_are_refused() {
        let right = Hello::new::<u8, u8>().to_bytes();
        let changed = |at: usize, byte: u8| {
            let mut bytes = right;
            bytes[at] = byte;
            Hello::parse(&bytes)
        };
        assert_eq!(changed(0, b'x'), Err(HandshakeError::NotAHello));
        assert_eq!(changed(8, 9), Err(HandshakeError::Version { ours: 1, theirs: 9 }));
        assert_eq!(changed(12, 7), Err(HandshakeError::Format { ours: 1, theirs: 7 }));
        for length in 0..LENGTH {
            assert_eq!(Hello::parse(&right[..length]), Err(HandshakeError::NotAHello));
        }
        // Another version may have another length.
        let mut longer = [&right[..], &[0; 100]].concat();
        assert_eq!(Hello::parse(&longer), Err(HandshakeError::NotAHello));
        longer[8] = 2;
        assert_eq!(Hello::parse(&longer), Err(HandshakeError::Version { ours: 1, theirs: 2 }));
        // Names are shown.
        let mut bytes = right;
        bytes[32..36].copy_from_slice(b"\x1b[1m");
        bytes[144..].fill(0xff);
        let hello = Hello::parse(&bytes).unwrap();
        assert_eq!(hello.sends.name, "\u{fffd}[1m");
        assert!(hello.receives.name.starts_with('\u{fffd}'));
    }

    #[test]
    fn long_name_is_cut() {
        assert_eq!(short("u8"), "u8");
        let name = short(&"é".repeat(100));
        assert!(name.len() <= NAME && name.ends_with('…'));
    }
}
