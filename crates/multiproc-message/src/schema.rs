//! What a type looks like to serde: a hash of its shape.
//!
//! The shape is found by deserialising a value out of nothing: a deserializer that writes down what it
//! is asked for, and makes something up. An enum is gone through once for each variant. It cannot be
//! had for types that ask the data what comes (`deserialize_any`), that hold handles, that refuse what
//! is made up, or that contain themselves: those are compared by name alone.
//!
//! The hash is of serde's view: the names and the order of fields and variants, the kinds of numbers. Types
//! that differ may have the same one (two fields of the same kind whose meanings were swapped, or in
//! combinations of nested variants that were not gone through). It catches the usual accident: two
//! programs that were built from different versions of the same source.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::native::VariantName;

/// What is nested deeper contains itself, most likely.
const DEEPEST: u32 = 32;

/// So much may be asked for in one go through a type.
const MOST: u32 = 10_000;

/// So many variants of one enum are gone through.
const VARIANTS: u32 = 256;

/// The hash of a type's shape, if it can be had.
#[must_use]
pub fn shape_of<T: DeserializeOwned>() -> Option<u64> {
    let mut trace = Trace::new(MOST);
    while trace.round < trace.rounds {
        trace.left = MOST;
        T::deserialize(&mut trace).ok()?;
        trace.round += 1;
    }
    Some(trace.hash.0)
}

/// FNV-1a (64 bits): the same in every program, whatever its compiler.
#[derive(Debug, Clone, Copy)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// Adds a text, and where it ends.
    pub fn text(&mut self, text: &str) {
        // Ends with a byte that is in no text.
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    /// The hash of what was added.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0
    }
}

/// The deserializer.
pub(crate) struct Trace {
    hash: Hash,
    /// How much more may be asked for.
    left: u32,
    depth: u32,
    /// Which variant enums take this time, and of how many times.
    round: u32,
    rounds: u32,
}

/// There is no shape to be had.
#[derive(Debug)]
pub(crate) struct NoShape;

impl fmt::Display for NoShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no shape")
    }
}

impl std::error::Error for NoShape {}

impl Error for NoShape {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl Trace {
    /// That may be asked for so much.
    pub(crate) fn new(left: u32) -> Self {
        Self { hash: Hash::default(), left, depth: 0, round: 0, rounds: 1 }
    }

    /// Writes down what is asked for.
    fn note(&mut self, what: &str) -> Result<(), NoShape> {
        self.left = self.left.checked_sub(1).ok_or(NoShape)?;
        self.hash.text(what);
        Ok(())
    }

    fn notes(&mut self, what: &str, names: &[&str]) -> Result<(), NoShape> {
        self.note(what)?;
        names.iter().try_for_each(|name| self.note(name))
    }

    /// Goes one level down.
    fn inside<T>(
        &mut self,
        go: impl FnOnce(&mut Self) -> Result<T, NoShape>,
    ) -> Result<T, NoShape> {
        if self.depth == DEEPEST {
            return Err(NoShape);
        }
        self.depth += 1;
        let result = go(self);
        self.depth -= 1;
        result
    }

