//! The errors of encoding and decoding.

use std::error::Error;
use std::fmt;

/// The error of a value that cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
