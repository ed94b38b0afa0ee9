//! Encoding and decoding of whole messages.

use std::any::{Any, type_name};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{DecodeError, EncodeError};
use crate::handles::{Doing, Handles, STATE, Scope, offer};
use crate::native::{self, Decoder, Encoder};
use crate::postcard;
use crate::schema::VariantNumbers;

/// The bytes of a message.
///
/// The free functions [`encode`] and [`decode`] use [`Native`](Self::Native); the methods of a
/// format do the same in that format. Handles can be sent in both: their descriptors travel beside
/// the bytes.
///
/// ```
/// use multiproc_message::Format;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut bytes = Vec::new();
/// Format::Postcard.encode(&(300_u32, "text"), &mut bytes)?;
/// assert_eq!(bytes, b"\xac\x02\x04text");
/// let value: (u32, String) = Format::Postcard.decode(&bytes, Vec::new())?;
/// assert_eq!(value, (300, "text".to_owned()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Format {
    /// Numbers have the width of their type, and variants their name. The fastest format. It is for
    /// processes of one machine that run the same build: queues, arguments of processes, and the
    /// connections of `duplex` and `simplex`.
    Native,
    /// The [format of the crate `postcard`](https://postcard.jamesmunns.com/wire-format), byte by
    /// byte.
    /// It is for programs that were built separately.
    ///
    /// Variants are identified by their number. An enum with serde's `skip` on a variant numbers
    /// the ones behind it differently for writing and reading, so such variants must come last. A
    /// connection refuses to send the others. The methods of this type do not detect it.
    Postcard,
}

impl Format {
    /// Encodes a value, as [`encode`] does, in this format.
    ///
    /// # Errors
    ///
    /// As [`encode`]. In the format `Postcard`, also if the value has more than 65,536 elements
    /// that take no bytes.
    pub fn encode<T: Serialize + ?Sized>(
        self,
        value: &T,
        bytes: &mut Vec<u8>,
    ) -> Result<Vec<OwnedFd>, EncodeError> {
        Ok(self.encode_unsent(value, bytes)?.map_or_else(Vec::new, |mut handles| {
            let descriptors = handles.take_descriptors();
            handles.sent();
            descriptors
        }))
    }

    /// Encodes a value that may come back, as [`encode_unsent`] does, in this format.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_unsent<T: Serialize + ?Sized>(
        self,
        value: &T,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<Handles>, EncodeError> {
        match self {
            Self::Native => encode_unsent(value, bytes),
            Self::Postcard => encode_postcard(value, bytes, None),
        }
    }

    /// Decodes a value from all of `bytes`, as [`decode`] does, in this format.
    ///
    /// # Errors
    ///
    /// As [`decode`].
    pub fn decode<T: DeserializeOwned>(
        self,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<T, DecodeError> {
        if self == Self::Native {
            return decode(bytes, descriptors);
        }
        // Unwind safe: as in `decode_as`.
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            let _scope = Scope::enter(Doing::Decoding);
            if !descriptors.is_empty() {
                offer(descriptors);
            }
            let mut decoder = postcard::Decoder::new(bytes);
            let value = T::deserialize(decoder.value())?;
            decoder.end()?;
            Ok(value)
        }));
        match decoded {
            Ok(result) => result.map_err(decode_error::<T>),
            Err(panic) => Err(panicked::<T>(panic)),
        }
    }
}

/// Encodes a value: appends its bytes to `bytes` and returns the descriptors of the handles in it.
///
/// The handles count as sent from here on: half of a connection, say, no longer ends its direction
/// when the value is dropped. Where sending can still fail and give the value back, use
/// [`encode_unsent`].
///
/// # Errors
///
/// If the value's `Serialize` fails, or the value has more than 256 levels of nesting (structs,
/// options, sequences and so on). `bytes` is then unchanged, and no descriptor stays open.
#[inline]
pub fn encode<T: Serialize + ?Sized>(
    value: &T,
    bytes: &mut Vec<u8>,
) -> Result<Vec<OwnedFd>, EncodeError> {
    let before = bytes.len();
    let scope = Scope::enter(Doing::Encoding);
    match value.serialize(Encoder::new(bytes)) {
        Ok(()) if !STATE.get().has_table => Ok(Vec::new()),
        Ok(()) => Ok(scope.table().map_or_else(Vec::new, |table| {
            let mut handles = Handles(table);
            let descriptors = handles.take_descriptors();
            handles.sent();
            descriptors
        })),
        Err(error) => {
            bytes.truncate(before);
            Err(EncodeError::new::<T>(error.into_reason()))
        }
    }
}

/// Encodes a value that may be returned to the caller. Its handles, if any, learn from
/// [`Handles::sent`] that they have been sent.
///
/// # Errors
///
/// As [`encode`].
#[inline]
pub fn encode_unsent<T: Serialize + ?Sized>(
    value: &T,
    bytes: &mut Vec<u8>,
) -> Result<Option<Handles>, EncodeError> {
    let before = bytes.len();
    let scope = Scope::enter(Doing::Encoding);
    match value.serialize(Encoder::new(bytes)) {
        Ok(()) => Ok(scope.table().map(Handles)),
        Err(error) => {
            bytes.truncate(before);
            Err(EncodeError::new::<T>(error.into_reason()))
        }
    }
}

/// Encodes in the format [`Postcard`](Format::Postcard), as [`Format::encode_unsent`] does, and
/// checks the number of each variant against those by which the type is read.
///
/// # Errors
///
/// As [`Format::encode`]. Also if a variant would be read as another one.
#[doc(hidden)] // for the connections of this workspace
pub fn encode_numbered<T: Serialize + ?Sized>(
    value: &T,
    bytes: &mut Vec<u8>,
    numbers: &VariantNumbers,
) -> Result<Option<Handles>, EncodeError> {
    encode_postcard(value, bytes, Some(numbers))
}

