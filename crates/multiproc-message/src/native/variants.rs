//! Finding the variant of an enum that comes next.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::decoder::Value;
use super::{Error, Result};

/// The length at which an error cuts the name of a variant.
const LONGEST_NAME: usize = 64;

/// The variants of an enum that its type can be decoded into.
pub(super) struct Variants<'d, 'de> {
    pub(super) value: Value<'d, 'de>,
    pub(super) names: &'static [&'static str],
}

impl<'d, 'de> EnumAccess<'de> for Variants<'d, 'de> {
    type Error = Error;
    type Variant = Value<'d, 'de>;

    #[inline]
    fn variant_seed<S>(self, seed: S) -> Result<(S::Value, Value<'d, 'de>)>
    where
        S: DeserializeSeed<'de>,
    {
        let Self { value, names } = self;
        let number = value.decoder.count()?;
        let length = value.decoder.count()?;
        let name = value.decoder.take(length)?;
        let name = match names.get(number) {
            Some(expected) if expected.as_bytes() == name => expected,
            _ => find(names, name)?,
        };
        // No enum has this many.
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        Ok((seed.deserialize(VariantName { number, name })?, value))
    }
}

/// Finds a variant whose number differs between writing and reading because variants before it are
/// skipped or have several names. A type that does not list its variants checks the name itself.
#[cold]
fn find<'de>(names: &'static [&'static str], name: &'de [u8]) -> Result<&'de str> {
    let found = names.iter().find(|known| known.as_bytes() == name);
    match (found, str::from_utf8(name)) {
        (Some(found), _) => Ok(found),
        (None, Ok(name)) if names.is_empty() => Ok(name),
        _ => Err(unknown(names, name)),
    }
}

#[cold]
fn unknown(names: &[&str], name: &[u8]) -> Error {
    let short = &name[..name.len().min(LONGEST_NAME)];
    let name = String::from_utf8_lossy(short);
    let names = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    Error::new(format!(
        "expected one of the variants {names}, got `{name}`, which the type does not read: is it \
         marked with `skip_deserializing`, or named differently where it is written?"
    ))
}

/// The identification of a variant: its name, or its number as written for a type that asks for a
/// number.
#[derive(Clone, Copy)]
pub(crate) struct VariantName<'de> {
    pub(crate) number: u32,
    pub(crate) name: &'de str,
}

impl<'de> VariantName<'de> {
    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_u32(self.number)
    }
}

macro_rules! by_number {
    ($($method:ident)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
                self.number(visitor)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for VariantName<'de> {
    type Error = Error;

    by_number! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_borrowed_str(self.name)
    }

    fn deserialize_newtype_struct<V>(self, _: &'static str, visitor: V) -> Result<V::Value>
    where
        V: Visitor<'de>,
    {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value>
    where
        V: Visitor<'de>,
    {
        BorrowedStrDeserializer::new(self.name).deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct
        map struct identifier ignored_any
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}
