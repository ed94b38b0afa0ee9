//! The errors of encoding and decoding.

use std::error::Error;
use std::fmt;

/// Implements `Debug` for error types by their `Display`: a program whose `main` returns an error
/// prints its `Debug`, and its user needs the message.
///
/// ```
/// # use multiproc_message::debug_is_display;
/// struct Full<T>(T);
///
/// impl<T> std::fmt::Display for Full<T> {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("the queue is full")
///     }
/// }
///
/// debug_is_display!(Full<T>);
///
/// assert_eq!(format!("{:?}", Full(1)), "the queue is full");
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! debug_is_display {
    ($($name:ident $(<$($parameter:ident),+>)?),+ $(,)?) => {$(
        impl $(<$($parameter),+>)? ::core::fmt::Debug for $name $(<$($parameter),+>)? {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Display::fmt(self, f)
            }
        }
    )+};
}

/// The error of a value that cannot be encoded.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodeError {
    pub(crate) type_name: &'static str,
    pub(crate) reason: String,
}

impl EncodeError {
    /// Creates the error of a value of type `T`.
    #[must_use]
    pub fn new<T: ?Sized>(reason: impl Into<String>) -> Self {
        Self { type_name: std::any::type_name::<T>(), reason: reason.into() }
    }

    /// Returns the name of the value's type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Returns the reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type `{}` cannot be sent: {}", self.type_name, self.reason)
    }
}

impl Error for EncodeError {}

/// The error of a complete message that is not a value of the expected type.
///
/// The message has been consumed and its descriptors are closed. The next message can be received.
#[derive(Clone, PartialEq, Eq)]
pub struct DecodeError {
    pub(crate) type_name: &'static str,
    pub(crate) reason: String,
}

impl DecodeError {
    /// Returns the name of the expected type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Returns the reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot decode the message as `{}`: {}; do both sides use the same type and version?",
            self.type_name, self.reason
        )
    }
}

impl Error for DecodeError {}

debug_is_display!(EncodeError, DecodeError);
