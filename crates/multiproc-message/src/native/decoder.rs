//! Decoding of the native format.

use std::slice;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::variants::Variants;
use super::{DEEPEST, Error, IN_2, IN_4, Result, too_deep};

/// The reason for refusing a type that asks the data what comes next.
pub(crate) const ASKS: &str = "messages do not describe themselves, so a type that asks what comes next \
    (a JSON value; an enum with serde's `untagged`, `tag` or `content`; a struct with `flatten`) \
    cannot be received: wrap it in `Json` (feature `json`) or remove these attributes";

/// Reads values from the front of bytes.
pub(crate) struct Decoder<'de> {
    bytes: slice::Iter<'de, u8>,
    /// The number of elements for which memory may still be reserved before they have been read.
    reservable: usize,
}

/// Reads one value, which may have this many levels.
pub(crate) struct Value<'d, 'de> {
    pub(super) decoder: &'d mut Decoder<'de>,
    levels: u32,
}

impl<'de> Decoder<'de> {
    #[inline]
    pub(crate) fn new(bytes: &'de [u8]) -> Self {
        Self { bytes: bytes.iter(), reservable: bytes.len() }
    }

    /// Returns the reader of the next value.
    #[inline]
    pub(crate) fn value(&mut self) -> Value<'_, 'de> {
        Value { decoder: self, levels: DEEPEST }
    }

    /// Checks that no bytes are left over after the value.
    #[inline]
    pub(crate) fn end(&self) -> Result {
        if self.bytes.len() == 0 { Ok(()) } else { Err(left_over(self.bytes.len())) }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let array = self.bytes.as_slice().first_chunk().ok_or_else(|| too_short(N))?;
        self.bytes.nth(N - 1);
        Ok(*array)
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'de [u8]> {
        let (taken, rest) =
            self.bytes.as_slice().split_at_checked(count).ok_or_else(|| too_short(count))?;
        self.bytes = rest.iter();
        Ok(taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn count(&mut self) -> Result<usize> {
        match self.byte()? {
            short @ ..IN_2 => Ok(short.into()),
            long => self.long_count(long),
        }
    }

    #[cold]
    fn long_count(&mut self, first: u8) -> Result<usize> {
        let count = match first {
            IN_2 => u16::from_le_bytes(self.array()?).into(),
            IN_4 => u32::from_le_bytes(self.array()?).into(),
            _ => u64::from_le_bytes(self.array()?),
        };
        usize::try_from(count).map_err(|_| too_short(usize::MAX))
    }

    #[inline]
    fn bool(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(neither(other)),
        }
    }

    #[inline]
    fn str(&mut self) -> Result<&'de str> {
        let count = self.count()?;
        str::from_utf8(self.take(count)?).map_err(|error| Error::new(error.to_string()))
    }
}

impl<'d, 'de> Value<'d, 'de> {
    /// Returns the reader of the content of the value. A type that contains itself, such as a tree,
    /// is decoded by recursion, as deeply as the sender chooses.
    #[inline]
    fn inside(self) -> Result<Self> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self { levels, ..self }),
            None => Err(too_deep()),
        }
    }

    /// Returns the reader of one of several parts of the value.
    #[inline]
    fn part(&mut self) -> Value<'_, 'de> {
        Value { decoder: self.decoder, levels: self.levels }
    }

    /// Lets `visit` read `count` elements.
    #[inline]
    fn elements<T>(self, visit: impl FnOnce(&mut Elements<'_, 'de>) -> Result<T>) -> Result<T> {
        let Self { decoder, levels } = self.inside()?;
        let count = decoder.count()?;
        let before = decoder.bytes.len();
        if count > before {
            return Err(too_many(count, before));
        }
        let reserved = count.min(decoder.reservable);
        decoder.reservable -= reserved;
        let value = Value { decoder: &mut *decoder, levels };
        let mut elements = Elements { value, left: count, reserved };
        let result = visit(&mut elements)?;
        if elements.left > 0 {
            return Err(not_taken(elements.left, count));
        }
        let taken = before - decoder.bytes.len();
        decoder.take(count.saturating_sub(taken))?;
        Ok(result)
    }

    #[inline]
    fn fields<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value> {
        visitor.visit_seq(Fields { value: self.inside()?, left: count })
    }
}

#[cold]
pub(crate) fn left_over(count: usize) -> Error {
    Error::new(format!("{count} bytes are left over"))
}

