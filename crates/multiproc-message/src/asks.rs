//! Types that can be encoded and not decoded, because they ask the data what comes: `serde_json::Value`,
//! an enum with serde's `untagged`, and so on.
//!
//! Whether a type does is found out by a deserializer that is asked, and never answers. Where a type has
//! several parts, it lets the type ask for one of them, and fails; so each part takes a call of
//! `deserialize`. What `derive` has made goes no further than its questions that way: no value comes into
//! being, and code that would check it or use it does not run. (Only where a part of a tuple is behind
//! others are those made up: serde has no other way there.)

use std::any::type_name;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use crate::error::EncodeError;
use crate::native::{ASKS, VariantName};
use crate::schema::{NoShape, Trace};

/// So many parts of a type are looked at.
const MOST: u32 = 1024;

/// So much is made up for it, all in all.
const MADE_UP: u32 = 50_000;

/// What is nested deeper contains itself, most likely.
const DEEPEST: usize = 32;

/// Refuses a type whose values can be encoded and not decoded: one whose `Deserialize` asks the data
/// what comes, as that of `serde_json::Value` does, or of an enum with serde's `untagged`.
///
/// A type that borrows from what it is decoded from, as `&str` does, is not refused for that.
///
/// It is found out once for each type. A part of a type that cannot be reached passes: what is behind a
/// handle in a tuple, for example, or in a type that reads other parts first by code of its own. Where a
/// panic ends the process, every type passes, since the type's own code is called.
///
/// # Errors
///
/// If the type asks.
pub fn check_type<T: Deserialize<'static>>() -> Result<(), EncodeError> {
    static KNOWN: Mutex<BTreeMap<(usize, &str), bool>> = Mutex::new(BTreeMap::new());
    if cfg!(panic = "abort") {
        return Ok(());
    }
    // Two types may have one name; or one function, if their code is the same.
    let asks: fn() -> bool = asks::<T>;
    let key = (asks as usize, type_name::<T>());
    // Not waited for: a process made by fork(2) may find it locked for good.
    let known = KNOWN.try_lock().ok().and_then(|known| known.get(&key).copied());
    let does = known.unwrap_or_else(asks);
    if known.is_none()
        && let Ok(mut known) = KNOWN.try_lock()
    {
        known.insert(key, does);
    }
    if does { Err(EncodeError::new::<T>(ASKS)) } else { Ok(()) }
}

fn asks<T: Deserialize<'static>>() -> bool {
    let mut probe = Probe::new();
    // Unwind safe: what the type's own code has changed elsewhere is its own affair.
    let result = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..MOST {
            probe.begin();
            let _ = T::deserialize(&mut probe);
            if probe.asks || !probe.turn_to_next() {
                break;
            }
        }
    }));
    if let Err(panic) = result {
        // Its drop could panic as well.
        std::mem::forget(panic);
    }
    probe.asks
}

/// The deserializer.
struct Probe {
    /// It was asked what comes.
    asks: bool,
    /// The way to the part that is looked at: which one of how many, wherever there are several.
    way: Vec<(usize, usize)>,
    /// How far along it is.
    at: usize,
    /// The types that it is in, each by its name and the names of its fields or variants.
    inside: Vec<(&'static str, &'static [&'static str])>,
    depth: usize,
    /// What makes up the parts that come before.
    others: Trace,
}

impl Probe {
    fn new() -> Self {
        Self {
            asks: false,
            way: Vec::new(),
            at: 0,
            inside: Vec::new(),
            depth: 0,
            others: Trace::new(MADE_UP),
        }
    }

    fn begin(&mut self) {
        self.at = 0;
        self.depth = 0;
        self.inside.clear();
    }

    /// Which of so many parts is next on the way.
    fn choose(&mut self, count: usize) -> Result<usize, NoShape> {
        if count == 0 {
            return Err(NoShape);
        }
        if self.at == self.way.len() {
            self.way.push((0, count));
        }
        let (chosen, _) = self.way[self.at];
        self.at += 1;
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
    fn enter(&mut self) -> Result<(), NoShape> {
        self.depth += 1;
        if self.depth > DEEPEST { Err(NoShape) } else { Ok(()) }
    }

    /// Goes into a type with a name, unless it is in it already.
    fn enter_type(
        &mut self,
        name: &'static str,
        parts: &'static [&'static str],
    ) -> Result<(), NoShape> {
        if self.inside.contains(&(name, parts)) {
            return Err(NoShape);
        }
        self.inside.push((name, parts));
        self.enter()
    }

    fn element<'de, V: Visitor<'de>>(
        &mut self,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        let before = self.choose(count)?;
        visitor.visit_seq(Elements { probe: self, before })
    }

    fn field<'de, V: Visitor<'de>>(
        &mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        let chosen = self.choose(fields.len())?;
        let number = u32::try_from(chosen).map_err(|_| NoShape)?;
        visitor.visit_map(Field { probe: self, id: VariantName { number, name: fields[chosen] } })
    }

    fn ask(&mut self) -> NoShape {
        self.asks = true;
        NoShape
    }
}

macro_rules! no_answer {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NoShape> {
            Err(NoShape)
        }
    )*};
}

