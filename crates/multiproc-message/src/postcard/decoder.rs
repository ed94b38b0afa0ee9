//! Decoding of postcard.

use ::postcard::Deserializer as Primitives;
use ::postcard::de_flavors::Slice;
use serde::Deserialize;
use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::{EMPTY_ELEMENTS, failed, too_many};
use crate::native::{DEEPEST, Error, Result, left_over, not_described, not_taken, too_deep};

/// Reads values from the front of bytes.
pub(crate) struct Decoder<'de> {
    primitives: Primitives<'de, Slice<'de>>,
    length: usize,
    /// The number of elements that may still come.
    elements: usize,
}

/// Reads one value, which may have this many levels.
pub(crate) struct Value<'d, 'de> {
    decoder: &'d mut Decoder<'de>,
    levels: u32,
}

impl<'de> Decoder<'de> {
    pub(crate) fn new(bytes: &'de [u8]) -> Self {
        Self {
            primitives: Primitives::from_bytes(bytes),
            length: bytes.len(),
            elements: bytes.len().saturating_add(EMPTY_ELEMENTS),
        }
    }

    /// Returns the reader of the next value.
    pub(crate) fn value(&mut self) -> Value<'_, 'de> {
        Value { decoder: self, levels: DEEPEST }
    }

    /// Checks that no bytes are left over after the value.
    pub(crate) fn end(self) -> Result {
        match self.primitives.finalize().map_err(failed)? {
            [] => Ok(()),
            rest => Err(left_over(rest.len())),
        }
    }

    fn take<T: Deserialize<'de>>(&mut self) -> Result<T> {
        T::deserialize(&mut self.primitives).map_err(failed)
    }

    /// The number of elements of a sequence or map.
    fn count(&mut self) -> Result<usize> {
        let count: usize = self.take()?;
        match self.elements.checked_sub(count) {
            Some(left) => {
                self.elements = left;
                Ok(count)
            }
            None => Err(too_many(count, self.length)),
        }
    }
}

impl<'d, 'de> Value<'d, 'de> {
    /// Returns the reader of the content of the value. A type that contains itself is decoded by
    /// recursion, as deeply as the sender chooses.
    fn inside(self) -> Result<Self> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self { levels, ..self }),
            None => Err(too_deep()),
        }
    }

    /// Returns the reader of one of several parts of the value.
    fn part(&mut self) -> Value<'_, 'de> {
        Value { decoder: self.decoder, levels: self.levels }
    }

    fn fields<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value> {
        visitor.visit_seq(Parts { value: self.inside()?, left: count })
    }

    /// Lets `visit` read the elements of a sequence or map.
    fn elements<T>(self, visit: impl FnOnce(&mut Parts<'_, 'de>) -> Result<T>) -> Result<T> {
        let Self { decoder, levels } = self.inside()?;
        let count = decoder.count()?;
        let value = Value { decoder, levels };
        let mut parts = Parts { value, left: count };
        let result = visit(&mut parts)?;
        if parts.left > 0 { Err(not_taken(parts.left, count)) } else { Ok(result) }
    }
}

macro_rules! primitives {
    ($($method:ident: $visit:ident($type:ty)),*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
                visitor.$visit(self.decoder.take::<$type>()?)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Value<'_, 'de> {
    type Error = Error;

    primitives! {
        deserialize_bool: visit_bool(bool), deserialize_i8: visit_i8(i8),
        deserialize_i16: visit_i16(i16), deserialize_i32: visit_i32(i32),
        deserialize_i64: visit_i64(i64), deserialize_i128: visit_i128(i128),
        deserialize_u8: visit_u8(u8), deserialize_u16: visit_u16(u16),
        deserialize_u32: visit_u32(u32), deserialize_u64: visit_u64(u64),
        deserialize_u128: visit_u128(u128), deserialize_f32: visit_f32(f32),
        deserialize_f64: visit_f64(f64), deserialize_char: visit_char(char),
        deserialize_str: visit_borrowed_str(&str), deserialize_string: visit_borrowed_str(&str),
        deserialize_bytes: visit_borrowed_bytes(&[u8]),
        deserialize_byte_buf: visit_borrowed_bytes(&[u8])
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        // The content follows: a unit has no bytes.
        match self.decoder.take::<Option<()>>()? {
            None => visitor.visit_none(),
            Some(()) => visitor.visit_some(self.inside()?),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V>(self, _: &'static str, visitor: V) -> Result<V::Value>
    where
        V: Visitor<'de>,
    {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V>(self, _: &'static str, visitor: V) -> Result<V::Value>
    where
        V: Visitor<'de>,
    {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.elements(|parts| visitor.visit_seq(parts))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.fields(len, visitor)
    }

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

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.elements(|parts| visitor.visit_map(parts))
    }

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

    fn deserialize_enum<V>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value>
    where
        V: Visitor<'de>,
    {
        visitor.visit_enum(Variant(self.inside()?))
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

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The fields of a tuple or struct, whose number the type knows; or the elements of a sequence or
/// map.
struct Parts<'d, 'de> {
    value: Value<'d, 'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S>(&mut self, seed: S) -> Result<Option<S::Value>>
    where
        S: DeserializeSeed<'de>,
    {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(self.value.part()).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        // Memory may be reserved for as many: not for more than there are bytes.
        Some(self.left.min(self.value.decoder.length))
    }
}

impl<'de> MapAccess<'de> for Parts<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S>(&mut self, seed: S) -> Result<Option<S::Value>>
    where
        S: DeserializeSeed<'de>,
    {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        seed.deserialize(self.value.part())
    }

    fn size_hint(&self) -> Option<usize> {
        SeqAccess::size_hint(self)
    }
}

/// A variant of an enum: its number, then its content.
struct Variant<'d, 'de>(Value<'d, 'de>);

impl<'d, 'de> EnumAccess<'de> for Variant<'d, 'de> {
    type Error = Error;
    type Variant = Value<'d, 'de>;

    fn variant_seed<S>(self, seed: S) -> Result<(S::Value, Value<'d, 'de>)>
    where
        S: DeserializeSeed<'de>,
    {
        let number: u32 = self.0.decoder.take()?;
        let id: U32Deserializer<Error> = number.into_deserializer();
        Ok((seed.deserialize(id)?, self.0))
    }
}

impl<'de> VariantAccess<'de> for Value<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        // The variant is a level already.
        visitor.visit_seq(Parts { value: self, left: len })
    }

    fn struct_variant<V>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value>
    where
        V: Visitor<'de>,
    {
        visitor.visit_seq(Parts { value: self, left: fields.len() })
    }
}
