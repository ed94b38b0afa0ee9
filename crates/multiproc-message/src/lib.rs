//! Values as bytes and file descriptors: what the messages of `multiproc` are made of.
//!
//! [`encode`] turns a value into bytes in a format for one machine and one build, and collects the
//! descriptors of the handles in it; [`decode`] is the way back, and trusts nothing that it reads.
//! A type takes part by serde's `Serialize` and `Deserialize`, and a handle by [`attach`] and
//! [`claim`].
//!
//! ```
//! use multiproc_message::{Descriptor, decode, encode};
//! use std::fs::File;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = Descriptor::from(File::open("/dev/null")?);
//! let mut bytes = Vec::new();
//! let descriptors = encode(&("log", file), &mut bytes)?;
//! let (name, _file): (String, Descriptor) = decode(&bytes, descriptors)?;
//! assert_eq!(name, "log");
//! # Ok(())
//! # }
//! ```
//!
//! It opens, reads and writes nothing: how bytes and descriptors travel is the affair of
//! `multiproc-pipe` and `multiproc-queue`.

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

pub use bytes::Bytes;
pub use descriptor::Descriptor;
pub use error::{DecodeError, EncodeError};
pub use format::{Format, decode, decode_as, encode, encode_unsent};
pub use handles::{Handles, MAX_DESCRIPTORS, attach, claim, tell_when_sent};
#[cfg(feature = "json")]
pub use json::Json;
pub use schema::{Hash as SchemaHash, check_type, shape_of};
