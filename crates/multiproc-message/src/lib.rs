#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("multiproc runs on Linux only: it is built on memfd, pidfd, futex and OFD locks");

mod bytes;
mod descriptor;
mod error;
mod format;
mod handles;
#[cfg(feature = "json")]
mod json;
mod native;
mod postcard;
mod schema;
mod value;

pub use bytes::Bytes;
pub use descriptor::Descriptor;
pub use error::{DecodeError, EncodeError};
pub use format::{Format, decode, decode_as, encode, encode_numbered, encode_unsent};
pub use handles::{Handles, MAX_DESCRIPTORS, attach, claim, tell_when_sent};
#[cfg(feature = "json")]
pub use json::Json;
pub use schema::{
    Hash as SchemaHash, VariantNumbers, check_type, schema_name, shape_of, variant_numbers,
};
pub use value::{Decode, Encode, Message};
