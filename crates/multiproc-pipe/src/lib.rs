//! Typed pipes and sockets between processes, with messages that carry file descriptors.
//!
//! A connection sends and receives *values*: anything that implements serde's `Serialize` and
//! `Deserialize`. What a value holds may be a *handle*, too: an open file ([`Descriptor`]), an
//! end of another connection, or a [`Listener`]. Its descriptor then travels with the message.
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
//! | [`Listener`] and [`connect`] | both ways | yes | the same, between programs that know an address |
//!
//! Each end has the same calls: `send` and `recv` wait as long as it takes, `try_…` not at all,
//! `…_timeout` for a time and `…_deadline` until one; `…_bytes` sends and receives bytes as they are.
//! [`wait`] waits for the first of many connections, listeners, processes and descriptors.
//!
//! Large data has two types of its own: [`Bytes`] are copied into the message, [`SharedBytes`] cross in
//! shared memory.
//!
//! # Ends are unique
//!
//! [`Connection`], [`Sender`] and [`Receiver`] are neither `Clone` nor `Sync`: one end has one
//! user, so two senders cannot tear each other's messages. Sending an end to another process moves
//! it, together with what it has read ahead. [`Connection::split`] gives the two directions to two
//! users.
//!
//! # When the other side does not read
//!
//! A pipe or a socket holds some messages, and then `send` waits. `try_send` and `send_timeout` give the
//! value back instead, if nothing of it was written. If a part was, there is no way back: that is
//! [`Unfinished`](SendTimeoutError::Unfinished), and the end keeps the rest, and writes it before the
//! next message. So no stream is ever torn, but by dropping an end that has a rest.
//!
//! # When the other side dies
//!
//! However a process dies, the kernel closes its ends. A receiver gets what was sent completely,
//! and then `Disconnected`; or `Corrupted`, if the sender died in the middle of a message. A sender
//! gets `Disconnected` with the value it could not send.
//!
//! # What it does not do
//!
//! A message does not say what is in it: both sides need the same type. A type that asks what comes
//! (`serde_json::Value`, an enum with serde's `untagged`, `tag` or `content`, a struct with `flatten`)
//! cannot be received as it is; wrap it in `Json`, which the feature `json` adds. Nor is there a trace
//! of fields that were left out: a field must be skipped on both sides (`skip`) or on neither.
//!
//! | serde's attribute | in a message |
//! |---|---|
//! | `rename`, `alias`, `default`, `with`, `from`, `into`, `transparent`, `remote` | works |
//! | `skip` | works, on fields and on variants |
//! | `skip_serializing_if` | on a named field: an error of `send`, if the field would be left out |
//! | `skip_serializing` or `skip_deserializing` alone | on a variant: the others work; on a field: does not work |
//! | `untagged`, `tag`, `content`, `flatten` | needs `Json` |
//!
//! Nor can a value have more than 256 levels of structs, options, sequences and so on in one another.
//!
//! If other code in the process closes the descriptor of a connection (a C library's close_range(2), for
//! example), operations on it fail, and dropping it closes nothing else. But a message is not preceded by a
//! check, which would take a system call: when another file has got the number, it may be written to or
//! read from.
//!
//! No networking, no passwords (the kernel says who a peer is), no many-to-one (that is what a queue
//! is for, see `multiproc-queue`), no async.

#![forbid(unsafe_code)]

#[cfg(multiproc_faults)]
pub mod syscall_script;

#[cfg(feature = "listener")]
mod address;
mod connection;
mod error;
#[doc(hidden)] // for the manager, which reads its sockets itself
pub mod frame;
mod frame_reader;
mod frame_writer;
mod hello;
mod iter;
#[cfg(feature = "listener")]
mod listener;
mod pipe;
mod shared_bytes;
mod shared_pool;
mod spare;
mod stream;
mod syscalls;
mod transfer;
mod wait;

#[cfg(feature = "listener")]
pub use address::Address;
pub use connection::{Connection, Receiver, Sender};
pub use error::{
    HandshakeError, RecvBytesError, RecvError, RecvTimeoutError, SendError, SendTimeoutError,
    TryRecvError, TrySendError,
};
pub use iter::{IntoIter, Iter};
#[cfg(feature = "listener")]
pub use listener::{
    AllowedUsers, Credentials, Incoming, Listener, ListenerBuilder, connect, connect_timeout,
    connect_without_hello,
};
/// Values that carry descriptors, for those who build on this crate.
pub use multiproc_message as message;
#[cfg(feature = "json")]
pub use multiproc_message::Json;
pub use multiproc_message::{Bytes, DecodeError, Descriptor, EncodeError, Format};
pub use multiproc_shm::Deadline;
pub use pipe::{duplex, simplex};
pub use shared_bytes::{SharedBytes, SharedBytesWriter};
pub use shared_pool::{SharedBuffer, SharedPool, SharedPoolBuilder};
pub use wait::{Source, wait};
