//! Values that need a self-describing format.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};

use serde::de::{DeserializeOwned, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::ser::{CompactFormatter, Formatter};

/// A value that is sent as JSON, as a field of a message or as the whole of it. Requires the
/// feature `json`.
///
/// Messages do not describe themselves, so a type whose `Deserialize` asks for the kind of the next
/// value cannot be received: `serde_json::Value`, an enum with serde's `untagged` or `tag`, a
/// struct with `flatten`. In this wrapper it can, at the cost of JSON: text instead of bytes.
///
/// ```
/// use multiproc_pipe::{Json, duplex};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// #[serde(tag = "kind")]
/// enum Event {
///     Started,
///     Finished { code: i32 },
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (left, right) = duplex::<(u64, Json<Event>), ()>()?;
/// left.send((7, Json(Event::Finished { code: 0 })))?;
/// let (id, Json(event)) = right.recv()?;
/// assert_eq!((id, event), (7, Event::Finished { code: 0 }));
/// # Ok(())
/// # }
/// ```
///
/// # Limits
///
/// The keys of a map must be strings, numbers or `char`s, and NaN and infinity become `null`, which
/// only an `Option` accepts. A value with more than 127 nested arrays and objects is refused where
/// it is sent, since serde_json would not read it.
///
/// Handles in the value are sent as in any other message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json<T>(pub T);

/// The maximum nesting of arrays and objects that serde_json reads.
const DEEPEST: u32 = 127;

/// Refuses text that is nested more deeply than it could be read.
struct Bounded {
    depth: u32,
}

impl Bounded {
    fn enter(&mut self) -> io::Result<()> {
        if self.depth == DEEPEST {
            return Err(io::Error::other(format!(
                "expected at most {DEEPEST} nested arrays and objects, got more"
            )));
        }
        self.depth += 1;
        Ok(())
    }
}

impl Formatter for Bounded {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter()?;
        CompactFormatter.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        CompactFormatter.end_array(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter()?;
        CompactFormatter.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        CompactFormatter.end_object(writer)
    }
}

impl<T: Serialize> Serialize for Json<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // In a self-describing text such as JSON the value needs no wrapper.
        if serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        let mut text = Vec::new();
        let mut json = serde_json::Serializer::with_formatter(&mut text, Bounded { depth: 0 });
        self.0
            .serialize(&mut json)
            .map_err(|error| S::Error::custom(format!("it cannot be written as JSON: {error}")))?;
        serializer.serialize_bytes(&text)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Json<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<T>(std::marker::PhantomData<T>);

        impl<T: DeserializeOwned> Visitor<'_> for Text<T> {
            type Value = Json<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value as JSON")
            }

            fn visit_bytes<E: serde::de::Error>(self, text: &[u8]) -> Result<Json<T>, E> {
                let value = serde_json::from_slice(text);
                value.map(Json).map_err(|error| E::custom(format!("its JSON is wrong: {error}")))
            }
        }

        if deserializer.is_human_readable() {
            return T::deserialize(deserializer).map(Json);
        }
        deserializer.deserialize_bytes(Text(std::marker::PhantomData))
    }
}

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Json<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> From<T> for Json<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}
