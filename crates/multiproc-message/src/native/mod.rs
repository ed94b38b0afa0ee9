//! Values as bytes: a [serde data format](https://serde.rs/data-format.html).
//!
//! Numbers have the width of their type, so that they are stored and loaded, and nothing more:
//! variable widths took half the time of a small message. Sizes are *counts*, a byte most often. The
//! tables are in docs/formats.md.
//!
//! Nothing in the bytes says what they are: only the type that wrote them can read them.
//!
//! A decoder is made for bytes of somebody who means harm. A sequence of *n* elements takes *n* bytes at
//! least, so a short message ends soon, whatever it claims. Memory is reserved for as many elements
//! as the message has bytes, all in all. And a value of more than [`DEEPEST`] levels is refused, by
//! the decoder and in the same way by the encoder: what can be sent can be received.

mod decoder;
mod encoder;
#[cfg(test)]
mod tests;
mod variants;

use std::fmt;

pub(crate) use decoder::{ASKS, Decoder, left_over, not_described, not_taken};
pub(crate) use encoder::{Encoder, miscounted, skipped};
pub(crate) use variants::VariantName;

/// A count below this is one byte. Else one of these comes first, and then 2, 4 or 8.
const IN_2: u8 = 253;
const IN_4: u8 = 254;
const IN_8: u8 = 255;

/// The most levels that a value may have: a struct, tuple, option, variant, sequence or map takes one
/// more than what is in it.
///
/// Decoding a level takes up to 1.7 KiB of stack in a debug build, and 4.2 KiB if each holds a kilobyte
/// in place, so a thread's usual 2 MiB are enough. In a release build it is a fifth of that.
pub(crate) const DEEPEST: u32 = 256;

#[cold]
pub(crate) fn too_deep() -> Error {
    Error::new(format!(
        "expected at most {DEEPEST} levels of structs, tuples, options, variants, sequences and maps \
         in one another, got more: keep a list or a tree as a vector whose elements refer to one \
         another by index, say"
    ))
}

/// Why a value cannot be encoded or decoded. In a box, because results of all calls have room for it.
#[derive(Debug)]
pub(crate) struct Error(Box<Reason>);

#[derive(Debug)]
struct Reason(String);

impl Error {
    #[cold]
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(Box::new(Reason(reason.into())))
    }

    pub(crate) fn into_reason(self) -> String {
        self.0.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.0)
    }
}

impl std::error::Error for Error {}

impl serde::ser::Error for Error {
    #[cold]
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(text.to_string())
    }
}

impl serde::de::Error for Error {
    #[cold]
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(text.to_string())
    }
}

pub(crate) type Result<T = (), E = Error> = std::result::Result<T, E>;
