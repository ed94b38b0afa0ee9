//! Encoding of postcard.

use ::postcard::Serializer as Primitives;
use ::postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::{EMPTY_ELEMENTS, failed, too_many};
use crate::native::{DEEPEST, Error, Result, miscounted, skipped, too_deep};
use crate::schema::VariantNumbers;

/// Appends the bytes of a value.
///
/// # Errors
///
/// If its `Serialize` fails, a limit is exceeded, or a variant has another number than the receiver
/// expects. Some bytes may have been appended then.
pub(crate) fn encode<T: Serialize + ?Sized>(
    value: &T,
    bytes: &mut Vec<u8>,
    numbers: Option<&VariantNumbers>,
) -> Result {
    let before = bytes.len();
    let primitives = Primitives { output: Append(bytes) };
    let mut output = Output { primitives, elements: 0, numbers };
    value.serialize(Encoder { output: &mut output, levels: DEEPEST })?;
    let elements = output.elements;
    let written = bytes.len() - before;
    if elements > written.saturating_add(EMPTY_ELEMENTS) {
        return Err(too_many(elements, written));
    }
    Ok(())
}

/// Where the crate writes to.
struct Append<'b>(&'b mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> ::postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, data: u8) -> ::postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> ::postcard::Result<()> {
        Ok(())
    }
}

struct Output<'b> {
    primitives: Primitives<Append<'b>>,
    /// The number of elements of all sequences and maps so far.
    elements: usize,
    /// The numbers by which variants are read, if they are known.
    numbers: Option<&'b VariantNumbers>,
}

impl Output<'_> {
    fn bytes(&mut self) -> &mut Vec<u8> {
        self.primitives.output.0
    }

    fn count(&mut self, count: usize) -> Result {
        self.primitives.serialize_u64(count as u64).map_err(failed)
    }
}

/// Appends one value, which may have this many levels.
struct Encoder<'e, 'b> {
    output: &'e mut Output<'b>,
    levels: u32,
}

impl<'e, 'b> Encoder<'e, 'b> {
    /// Returns the writer of the content of the value.
    fn inside(self) -> Result<Self> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self { levels, ..self }),
            None => Err(too_deep()),
        }
    }

    /// Returns the writer of one of several parts of the value.
    fn part(&mut self) -> Encoder<'_, 'b> {
        Encoder { output: self.output, levels: self.levels }
    }

    fn variant(self, name: &str, number: u32, variant: &str) -> Result<Self> {
        if let Some(numbers) = self.output.numbers {
            numbers.check(name, number, variant)?;
        }
        let inside = self.inside()?;
        inside.output.primitives.serialize_u32(number).map_err(failed)?;
        Ok(inside)
    }

    fn elements(self, announced: Option<usize>) -> Result<Elements<'e, 'b>> {
        let encoder = self.inside()?;
        let start = encoder.output.bytes().len();
        if let Some(count) = announced {
            encoder.output.count(count)?;
        }
        Ok(Elements { encoder, announced, count: 0, start })
    }
}

macro_rules! primitives {
    ($($method:ident: $type:ty),*) => {
        $(
            fn $method(self, value: $type) -> Result {
                self.output.primitives.$method(value).map_err(failed)
            }
        )*
    };
}

impl<'e, 'b> Serializer for Encoder<'e, 'b> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Elements<'e, 'b>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Elements<'e, 'b>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    primitives! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32,
        serialize_i64: i64, serialize_i128: i128, serialize_u8: u8, serialize_u16: u16,
        serialize_u32: u32, serialize_u64: u64, serialize_u128: u128, serialize_f32: f32,
        serialize_f64: f64, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8]
    }

    fn serialize_none(self) -> Result {
        self.output.primitives.serialize_none().map_err(failed)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        let inside = self.inside()?;
        // What is in it follows: a unit has no bytes.
        inside.output.primitives.serialize_some(&()).map_err(failed)?;
        value.serialize(inside)
    }

    fn serialize_unit(self) -> Result {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
    ) -> Result {
        self.variant(name, number, variant).map(drop)
    }

    fn serialize_newtype_struct<T>(self, _: &'static str, value: &T) -> Result
    where
        T: Serialize + ?Sized,
    {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T>(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
        value: &T,
    ) -> Result
    where
        T: Serialize + ?Sized,
    {
        value.serialize(self.variant(name, number, variant)?)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Elements<'e, 'b>> {
        self.elements(len)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self> {
        self.inside()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self> {
        self.inside()
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self> {
        self.variant(name, number, variant)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Elements<'e, 'b>> {
        self.elements(len)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self> {
        self.inside()
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self> {
        self.variant(name, number, variant)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The fields of a tuple or a struct, one after the other.
macro_rules! fields {
    ($($part:ident: $method:ident($($key:ty)?)),*) => {
        $(impl $part for Encoder<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $key,)? value: &T) -> Result {
                value.serialize(self.part())
            }

            $(fn skip_field(&mut self, field: $key) -> Result {
                Err(skipped(field))
            })?

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

/// The elements of a sequence, or the keys and values of a map.
struct Elements<'e, 'b> {
    encoder: Encoder<'e, 'b>,
    announced: Option<usize>,
    count: usize,
    /// The offset of the sequence.
    start: usize,
}

impl Elements<'_, '_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.count += 1;
        value.serialize(self.encoder.part())
    }

    fn finish(self) -> Result {
        let Self { encoder: Encoder { output, .. }, announced, count, start } = self;
        output.elements = output.elements.saturating_add(count);
        match announced {
            Some(announced) if announced != count => Err(miscounted(announced, count)),
            Some(_) => Ok(()),
            None => {
                // The count stands before the elements, and is known only now.
                let elements = output.bytes().split_off(start);
                output.count(count)?;
                output.bytes().extend_from_slice(&elements);
                Ok(())
            }
        }
    }
}

impl SerializeSeq for Elements<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.element(value)
    }

    fn end(self) -> Result {
        self.finish()
    }
}

impl SerializeMap for Elements<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result {
        self.element(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        value.serialize(self.encoder.part())
    }

    fn end(self) -> Result {
        self.finish()
    }
}
