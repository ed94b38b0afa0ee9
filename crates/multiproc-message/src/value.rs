//! The bounds on values that are sent and received.
//!
//! Each is implemented for every type that has serde's traits, and exists for the compiler's
//! errors: those of serde's traits suggest other types that implement them, and not what to send
//! instead.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that can be sent: every type that implements serde's `Serialize`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent to another process",
    label = "cannot be sent to another process",
    note = "`{Self}` and each part of it must implement `serde::Serialize` and `serde::Deserialize`: \
            derive both for your own types",
    note = "send an owned value in place of a reference: a `String` for `&str`, a `Vec<T>` for `&[T]`, a \
            clone of a handle",
    note = "send a file or a socket as a `Descriptor`: `Descriptor::from(file)`",
    note = "send an error as a `RemoteError`, which any error converts into"
)]
pub trait Encode: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> Encode for T {}

/// A value that can be received: every type that implements serde's `DeserializeOwned`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be received from another process",
    label = "cannot be received from another process",
    note = "`{Self}` and each part of it must implement `serde::Serialize` and `serde::Deserialize`: \
            derive both for your own types",
    note = "receive an owned value in place of a reference: a `String` for `&str`, a `Vec<T>` for `&[T]`",
    note = "receive a file or a socket as a `Descriptor`: `File::from(OwnedFd::from(descriptor))`",
    note = "receive an error as a `RemoteError`, which any error converts into"
)]
pub trait Decode: DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned> Decode for T {}

/// A value that can be sent and received: every type that implements serde's `Serialize` and
/// `DeserializeOwned`.
///
/// Derive both traits for types of your own. Handles implement them, and so do most types of std
/// that own their contents. Others have a counterpart:
///
/// | instead of | send |
/// |---|---|
/// | `&str`, `&[T]`, `&T` | `String`, `Vec<T>`, `T` |
/// | `File`, `TcpListener`, `TcpStream`, `UnixStream` | [`Descriptor`](crate::Descriptor) |
/// | `Box<dyn Error>` and other errors | `RemoteError` of `multiproc` |
/// | `!`, as the result of a function that does not return | `()`, as the written return type |
///
/// For a type that borrows, such as `&str`, the compiler reports that its implementation of
/// `Deserialize` is not general enough: it could refer only to the bytes of the message, which are
/// gone when the value is used.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent between processes",
    label = "cannot be sent between processes",
    note = "`{Self}` and each part of it must implement `serde::Serialize` and `serde::Deserialize`: \
            derive both for your own types",
    note = "send an owned value in place of a reference: a `String` for `&str`, a `Vec<T>` for `&[T]`, a \
            clone of a handle",
    note = "send a file or a socket as a `Descriptor`: `Descriptor::from(file)`",
    note = "send an error as a `RemoteError`, which any error converts into",
    note = "write the return type of a function that does not return: `-> ()` in place of `!`"
)]
pub trait Message: Encode + Decode {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Message for T {}
