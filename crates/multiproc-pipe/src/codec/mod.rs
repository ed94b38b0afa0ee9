//! Values as bytes: a [serde data format](https://serde.rs/data-format.html).
//!
//! Numbers have the width of their type, so that they are stored and loaded, and nothing more:
//! variable widths took half the time of a small message. Sizes are *counts*, a byte most often. The
//! tables are in docs/protocol.md.
//!
//! Nothing in the bytes says what they are: only the type that wrote them can read them.
//!
//! A decoder is made for bytes of somebody who means harm. A sequence of *n* elements takes *n* bytes at
//! least, so a short message ends soon, whatever it claims. Memory is reserved for as many elements
//! as the message has bytes, all in all. And what is nested too deeply is refused, before the stack
//! ends (if as much is left of it as decoding may take).

mod decoder;
mod encoder;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::Encoder;

/// A count below this is one byte. Else one of these comes first, and then 2, 4 or 8.
const IN_2: u8 = 253;
const IN_4: u8 = 254;
const IN_8: u8 = 255;

/// Why a value cannot be encoded or decoded. In a box, because results of all calls have room for it.
#[derive(Debug)]
pub(crate) struct Error(Box<Reason>);

#[derive(Debug)]
struct Reason(String);

impl Error {
    #[cold]
    fn new(reason: impl Into<String>) -> Self {
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

type Result<T = (), E = Error> = std::result::Result<T, E>;