fn encode_postcard<T: Serialize + ?Sized>(
    value: &T,
    bytes: &mut Vec<u8>,
    numbers: Option<&VariantNumbers>,
) -> Result<Option<Handles>, EncodeError> {
    let before = bytes.len();
    let scope = Scope::enter(Doing::Encoding);
    match postcard::encode(value, bytes, numbers) {
        Ok(()) => Ok(scope.table().map(Handles)),
        Err(error) => {
            bytes.truncate(before);
            Err(EncodeError::new::<T>(error.into_reason()))
        }
    }
}

/// Decodes a value from all of `bytes`. Its handles take their descriptors, and the others are
/// closed.
///
/// # Errors
///
/// If the bytes are not a value of this type, bytes are left over, the value has more than 256
/// levels, or its `Deserialize` panics (the error then contains the panic's message).
///
/// Decoding 256 levels takes some 400 KiB of stack in a debug build, and more if each level
/// contains kilobytes. A thread with a smaller stack is not protected from a hostile sender if the
/// type can contain itself.
#[inline]
pub fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    descriptors: Vec<OwnedFd>,
) -> Result<T, DecodeError> {
    decode_as(bytes, descriptors)
}

/// Decodes as [`decode`] does, with an error type of the caller. (Converting a `Result` afterwards
/// would move the value once more.)
///
/// # Errors
///
/// As [`decode`].
#[inline]
pub fn decode_as<T: DeserializeOwned, E: From<DecodeError>>(
    bytes: &[u8],
    descriptors: Vec<OwnedFd>,
) -> Result<T, E> {
    // Unwind safe: state that a value's own code has changed elsewhere is not used here, as with
    // every panic; nothing else outlives the panic but the table, which its scope puts back.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let _scope = Scope::enter(Doing::Decoding);
        if !descriptors.is_empty() {
            offer(descriptors);
        }
        let mut decoder = Decoder::new(bytes);
        // No other call between the two: each would move the value once more.
        match T::deserialize(decoder.value()) {
            Ok(value) => match decoder.end() {
                Ok(()) => Ok(value),
                Err(error) => Err(decode_error::<T>(error).into()),
            },
            Err(error) => Err(decode_error::<T>(error).into()),
        }
    }));
    match decoded {
        Ok(result) => result,
        Err(panic) => Err(panicked::<T>(panic).into()),
    }
}

#[cold]
fn decode_error<T>(error: native::Error) -> DecodeError {
    DecodeError { type_name: type_name::<T>(), reason: error.into_reason() }
}

/// The error of a value whose `Deserialize` panicked.
#[cold]
fn panicked<T>(panic: Box<dyn Any + Send>) -> DecodeError {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "a panic with a payload that is no text",
    };
    let reason = format!("its `Deserialize` panicked: {text}");
    // Its drop may panic as well. The payload of that panic is leaked.
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(another);
    }
    DecodeError { type_name: type_name::<T>(), reason }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use serde::Deserializer;

    use super::*;
    use crate::Descriptor;
    use crate::handles::NOTHING;

    fn null() -> Descriptor {
        File::open("/dev/null").unwrap().into()
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Tree {
        Leaf,
        Node(Box<Tree>),
        Nodes(Vec<Tree>),
    }

    #[test]
    fn value_that_is_too_deep_is_refused_and_leaves_no_bytes() {
        let tree = |levels| (1..levels).fold(Tree::Leaf, |tree, _| Tree::Node(Box::new(tree)));
        let mut bytes = vec![1, 2];
        let error = encode(&(null(), tree(256)), &mut bytes).unwrap_err();
        assert!(error.reason().contains("at most 256 levels"), "{error}");
        assert_eq!(bytes, [1, 2], "bytes before the value stay");
        let descriptors = encode(&(null(), tree(255)), &mut bytes).unwrap();
        let (_, back) = decode::<(Descriptor, Tree)>(&bytes[2..], descriptors).unwrap();
        assert_eq!(back, tree(255));
    }

    #[test]
    fn panic_in_deserialize_is_a_decode_error_with_its_message() {
        #[derive(Debug)]
        struct Checked(u8);
        impl<'de> Deserialize<'de> for Checked {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match u8::deserialize(deserializer)? {
                    0 => panic!("a plain text"),
                    1 => std::panic::panic_any(1),
                    2 => std::panic::panic_any(Payload),
                    number => {
                        assert!(number < 10, "out of range: {number}");
                        Ok(Self(number))
                    }
                }
            }
        }
        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                panic!("and once more");
            }
        }
        let error = |number| {
            let bytes = [0, 0, 0, 0, number];
            let descriptors = vec![OwnedFd::from(null())];
            decode::<(Descriptor, Checked)>(&bytes, descriptors).unwrap_err()
        };
        assert_eq!(error(11).reason(), "its `Deserialize` panicked: out of range: 11");
        assert!(error(11).type_name().contains("Checked"));
        assert_eq!(error(0).reason(), "its `Deserialize` panicked: a plain text");
        for number in [1, 2] {
            assert!(error(number).reason().contains("a payload that is no text"));
        }
        assert!(STATE.get() == NOTHING);
        assert_eq!(decode::<Checked>(&[3], Vec::new()).unwrap().0, 3);
    }

    #[test]
    fn left_over_bytes_are_refused() {
        let error = decode::<u8>(&[1, 2, 3], Vec::new()).unwrap_err();
        assert_eq!(error.type_name(), "u8");
        assert!(error.to_string().contains("2 bytes are left over"), "{error}");
    }
}
