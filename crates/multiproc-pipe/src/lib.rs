//! Typed pipes and sockets between processes, with messages that carry file descriptors.
//!
//! A connection sends and receives *values*: anything that implements serde's `Serialize` and
//! `Deserialize`. What a value holds may be a *handle*, too: an open file ([`Descriptor`]), or an
//! end of another connection. Its descriptor then travels with the message.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (left, right) = multiproc_pipe::duplex::<u32, String>()?;
//! left.send(7)?;
//! assert_eq!(right.recv()?, 7);
//! right.send("seven".to_owned())?;
//! assert_eq!(left.recv()?, "seven");
//! # Ok(())
//! # }
//! ```
//!
//! # Which one
//!
//! | | direction | carries descriptors | made of |
//! |---|---|---|---|
//! | [`simplex`] | one way | no | a kernel pipe: about three times as fast for small messages |
//! | [`duplex`] | both ways | yes | a pair of Unix stream sockets |
//!
//! Large data has two types of its own: [`Bytes`] are copied into the message, [`SharedBytes`] cross in
//! shared memory.
//!
//! # Ends are unique
//!
//! [`Connection`], [`Sender`] and [`Receiver`] are neither `Clone` nor `Sync`: one end has one
//! user, so two senders cannot tear each other's messages. Sending an end to another process moves
//! it, together with what it has read ahead.
//!
//! # When the other side dies
//!
//! However a process dies, the kernel closes its ends. A receiver gets what was sent completely,
//! and then `Disconnected`; or `Corrupted`, if the sender died in the middle of a message. A sender
//! gets `Disconnected` with the value it could not send.
//!
//! # What it does not do
//!
//! No discovery and no names, no networking, no many-to-one (that is what a queue is for, see
//! `multiproc-queue`), no async.

#![forbid(unsafe_code)]

pub mod message;

mod bytes;
mod connection;
mod deadline;
mod descriptor;
mod error;
mod frame;
mod pipe;
mod reason;
mod shared_bytes;
mod shared_pool;
mod stream;

pub use bytes::Bytes;
pub use connection::{Connection, Receiver, Sender};
pub use deadline::Deadline;
pub use descriptor::Descriptor;
pub use error::{DecodeError, EncodeError, RecvError, RecvTimeoutError, SendError, TryRecvError};
pub use pipe::{duplex, simplex};
pub use shared_bytes::{SharedBytes, SharedBytesWriter};
pub use shared_pool::{SharedBuffer, SharedPool, SharedPoolBuilder};
