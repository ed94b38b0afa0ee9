//! Encoding of the native format.

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::{DEEPEST, Error, IN_2, IN_4, IN_8, Result, too_deep};

/// Appends a value to a vector.
pub(crate) struct Encoder<'a> {
    bytes: &'a mut Vec<u8>,
    /// The number of levels that the value may have, as in the decoder.
    levels: u32,
}

impl<'a> Encoder<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, levels: DEEPEST }
    }

    /// Returns the writer of the content of the value.
    #[inline]
    fn inside(self) -> Result<Self> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self { levels, ..self }),
            None => Err(too_deep()),
        }
    }

    /// Returns the writer of one of several parts of the value.
    #[inline]
    fn part(&mut self) -> Encoder<'_> {
        Encoder { bytes: self.bytes, levels: self.levels }
    }

    #[inline]
    fn count(&mut self, count: usize) {
        match u8::try_from(count) {
            Ok(short) if short < IN_2 => self.bytes.push(short),
            _ => self.long_count(count),
        }
    }

    #[cold]
    fn long_count(&mut self, count: usize) {
        if let Ok(count) = u16::try_from(count) {
            self.bytes.push(IN_2);
            self.bytes.extend_from_slice(&count.to_le_bytes());
        } else if let Ok(count) = u32::try_from(count) {
            self.bytes.push(IN_4);
            self.bytes.extend_from_slice(&count.to_le_bytes());
        } else {
            self.longest_count(count);
        }
    }

    #[cold]
    fn longest_count(&mut self, count: usize) {
        self.bytes.push(IN_8);
        self.bytes.extend_from_slice(&(count as u64).to_le_bytes());
    }

    /// Writes the variant of an enum and returns the writer of its content. If variants are
    /// skipped, serde numbers them differently for writing and reading, so the name decides.
    #[inline]
    fn variant(self, number: u32, name: &'static str) -> Result<Self> {
        let mut inside = self.inside()?;
        inside.count(number as usize);
        inside.count(name.len());
        inside.bytes.extend_from_slice(name.as_bytes());
        Ok(inside)
    }
}

macro_rules! numbers {
    ($($method:ident: $type:ty),*) => {
        $(
            #[inline]
            fn $method(self, number: $type) -> Result {
                self.bytes.extend_from_slice(&number.to_le_bytes());
                Ok(())
            }
        )*
    };
}

impl<'a> Serializer for Encoder<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Elements<'a>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Elements<'a>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    numbers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64, serialize_u128: u128, serialize_f32: f32, serialize_f64: f64
    }

    #[inline]
    fn serialize_bool(self, is: bool) -> Result {
        self.serialize_u8(is.into())
    }

    #[inline]
    fn serialize_char(self, letter: char) -> Result {
        self.serialize_u32(letter.into())
    }

    #[inline]
    fn serialize_str(self, text: &str) -> Result {
        self.serialize_bytes(text.as_bytes())
    }

    #[inline]
    fn serialize_bytes(mut self, bytes: &[u8]) -> Result {
        self.count(bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result {
        self.serialize_bool(false)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        let inside = self.inside()?;
        inside.bytes.push(1);
        value.serialize(inside)
    }

    #[inline]
    fn serialize_unit(self) -> Result {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, number: u32, variant: &'static str) -> Result {
        self.variant(number, variant).map(drop)
    }

    #[inline]
    fn serialize_newtype_struct<T>(self, _: &'static str, value: &T) -> Result
    where
        T: Serialize + ?Sized,
    {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T>(
        self,
        _: &'static str,
        number: u32,
        variant: &'static str,
        value: &T,
    ) -> Result
    where
        T: Serialize + ?Sized,
    {
        value.serialize(self.variant(number, variant)?)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Elements<'a>> {
        Elements::new(self, len)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self> {
        self.inside()
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self> {
        self.inside()
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        number: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self> {
        self.variant(number, variant)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Elements<'a>> {
        Elements::new(self, len)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self> {
        self.inside()
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        number: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self> {
        self.variant(number, variant)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The fields of a tuple or a struct, one after the other.
macro_rules! fields {
    ($($part:ident: $method:ident($($key:ty)?)),*) => {
        $(impl $part for Encoder<'_> {
            type Ok = ();
            type Error = Error;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $key,)? value: &T) -> Result {
                value.serialize(self.part())
            }

            $(fn skip_field(&mut self, field: $key) -> Result {
                Err(skipped(field))
            })?

            #[inline]
            fn end(self) -> Result {
                Ok(())
            }
        })*
    };
}

fields! {
    SerializeTuple: serialize_element(),
    SerializeTupleStruct: serialize_field(),
    SerializeTupleVariant: serialize_field(),
    SerializeStruct: serialize_field(&'static str),
    SerializeStructVariant: serialize_field(&'static str)
}

#[cold]
pub(crate) fn skipped(field: &str) -> Error {
    Error::new(format!(
        "its `Serialize` skips the field `{field}`, and messages do not name their \
         fields: remove `skip_serializing_if`"
    ))
}

/// The elements of a sequence, or the keys and values of a map.
pub(crate) struct Elements<'a> {
    encoder: Encoder<'a>,
    announced: Option<usize>,
    count: usize,
    /// The offset of the first element.
    start: usize,
}

impl<'a> Elements<'a> {
    #[inline]
    fn new(encoder: Encoder<'a>, announced: Option<usize>) -> Result<Self> {
        let mut encoder = encoder.inside()?;
        match announced {
            Some(count) => {
                // Each element takes at least one byte, so a count that memory could not hold ends
                // here.
                encoder.bytes.try_reserve(count).map_err(|_| too_long(count))?;
                encoder.count(count);
            }
            // Room for the count, which is known at the end.
            None => encoder.longest_count(0),
        }
        let start = encoder.bytes.len();
        Ok(Self { encoder, announced, count: 0, start })
    }

    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.count += 1;
        value.serialize(self.encoder.part())
    }

    #[inline]
    fn end(self) -> Result {
        let Self { encoder: Encoder { bytes, .. }, announced, count, start } = self;
        match announced {
            Some(announced) if announced != count => return Err(miscounted(announced, count)),
            Some(_) => {}
            None => bytes[start - 8..start].copy_from_slice(&(count as u64).to_le_bytes()),
        }
        // An element without bytes takes one as well: see the module `native`.
        if let Some(missing) = count.checked_sub(bytes.len() - start) {
            bytes.try_reserve(missing).map_err(|_| too_long(count))?;
            bytes.resize(bytes.len() + missing, 0);
        }
        Ok(())
    }
}

#[cold]
fn too_long(count: usize) -> Error {
    Error::new(format!(
        "it has a sequence of {count} elements of at least one byte each, and there is not enough \
         memory"
    ))
}

#[cold]
pub(crate) fn miscounted(announced: usize, count: usize) -> Error {
    Error::new(format!("its `Serialize` announced {announced} elements and then wrote {count}"))
}

impl SerializeSeq for Elements<'_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.element(value)
    }

    #[inline]
    fn end(self) -> Result {
        self.end()
    }
}

impl SerializeMap for Elements<'_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result {
        self.element(key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        value.serialize(self.encoder.part())
    }

    #[inline]
    fn end(self) -> Result {
        self.end()
    }
}
