//! Why a value does not serialise, in the words of its own `Serialize`.
//!
//! postcard drops the text of custom errors. So when encoding has failed, the value is walked once
//! more with a serializer that produces nothing and keeps the text. Only errors pay for it.

use std::fmt::Display;

use serde::Serialize;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// The reason that `value` gives, or else the one that postcard gave.
#[cold]
pub(crate) fn of_encode<T: Serialize + ?Sized>(value: &T, error: &postcard::Error) -> String {
    match value.serialize(Walk) {
        Err(Reason(text)) => text,
        Ok(()) => error.to_string(),
    }
}

#[derive(Debug)]
struct Reason(String);

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Reason {}

impl Error for Reason {
    fn custom<T: Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

struct Walk;

macro_rules! leaves {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, _: $type) -> Result<(), Reason> { Ok(()) })*
    };
}

macro_rules! inner_nodes {
    ($($method:ident($($type:ty),*) -> $node:ident),*) => {
        $(
            type $node = Self;
            fn $method(self, $(_: $type),*) -> Result<Self, Reason> { Ok(self) }
        )*
    };
}

impl Serializer for Walk {
    type Ok = ();
    type Error = Reason;

    leaves! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32,
        serialize_i64: i64, serialize_i128: i128, serialize_u8: u8, serialize_u16: u16,
        serialize_u32: u32, serialize_u64: u64, serialize_u128: u128, serialize_f32: f32,
        serialize_f64: f64, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
        serialize_unit_struct: &'static str
    }

    inner_nodes! {
        serialize_seq(Option<usize>) -> SerializeSeq,
        serialize_tuple(usize) -> SerializeTuple,
        serialize_tuple_struct(&'static str, usize) -> SerializeTupleStruct,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> SerializeTupleVariant,
        serialize_map(Option<usize>) -> SerializeMap,
        serialize_struct(&'static str, usize) -> SerializeStruct,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> SerializeStructVariant
    }

    fn serialize_none(self) -> Result<(), Reason> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Reason> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Reason> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<(), Reason> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Reason> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Reason> {
        value.serialize(self)
    }

    fn is_human_readable(&self) -> bool {
        false // as postcard, so that the same path is walked
    }
}

macro_rules! children {
    ($($node:ident: $method:ident($($key:ty)?)),*) => {
        $(impl $node for Walk {
            type Ok = ();
            type Error = Reason;
            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $key,)? value: &T) -> Result<(), Reason> {
                value.serialize(Walk)
            }
            fn end(self) -> Result<(), Reason> {
                Ok(())
            }
        })*
    };
}

children! {
    SerializeSeq: serialize_element(),
    SerializeTuple: serialize_element(),
    SerializeTupleStruct: serialize_field(),
    SerializeTupleVariant: serialize_field(),
    SerializeStruct: serialize_field(&'static str),
    SerializeStructVariant: serialize_field(&'static str)
}

impl SerializeMap for Walk {
    type Ok = ();
    type Error = Reason;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Reason> {
        key.serialize(Walk)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Reason> {
        value.serialize(Walk)
    }

    fn end(self) -> Result<(), Reason> {
        Ok(())
    }
}
