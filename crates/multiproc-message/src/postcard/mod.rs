//! Values in the format of the crate [`postcard`](::postcard), for peers that were built
//! separately.
//!
//! The bytes are exactly those of `postcard::to_allocvec`: the crate encodes and decodes every
//! number, string and count. This module adds what a receiver needs that does not trust the sender,
//! and what the crate leaves to its caller:
//!
//! - A value has at most [`DEEPEST`] levels, as in the native format. Decoding a type that contains
//!   itself recurses, and a hostile message must not overflow the stack.
//! - All sequences and maps of a value together have at most as many elements as the value has
//!   bytes, and [`EMPTY_ELEMENTS`] more. Elements without bytes, such as `()`, cost a sender
//!   nothing, and a count alone must not keep a receiver busy.
//! - Error texts are kept. The error type of the crate has no room for them.
//!
//! The encoder checks the same limits, so a value that can be encoded can be decoded.

mod decoder;
mod encoder;
#[cfg(test)]
mod tests;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::encode;

use crate::native::Error;

/// The number of elements that a value may have beyond its number of bytes.
const EMPTY_ELEMENTS: usize = 1 << 16;

#[cold]
fn failed(error: ::postcard::Error) -> Error {
    use ::postcard::Error::{
        DeserializeBadBool, DeserializeBadChar, DeserializeBadEnum, DeserializeBadOption,
        DeserializeBadUtf8, DeserializeBadVarint, DeserializeUnexpectedEnd,
    };
    Error::new(match error {
        DeserializeUnexpectedEnd => "it ends too early".to_owned(),
        DeserializeBadVarint => "a number has more bytes than its type".to_owned(),
        DeserializeBadBool => "expected 0 or 1 for a `bool`, got another byte".to_owned(),
        DeserializeBadOption => "expected 0 or 1 for an `Option`, got another byte".to_owned(),
        DeserializeBadChar => "expected one character, got something else".to_owned(),
        DeserializeBadUtf8 => "a string is not UTF-8".to_owned(),
        DeserializeBadEnum => "the number of a variant does not fit into 32 bits".to_owned(),
        other => other.to_string(),
    })
}

#[cold]
fn too_many(elements: usize, bytes: usize) -> Error {
    Error::new(format!(
        "{bytes} bytes have {elements} elements: a message has at most one element for each byte, and \
         {EMPTY_ELEMENTS} more that take no bytes"
    ))
}
