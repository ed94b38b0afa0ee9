#![doc = include_str!("../README.md")]
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
#[cfg_attr(not(feature = "listener"), allow(dead_code))]
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
mod wait_set;

#[cfg(feature = "listener")]
pub use address::Address;
pub use connection::{Connection, Receiver, Sender};
pub use error::{
    HandshakeError, RecvBytesError, RecvError, RecvTimeoutError, SendError, SendTimeoutError,
    TryRecvError, TrySendError,
};
pub use iter::{IntoIter, Iter, TryIter};
#[cfg(feature = "listener")]
pub use listener::{
    AllowedUsers, Credentials, Incoming, Listener, ListenerBuilder, connect, connect_timeout,
    connect_without_hello,
};
/// Values that carry descriptors, for those who build on this crate.
pub use multiproc_message as message;
#[cfg(feature = "json")]
pub use multiproc_message::Json;
pub use multiproc_message::{
    Bytes, Decode, DecodeError, Descriptor, Encode, EncodeError, Format, Message,
};
pub use multiproc_shm::Deadline;
pub use pipe::{duplex, simplex};
pub use shared_bytes::{SharedBytes, SharedBytesWriter};
pub use shared_pool::{SharedBuffer, SharedPool, SharedPoolBuilder};
pub use wait::{Source, wait};
pub use wait_set::{Token, WaitSet};
