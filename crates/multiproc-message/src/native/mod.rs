//! Values as bytes: a [serde data format](https://serde.rs/data-format.html).
//!
//! Numbers have the width of their type, so they are simply stored and loaded: variable widths took
//! half of the time of a small message. Sizes are *counts*, usually one byte. The tables are in
//! docs/formats.md.
//!
//! The bytes do not describe themselves: only the type that wrote them can read them.
//!
//! The decoder does not trust the sender. A sequence of *n* elements takes at least *n* bytes, so a
//! short message ends soon, whatever it claims. Memory is reserved for at most as many elements in
//! total as the message has bytes. A value of more than [`DEEPEST`] levels is refused by the
//! decoder and equally by the encoder, so a value that can be sent can be received.

mod decoder;
mod encoder;
#[cfg(test)]
mod tests;
mod variants;

use std::fmt;

pub(crate) use decoder::{ASKS, Decoder, left_over, not_described, not_taken};
pub(crate) use encoder::{Encoder, miscounted, skipped};
pub(crate) use variants::VariantName;

/// A count below this is one byte. Otherwise one of these bytes precedes a count of 2, 4 or 8
/// bytes.
const IN_2: u8 = 253;
const IN_4: u8 = 254;
const IN_8: u8 = 255;

/// The maximum number of levels of a value: a struct, tuple, option, variant, sequence or map has
/// one more than its content.
///
/// Decoding a level takes up to 1.7 KiB of stack in a debug build, and 4.2 KiB if each contains a
/// kilobyte in place, so the usual 2 MiB of a thread suffice. A release build takes a fifth of
/// that.
pub(crate) const DEEPEST: u32 = 256;

#[cold]
pub(crate) fn too_deep() -> Error {
    Error::new(format!(
        "expected at most {DEEPEST} levels of nested structs, tuples, options, variants, sequences \
         and maps, got more: for example, store a list or tree as a vector whose elements refer to \
         each other by index"
    ))
}

/// The reason why a value cannot be encoded or decoded. Boxed, so that the results of all calls
/// stay small.
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