#[cold]
fn too_short(count: usize) -> Error {
    Error::new(format!("it ends {count} bytes too early"))
}

#[cold]
fn neither(byte: u8) -> Error {
    Error::new(format!("expected 0 or 1, got {byte}"))
}

#[cold]
fn too_many(count: usize, bytes: usize) -> Error {
    Error::new(format!("it ends too early: {bytes} bytes are no {count} elements"))
}

#[cold]
pub(crate) fn not_taken(left: usize, count: usize) -> Error {
    Error::new(format!("the type has left {left} of {count} elements"))
}

#[cold]
pub(crate) fn not_described<T>() -> Result<T> {
    Err(Error::new(ASKS))
}

macro_rules! numbers {
    ($($method:ident: $visit:ident($type:ty)),*) => {
        $(
            #[inline]
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
                visitor.$visit(<$type>::from_le_bytes(self.decoder.array()?))
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Value<'_, 'de> {
    type Error = Error;

    numbers! {
        deserialize_i8: visit_i8(i8), deserialize_i16: visit_i16(i16),
        deserialize_i32: visit_i32(i32), deserialize_i64: visit_i64(i64),
        deserialize_i128: visit_i128(i128), deserialize_u8: visit_u8(u8),
        deserialize_u16: visit_u16(u16), deserialize_u32: visit_u32(u32),
        deserialize_u64: visit_u64(u64), deserialize_u128: visit_u128(u128),
        deserialize_f32: visit_f32(f32), deserialize_f64: visit_f64(f64)
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_bool(self.decoder.bool()?)
    }

    #[inline]
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let number = u32::from_le_bytes(self.decoder.array()?);
        visitor.visit_char(char::try_from(number).map_err(|error| Error::new(error.to_string()))?)
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_borrowed_str(self.decoder.str()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let count = self.decoder.count()?;
        visitor.visit_borrowed_bytes(self.decoder.take(count)?)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_bytes(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if !self.decoder.bool()? {
            return visitor.visit_none();
        }
        visitor.visit_some(self.inside()?)
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V>(self, _: &'static str, visitor: V) -> Result<V::Value>
    where
        V: Visitor<'de>,
    {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V>(self, _: &'static str, visitor: V) -> Result<V::Value>
    where
        V: Visitor<'de>,
    {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.elements(|elements| visitor.visit_seq(elements))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.fields(len, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value>
    where
        V: Visitor<'de>,
    {
        self.fields(len, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.elements(|elements| visitor.visit_map(elements))
    }

    #[inline]
    fn deserialize_struct<V>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value>
    where
        V: Visitor<'de>,
    {
        self.fields(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value>
    where
        V: Visitor<'de>,
    {
        visitor.visit_enum(Variants { value: self.inside()?, names: variants })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        not_described()
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        not_described()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        not_described()
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The fields of a tuple or a struct, whose number the type determines.
struct Fields<'d, 'de> {
    value: Value<'d, 'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Fields<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<S>(&mut self, seed: S) -> Result<Option<S::Value>>
    where
        S: DeserializeSeed<'de>,
    {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(self.value.part()).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The elements of a sequence, or the keys and values of a map.
struct Elements<'d, 'de> {
    value: Value<'d, 'de>,
    left: usize,
    /// The number of elements for which memory may be reserved.
    reserved: usize,
}

impl<'de> SeqAccess<'de> for &mut Elements<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<S>(&mut self, seed: S) -> Result<Option<S::Value>>
    where
        S: DeserializeSeed<'de>,
    {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(self.value.part()).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.reserved))
    }
}

impl<'de> MapAccess<'de> for &mut Elements<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_key_seed<S>(&mut self, seed: S) -> Result<Option<S::Value>>
    where
        S: DeserializeSeed<'de>,
    {
        self.next_element_seed(seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        seed.deserialize(self.value.part())
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        SeqAccess::size_hint(self)
    }
}

impl<'de> VariantAccess<'de> for Value<'_, 'de> {
    type Error = Error;

    #[inline]
    fn unit_variant(self) -> Result {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        // The variant is a level already.
        visitor.visit_seq(Fields { value: self, left: len })
    }

    #[inline]
    fn struct_variant<V>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value>
    where
        V: Visitor<'de>,
    {
        visitor.visit_seq(Fields { value: self, left: fields.len() })
    }
}
