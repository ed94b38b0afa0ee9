//! A deserializer that writes down what a type asks for.
//!
//! It never returns a value. Where a type has several parts, it lets the type ask for one of them
//! and then fails, so each part takes a call of `deserialize`. Code made by `derive` runs no
//! further than its questions that way: no value comes into being, and code that would check it or
//! use it does not run. (Only the elements of a tuple in front of the one that is traced are made
//! up: serde has no other way there.)

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use serde::de::IntoDeserializer;
use serde::de::value::U32Deserializer;

use super::Hash;
use super::made_up::MadeUp;
use super::numbers::VariantNumbers;
use crate::native::VariantName;

/// The maximum number of parts of a type that are traced.
const MOST: u32 = 1024;

/// The maximum number of parts that are made up, all in all.
const MADE_UP: u32 = 50_000;

/// The maximum depth.
pub(super) const DEEPEST: usize = 32;

/// The end of a trace: the part was seen.
#[derive(Debug)]
pub(super) struct End;

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the type was traced up to here")
    }
}

impl std::error::Error for End {}

impl Error for End {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// The deserializer.
pub(super) struct Tracer {
    hash: Hash,
    asks: bool,
    /// The name of the type itself, if it asks for a type with a name.
    name: Option<&'static str>,
    /// The number of parts traced so far.
    parts: u32,
    /// The way to the part that is traced: which one of how many, wherever there are several.
    way: Vec<(usize, usize)>,
    /// The length of the way so far.
    at: usize,
    /// The types around the part, each by its name and the names of its fields or variants.
    inside: Vec<(&'static str, &'static [&'static str])>,
    depth: usize,
    made_up: MadeUp,
    /// The numbers of variants, if they are asked for.
    numbers: Option<VariantNumbers>,
}

impl Tracer {
    pub(super) fn new() -> Self {
        Self {
            hash: Hash::default(),
            asks: false,
            name: None,
            parts: 0,
            way: Vec::new(),
            at: 0,
            inside: Vec::new(),
            depth: 0,
            made_up: MadeUp::new(MADE_UP),
            numbers: None,
        }
    }

    /// Returns a tracer that also tries the numbers of variants. Its hash is of no use.
    pub(super) fn of_numbers() -> Self {
        Self { numbers: Some(VariantNumbers::default()), ..Self::new() }
    }

    /// The numbers of variants that were found.
    pub(super) fn into_numbers(self) -> VariantNumbers {
        self.numbers.unwrap_or_default().finish()
    }

    pub(super) fn asks_what_comes(&self) -> bool {
        self.asks
    }

    /// The name of the type itself, if it has one.
    pub(super) fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// The hash of all that was asked for.
    pub(super) fn hash(&self) -> Hash {
        self.hash
    }

    /// Begins with the next part. Returns `false` if there is none, or nothing more to trace.
    pub(super) fn begin_next(&mut self) -> bool {
        if self.parts > 0 && (self.asks || self.parts == MOST || !self.turn_to_next()) {
            return false;
        }
        self.parts += 1;
        self.at = 0;
        self.depth = 0;
        self.inside.clear();
        self.note("part");
        true
    }

    fn note(&mut self, what: &str) {
        self.hash.text(what);
    }

    fn note_all(&mut self, what: &str, names: &[&str]) {
        self.note(what);
        names.iter().for_each(|name| self.note(name));
    }

    /// Chooses the part that is next on the way.
    fn choose(&mut self, count: usize) -> Result<usize, End> {
        if count == 0 {
            return Err(End);
        }
        if self.at == self.way.len() {
            self.way.push((0, count));
        }
        let (chosen, _) = self.way[self.at];
        self.at += 1;
        self.note(&chosen.to_string());
        Ok(chosen)
    }

    /// Turns to the next part, if there is one.
    fn turn_to_next(&mut self) -> bool {
        self.way.truncate(self.at);
        while let Some((chosen, count)) = self.way.pop() {
            if chosen + 1 < count {
                self.way.push((chosen + 1, count));
                return true;
            }
        }
        false
    }

    /// Goes one level down. There is no way up: the first answer is the end.
    fn enter(&mut self) -> Result<(), End> {
        self.depth += 1;
        if self.depth > DEEPEST {
            self.note("too deep");
            return Err(End);
        }
        Ok(())
    }

    /// Goes into a type with a name, unless it is in it already.
    fn enter_type(
        &mut self,
        name: &'static str,
        parts: &'static [&'static str],
    ) -> Result<(), End> {
        self.note_all(name, parts);
        self.keep_name(name);
        if self.inside.contains(&(name, parts)) {
            self.note("again");
            return Err(End);
        }
        self.inside.push((name, parts));
        self.enter()
    }

    fn keep_name(&mut self, name: &'static str) {
        if self.depth == 0 {
            self.name = Some(name);
        }
    }

    fn element<'de, V: Visitor<'de>>(&mut self, count: usize, visitor: V) -> Result<V::Value, End> {
        let before = self.choose(count)?;
        visitor.visit_seq(Elements { tracer: self, before })
    }

    fn field<'de, V: Visitor<'de>>(
        &mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, End> {
        let chosen = self.choose(fields.len())?;
        let number = u32::try_from(chosen).map_err(|_| End)?;
        visitor.visit_map(Field { tracer: self, id: VariantName { number, name: fields[chosen] } })
    }

    fn ask(&mut self) -> End {
        self.asks = true;
        End
    }
}

macro_rules! no_answer {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, End> {
            self.note(stringify!($method));
            Err(End)
        }
    )*};
}

macro_rules! asked {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, End> {
            Err(self.ask())
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Tracer {
    type Error = End;

    // As in the format of messages, which decides what a type asks for.
    fn is_human_readable(&self) -> bool {
        false
    }

    asked! { deserialize_any deserialize_ignored_any deserialize_identifier }

    no_answer! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_unit
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        self.deserialize_str(visitor)
    }

    // In both formats, bytes are a sequence of numbers.
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        self.note("seq");
        self.choose(1)?;
        self.deserialize_u8(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_unit_struct<V>(self, name: &'static str, _: V) -> Result<V::Value, End>
    where
        V: Visitor<'de>,
    {
        self.note_all("unit struct", &[name]);
        self.keep_name(name);
        Err(End)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        self.note("option");
        self.enter()?;
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V>(self, name: &'static str, visitor: V) -> Result<V::Value, End>
    where
        V: Visitor<'de>,
    {
        self.note("newtype struct");
        self.enter_type(name, &[])?;
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        self.note("seq");
        self.enter()?;
        self.element(1, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, End> {
        self.note_all("tuple", &[&len.to_string()]);
        self.enter()?;
        self.element(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, End> {
        self.note_all("tuple struct", &[&len.to_string()]);
        self.enter_type(name, &[])?;
        self.element(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        self.note("map");
        self.enter()?;
        let of_value = self.choose(2)? == 1;
        visitor.visit_map(Entry { tracer: self, of_value })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, End> {
        self.note("struct");
        self.enter_type(name, fields)?;
        self.field(fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, End> {
        self.note("enum");
        self.enter_type(name, variants)?;
        let numbers = self.numbers.as_mut().map_or(0, |numbers| numbers.begin(name, variants));
        let chosen = self.choose(variants.len() + numbers)?;
        visitor.visit_enum(Variant { tracer: self, variants, chosen })
    }
}

/// An element, behind some that are made up.
struct Elements<'a> {
    tracer: &'a mut Tracer,
    before: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = End;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, End> {
        match self.before.checked_sub(1) {
            None => seed.deserialize(&mut *self.tracer).map(Some),
            Some(before) => {
                self.before = before;
                seed.deserialize(&mut self.tracer.made_up).map(Some)
            }
        }
    }
}

/// A field of a struct: alone, since fields with names come in any order.
struct Field<'a> {
    tracer: &'a mut Tracer,
    id: VariantName<'static>,
}

impl<'de> MapAccess<'de> for Field<'_> {
    type Error = End;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, End> {
        seed.deserialize(self.id).map(Some).map_err(|_| End)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, End> {
        seed.deserialize(&mut *self.tracer)
    }
}

/// The key of a map, or the value behind a key that is made up.
struct Entry<'a> {
    tracer: &'a mut Tracer,
    of_value: bool,
}

impl<'de> MapAccess<'de> for Entry<'_> {
    type Error = End;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, End> {
        if self.of_value {
            seed.deserialize(&mut self.tracer.made_up).map(Some)
        } else {
            seed.deserialize(&mut *self.tracer).map(Some)
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, End> {
        seed.deserialize(&mut *self.tracer)
    }
}

/// A variant of an enum: one of its names, or behind them a number that is only tried.
struct Variant<'a> {
    tracer: &'a mut Tracer,
    variants: &'static [&'static str],
    chosen: usize,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = End;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), End> {
        let Self { variants, chosen, .. } = self;
        let is_name = chosen < variants.len();
        let number = if is_name { chosen } else { chosen - variants.len() };
        let number = u32::try_from(number).map_err(|_| End)?;
        let result = if is_name {
            seed.deserialize(VariantName { number, name: variants[chosen] }).map_err(|_| End)
        } else {
            let id: U32Deserializer<End> = number.into_deserializer();
            seed.deserialize(id)
        };
        if let (Some(numbers), Some(&inside)) =
            (&mut self.tracer.numbers, self.tracer.inside.last())
        {
            numbers.note(inside, chosen, &result);
        }
        if is_name { Ok((result?, self)) } else { Err(End) }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = End;

    fn unit_variant(self) -> Result<(), End> {
        self.tracer.note("unit variant");
        Err(End)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, End> {
        self.tracer.note("newtype variant");
        seed.deserialize(self.tracer)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, End> {
        self.tracer.note_all("tuple variant", &[&len.to_string()]);
        self.tracer.element(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, End> {
        self.tracer.note_all("struct variant", fields);
        self.tracer.field(fields, visitor)
    }
}
