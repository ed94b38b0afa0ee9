//! Why a value is no message, or a message no value.

use std::error::Error;
use std::fmt;

/// A value could not be turned into a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeError {
    pub(crate) type_name: &'static str,
    pub(crate) reason: String,
}

impl EncodeError {
    /// A value of type `T` cannot be sent, for this reason.
    #[must_use]
    pub fn new<T: ?Sized>(reason: impl Into<String>) -> Self {
        Self { type_name: std::any::type_name::<T>(), reason: reason.into() }
    }

    /// The type of the value.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Why it failed.
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

/// A message came whole, but it does not hold a value of the expected type.
///
/// The message is gone, its descriptors are closed; the next one can be received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    pub(crate) type_name: &'static str,
    pub(crate) reason: String,
}

impl DecodeError {
    /// The type that was expected.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Why the bytes are no value of it.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected a value of type `{}`, got a message that is none: {}; \
             do both sides use the same type?",
            self.type_name, self.reason
        )
    }
}

impl Error for DecodeError {}