macro_rules! asked {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NoShape> {
            Err(self.ask())
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Probe {
    type Error = NoShape;

    // As in the format of messages, which decides what a type asks for.
    fn is_human_readable(&self) -> bool {
        false
    }

    asked! { deserialize_any deserialize_ignored_any deserialize_identifier }

    no_answer! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit
    }

    fn deserialize_unit_struct<V>(self, _: &'static str, _: V) -> Result<V::Value, NoShape>
    where
        V: Visitor<'de>,
    {
        Err(NoShape)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoShape> {
        self.enter()?;
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, NoShape>
    where
        V: Visitor<'de>,
    {
        self.enter_type(name, &[])?;
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoShape> {
        self.enter()?;
        self.element(1, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.enter()?;
        self.element(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.enter_type(name, &[])?;
        self.element(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoShape> {
        self.enter()?;
        let of_value = self.choose(2)? == 1;
        visitor.visit_map(Entry { probe: self, of_value })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.enter_type(name, fields)?;
        self.field(fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.enter_type(name, variants)?;
        let chosen = self.choose(variants.len())?;
        let number = u32::try_from(chosen).map_err(|_| NoShape)?;
        let id = VariantName { number, name: variants[chosen] };
        visitor.visit_enum(Variant { probe: self, id })
    }
}

/// An element, behind some that are made up.
struct Elements<'a> {
    probe: &'a mut Probe,
    before: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = NoShape;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, NoShape> {
        match self.before.checked_sub(1) {
            None => seed.deserialize(&mut *self.probe).map(Some),
            Some(before) => {
                self.before = before;
                seed.deserialize(&mut self.probe.others).map(Some)
            }
        }
    }
}

/// A field of a struct: alone, since fields with names come in any order.
struct Field<'a> {
    probe: &'a mut Probe,
    id: VariantName<'static>,
}

impl<'de> MapAccess<'de> for Field<'_> {
    type Error = NoShape;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, NoShape> {
        seed.deserialize(self.id).map(Some).map_err(|_| NoShape)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, NoShape> {
        seed.deserialize(&mut *self.probe)
    }
}

/// The key of a map, or the value behind a key that is made up.
struct Entry<'a> {
    probe: &'a mut Probe,
    of_value: bool,
}

impl<'de> MapAccess<'de> for Entry<'_> {
    type Error = NoShape;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, NoShape> {
        if self.of_value {
            seed.deserialize(&mut self.probe.others).map(Some)
        } else {
            seed.deserialize(&mut *self.probe).map(Some)
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, NoShape> {
        seed.deserialize(&mut *self.probe)
    }
}

/// A variant of an enum.
struct Variant<'a> {
    probe: &'a mut Probe,
    id: VariantName<'static>,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = NoShape;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), NoShape> {
        let variant = seed.deserialize(self.id).map_err(|_| NoShape)?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = NoShape;

    fn unit_variant(self) -> Result<(), NoShape> {
        Err(NoShape)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, NoShape> {
        seed.deserialize(self.probe)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, NoShape> {
        self.probe.element(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NoShape> {
        self.probe.field(fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashMap;
    use std::net::IpAddr;
    use std::num::NonZeroU64;
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    use serde::de::Error;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Untagged {
        Number(u8),
        Text { text: String },
    }

    #[test]
    fn type_that_asks_what_comes_is_refused_wherever_it_is() {
        #[derive(Deserialize)]
        #[serde(tag = "kind")]
        #[allow(dead_code)]
        enum Tagged {
            A,
            B { b: u8 },
        }
        #[derive(Deserialize)]
        #[serde(tag = "kind", content = "of")]
        #[allow(dead_code)]
        enum Adjacent {
            A,
            B(u8),
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Flat {
            a: u8,
            #[serde(flatten)]
            rest: BTreeMap<String, u8>,
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        enum Outer {
            A,
            B(Inner, Inner),
            C(Option<Result<u8, Vec<Inner>>>),
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        enum Inner {
            A,
            B,
            C,
            #[serde(alias = "E")]
            D {
                d: Vec<(u8, Option<Untagged>)>,
            },
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Node {
            nodes: Vec<Node>,
            table: BTreeMap<String, Node>,
            next: Option<Box<Node>>,
            handle: crate::Descriptor,
            value: Untagged,
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        enum Picky {
            /// Refuses what is made up.
            A(#[serde(deserialize_with = "refuse")] u8),
            B(Untagged),
        }
        fn refuse<'de, D: Deserializer<'de>>(_: D) -> Result<u8, D::Error> {
            Err(D::Error::custom("no"))
        }
        let results = [
            check_type::<Untagged>(),
            check_type::<Tagged>(),
            check_type::<Adjacent>(),
            check_type::<Flat>(),
            check_type::<(u8, Option<Vec<BTreeMap<String, [Untagged; 2]>>>)>(),
            check_type::<Outer>(),
            check_type::<Node>(),
            check_type::<Picky>(),
        ];
        for (number, result) in results.into_iter().enumerate() {
            let Err(error) = result else { panic!("number {number}") };
            assert!(error.reason().contains("`Json`"), "{error}");
        }
        // And the second time, from what is known.
        check_type::<Untagged>().unwrap_err();
        assert!(check_type::<Outer>().unwrap_err().type_name().ends_with("Outer"));
    }

    #[test]
    fn type_that_does_not_ask_passes() {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        enum Tree {
            Leaf,
            Node(Box<Tree>, Box<Tree>),
            Nodes { nodes: Vec<Tree>, names: BTreeMap<String, Tree> },
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Wide(Vec<Wide>, Vec<Wide>, Vec<Wide>, Vec<Wide>);
        #[derive(Deserialize)]
        #[allow(dead_code)]
        enum Impossible {}
        struct Panics;
        impl<'de> Deserialize<'de> for Panics {
            fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                panic!("on purpose")
            }
        }
        check_type::<Tree>().unwrap();
        check_type::<Wide>().unwrap();
        check_type::<Impossible>().unwrap();
        check_type::<Panics>().unwrap();
        check_type::<()>().unwrap();
        check_type::<crate::Descriptor>().unwrap();
        check_type::<HashMap<String, (Duration, PathBuf, IpAddr, SystemTime)>>().unwrap();
        check_type::<Result<NonZeroU64, String>>().unwrap();
        check_type::<[[[u8; 32]; 32]; 32]>().unwrap();
    }

    thread_local! {
        static CHECKED: Cell<u32> = const { Cell::new(0) };
    }

    /// Has effects when it is read.
    struct Checked;

    impl<'de> Deserialize<'de> for Checked {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u32::deserialize(deserializer)?;
            CHECKED.set(CHECKED.get() + 1);
            Ok(Self)
        }
    }

    #[test]
    fn code_behind_what_is_read_does_not_run() {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Holds {
            first: Checked,
            second: Vec<Checked>,
            third: BTreeMap<u8, Checked>,
            last: Untagged,
        }
        check_type::<Checked>().unwrap();
        check_type::<Holds>().unwrap_err();
        assert_eq!(CHECKED.get(), 0);
    }
}