    fn elements<'de, V: Visitor<'de>>(
        &mut self,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.inside(|trace| visitor.visit_seq(Elements { trace, left: count }))
    }
}

macro_rules! made_up {
    ($($method:ident $visit:ident $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoShape> {
            self.note(stringify!($method))?;
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Trace {
    type Error = NoShape;

    // As in the format of messages, which decides what a type asks for.
    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NoShape> {
        Err(NoShape)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NoShape> {
        Err(NoShape)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NoShape> {
        Err(NoShape)
    }

    // One, and not zero, which some numbers cannot be.
    made_up! {
        deserialize_bool visit_bool false;
        deserialize_i8 visit_i8 1;
        deserialize_i16 visit_i16 1;
        deserialize_i32 visit_i32 1;
        deserialize_i64 visit_i64 1;
        deserialize_i128 visit_i128 1;
        deserialize_u8 visit_u8 1;
        deserialize_u16 visit_u16 1;
        deserialize_u32 visit_u32 1;
        deserialize_u64 visit_u64 1;
        deserialize_u128 visit_u128 1;
        deserialize_f32 visit_f32 1.0;
        deserialize_f64 visit_f64 1.0;
        deserialize_char visit_char 'a';
        deserialize_str visit_str "";
        deserialize_string visit_str "";
        deserialize_bytes visit_bytes &[];
        deserialize_byte_buf visit_bytes &[];
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoShape> {
        self.note("option")?;
        self.inside(|trace| visitor.visit_some(trace))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoShape> {
        self.note("unit")?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.notes("unit struct", &[name])?;
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.notes("newtype struct", &[name])?;
        self.inside(|trace| visitor.visit_newtype_struct(trace))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoShape> {
        self.note("seq")?;
        self.elements(1, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.notes("tuple", &[&len.to_string()])?;
        self.elements(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.notes("tuple struct", &[name, &len.to_string()])?;
        self.elements(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoShape> {
        self.note("map")?;
        self.inside(|trace| visitor.visit_map(Elements { trace, left: 1 }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.notes("struct", &[name])?;
        self.notes("fields", fields)?;
        self.elements(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.notes("enum", &[name])?;
        self.notes("variants", variants)?;
        let count = u32::try_from(variants.len()).unwrap_or(u32::MAX).min(VARIANTS);
        self.rounds = self.rounds.max(count);
        let number = self.round.checked_rem(count).ok_or(NoShape)?;
        self.note(&number.to_string())?;
        let id = VariantName { number, name: variants[number as usize] };
        self.inside(|trace| visitor.visit_enum(Variant { trace, id }))
    }
}

/// The elements of something, made up one by one.
struct Elements<'a> {
    trace: &'a mut Trace,
    left: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = NoShape;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, NoShape> {
        match self.left.checked_sub(1) {
            None => Ok(None),
            Some(left) => {
                self.left = left;
                seed.deserialize(&mut *self.trace).map(Some)
            }
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Elements<'_> {
    type Error = NoShape;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, NoShape> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, NoShape> {
        seed.deserialize(&mut *self.trace)
    }
}

/// A variant of an enum.
struct Variant<'a> {
    trace: &'a mut Trace,
    id: VariantName<'static>,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = NoShape;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), NoShape> {
        Ok((seed.deserialize(self.id).map_err(|_| NoShape)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = NoShape;

    fn unit_variant(self) -> Result<(), NoShape> {
        self.trace.note("unit variant")
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, NoShape> {
        self.trace.note("newtype variant")?;
        seed.deserialize(self.trace)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, NoShape> {
        self.trace.notes("tuple variant", &[&len.to_string()])?;
        self.trace.elements(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.trace.notes("struct variant", fields)?;
        self.trace.elements(fields.len(), visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::net::IpAddr;
    use std::num::NonZeroU64;
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    use serde::Deserialize;

    use super::*;

    #[test]
    fn usual_types_have_a_shape_of_their_own() {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Point {
            x: i32,
            y: i32,
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        enum Job {
            Stop,
            Hash(PathBuf),
            Move { from: Point, to: Option<Point> },
        }
        let shapes = [
            shape_of::<u8>(),
            shape_of::<u64>(),
            shape_of::<i64>(),
            shape_of::<()>(),
            shape_of::<String>(),
            shape_of::<Vec<u8>>(),
            shape_of::<Option<u8>>(),
            shape_of::<(u8, u8)>(),
            shape_of::<[u8; 4]>(),
            shape_of::<HashMap<String, u8>>(),
            shape_of::<Point>(),
            shape_of::<Job>(),
            shape_of::<Vec<Job>>(),
            shape_of::<Result<u8, String>>(),
            shape_of::<IpAddr>(),
            shape_of::<Duration>(),
            shape_of::<SystemTime>(),
        ];
        for (index, shape) in shapes.iter().enumerate() {
            assert!(shape.is_some(), "{index}");
            assert_eq!(shapes.iter().filter(|other| *other == shape).count(), 1, "{index}");
        }
        assert!(shape_of::<NonZeroU64>().is_some());
        assert!(shape_of::<BTreeMap<String, Vec<Job>>>().is_some());
    }

    #[test]
    fn every_part_counts() {
        /// Types of one name, each in a place of its own.
        macro_rules! variation {
            ($($type:tt)*) => {{
                #[derive(Deserialize)]
                #[allow(dead_code)]
                $($type)*
                shape_of::<Message>().unwrap()
            }};
        }
        let shapes = [
            variation!(
                enum Message {
                    A(u8),
                    B { text: String },
                }
            ),
            variation!(
                enum Message {
                    A(u8),
                    B { text: String },
                    C,
                }
            ),
            variation!(
                enum Message {
                    A(u16),
                    B { text: String },
                }
            ),
            variation!(
                enum Message {
                    A(u8),
                    B { text: Vec<u8> },
                }
            ),
            variation!(
                enum Message {
                    A(u8),
                    B { name: String },
                }
            ),
            variation!(
                enum Message {
                    B { text: String },
                    A(u8),
                }
            ),
            variation!(
                struct Message {
                    text: String,
                }
            ),
        ];
        for shape in shapes {
            assert_eq!(shapes.iter().filter(|other| **other == shape).count(), 1);
        }
    }

    #[test]
    fn a_type_without_a_shape_has_none() {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Tree(Vec<Tree>);
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Wide(Vec<Wide>, Vec<Wide>, Vec<Wide>, Vec<Wide>);
        #[derive(Deserialize)]
        #[serde(untagged)]
        #[allow(dead_code)]
        enum Untagged {
            Number(u8),
            Text(String),
        }
        assert_eq!(shape_of::<Tree>(), None);
        assert_eq!(shape_of::<Wide>(), None);
        assert_eq!(shape_of::<Untagged>(), None);
        assert_eq!(shape_of::<crate::Descriptor>(), None);
    }

    #[test]
    fn variants_with_several_names_have_a_shape() {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        enum Event {
            #[serde(alias = "a", alias = "b")]
            Started(u8),
            Ended,
        }
        assert!(shape_of::<Event>().is_some());
    }
}
