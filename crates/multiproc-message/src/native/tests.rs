use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Debug, Formatter};

use proptest::prelude::*;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DEEPEST, Decoder, Encoder};

fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    value.serialize(Encoder::new(&mut bytes)).map_err(|error| error.into_reason())?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut decoder = Decoder::new(bytes);
    let value = T::deserialize(decoder.value()).map_err(|error| error.into_reason())?;
    decoder.end().map_err(|error| error.into_reason())?;
    Ok(value)
}

/// That these are its bytes, and that fewer and more are refused.
#[track_caller]
fn is<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, bytes: &[u8]) {
    assert_eq!(encode(&value).unwrap(), bytes);
    assert_eq!(decode::<T>(bytes).unwrap(), value);
    for cut in 0..bytes.len() {
        decode::<T>(&bytes[..cut]).unwrap_err();
    }
    let more = decode::<T>(&[bytes, &[0]].concat()).unwrap_err();
    assert_eq!(more, "1 bytes are left over");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(u16);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(u8),
    Line(u8, u8),
    Rectangle { width: u8, height: u8 },
}

/// The table in docs/formats.md.
#[test]
fn the_format_is_the_one_that_is_documented() {
    is(true, &[1]);
    is(-2_i8, &[0xfe]);
    is(0x1234_u16, &[0x34, 0x12]);
    is(-2_i32, &[0xfe, 0xff, 0xff, 0xff]);
    is(7_usize, &[7, 0, 0, 0, 0, 0, 0, 0]);
    is(1_u128 << 120, &[[0; 15].as_slice(), &[1]].concat());
    is(1.5_f32, &1.5_f32.to_le_bytes());
    is(-0.1_f64, &(-0.1_f64).to_le_bytes());
    is('é', &[0xe9, 0, 0, 0]);
    is("né".to_owned(), &[3, b'n', 0xc3, 0xa9]);
    is((), &[]);
    is(Unit, &[]);
    is(Wrapped(1), &[1, 0]);
    is((1_u8, (2_u8, 3_u8)), &[1, 2, 3]);
    is([1_u8, 2], &[1, 2]);
    is(None::<u8>, &[0]);
    is(Some(Some(5_u8)), &[1, 1, 5]);
    is(Shape::Point, b"\x00\x05Point");
    is(Shape::Circle(9), b"\x01\x06Circle\x09");
    is(Shape::Line(1, 2), b"\x02\x04Line\x01\x02");
    is(Shape::Rectangle { width: 3, height: 4 }, b"\x03\x09Rectangle\x03\x04");
    is(vec![1_u16, 2], &[2, 1, 0, 2, 0]);
    is(BTreeMap::from([(1_u8, "x".to_owned()), (2, String::new())]), &[2, 1, 1, b'x', 2, 0]);
    // An element takes a byte at least, for all of them together.
    is(vec![(), (), ()], &[3, 0, 0, 0]);
    is(vec![vec![(); 2], vec![]], &[2, 2, 0, 0, 0]);
    is(HashSet::from([()]), &[1, 0]);
}

#[test]
fn a_count_is_short_or_long() {
    let sizes = [(0, 1), (1, 1), (252, 1), (253, 3), (254, 3), (255, 3), (65_535, 3), (65_536, 5)];
    for (len, size) in sizes {
        let bytes = encode(&"x".repeat(len)).unwrap();
        assert_eq!(bytes.len() - len, size, "{len}");
        assert_eq!(decode::<String>(&bytes).unwrap().len(), len);
    }
    // A serializer that does not know the length beforehand takes the long form.
    struct Odd(Vec<u8>);
    impl Serialize for Odd {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(self.0.iter().filter(|number| *number % 2 == 1))
        }
    }
    let bytes = encode(&(Odd(vec![1, 2, 3]), 4_u8)).unwrap();
    assert_eq!(bytes, [255, 2, 0, 0, 0, 0, 0, 0, 0, 1, 3, 4]);
    assert_eq!(decode::<(Vec<u8>, u8)>(&bytes).unwrap(), (vec![1, 3], 4));
}

#[test]
fn what_is_no_value_is_refused_with_a_reason() {
    let error = |bytes: &[u8]| decode::<(bool, char, Shape)>(bytes).unwrap_err();
    assert_eq!(error(&[2]), "expected 0 or 1, got 2");
    assert_eq!(error(&[1, 0]), "it ends 4 bytes too early");
    assert!(error(&[1, 0, 0xd8, 0, 0]).contains("char"));
    assert!(error(b"\x01A\0\0\0\x00\x04Pint").contains("got `Pint`"));
    assert!(error(b"\x01A\0\0\0\xff\0\0\0\0\x01\0\0\0\x01x").contains("got `x`"));
    // The name decides, whatever the number.
    let decoded = decode::<(u8, Shape)>(b"\x07\xff\0\0\0\0\x01\0\0\0\x06Circle\x09");
    assert_eq!(decoded, Ok((7, Shape::Circle(9))));
    assert!(decode::<String>(&[1, 0xff]).unwrap_err().contains("utf-8"));
    let huge = [255; 9];
    assert!(decode::<String>(&huge).unwrap_err().contains("it ends"));
    let claims = decode::<Vec<()>>(&[200, 0]).unwrap_err();
    assert_eq!(claims, "it ends too early: 1 bytes are no 200 elements");
    decode::<Vec<u8>>(&huge).unwrap_err();
    decode::<BTreeMap<u8, ()>>(&huge).unwrap_err();
}

#[test]
fn a_serialize_that_cannot_be_undone_is_refused() {
    #[derive(Serialize)]
    struct Skips {
        #[serde(skip_serializing_if = "Option::is_none")]
        here: Option<u8>,
    }
    assert_eq!(encode(&Skips { here: Some(1) }).unwrap(), [1, 1]);
    let error = encode(&Skips { here: None }).unwrap_err();
    assert!(error.contains("skips the field `here`"), "{error}");

    struct Liar;
    impl Serialize for Liar {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut elements = serializer.serialize_seq(Some(2))?;
            elements.serialize_element(&1)?;
            elements.end()
        }
    }
    let error = encode(&Liar).unwrap_err();
    assert_eq!(error, "its `Serialize` announced 2 elements and then wrote 1");
}

#[test]
fn elements_without_bytes_that_are_too_many_are_refused() {
    for count in [usize::MAX, usize::MAX - 5, isize::MAX as usize, 1 << 60] {
        let mut bytes = vec![7; 100];
        let error = vec![(); count].serialize(Encoder::new(&mut bytes)).unwrap_err();
        assert!(error.to_string().contains(&count.to_string()), "{error}");
    }
    assert_eq!(encode(&vec![(); 300]).unwrap().len(), 303);
}

#[test]
fn a_deserialize_that_asks_for_more_is_refused() {
    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    enum Asks {
        _Number(#[allow(dead_code)] u8),
    }
    assert!(decode::<Asks>(&[1]).unwrap_err().contains("do not describe themselves"));

    /// Takes one, whatever there is.
    #[derive(Debug)]
    struct First;
    impl<'de> Deserialize<'de> for First {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct One;
            impl<'de> Visitor<'de> for One {
                type Value = First;
                fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                    f.write_str("one")
                }
                fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<First, A::Error> {
                    seq.next_element::<u8>()?;
                    Ok(First)
                }
            }
            deserializer.deserialize_seq(One)
        }
    }
    decode::<First>(&[1, 7]).unwrap();
    assert_eq!(decode::<First>(&[3, 7, 8, 9]).unwrap_err(), "the type has left 2 of 3 elements");
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Number(i64),
    Node { name: String, next: Option<Box<Tree>> },
    Nodes(Vec<Tree>, Vec<()>),
    Names(BTreeMap<String, Tree>),
}

thread_local! {
    /// How many elements were announced to types, all in all.
    static ANNOUNCED: Cell<usize> = const { Cell::new(0) };
}

/// Sequences in sequences.
#[derive(Debug)]
struct Nested;

impl<'de> Deserialize<'de> for Nested {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seq;
        impl<'de> Visitor<'de> for Seq {
            type Value = Nested;
            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Nested, A::Error> {
                ANNOUNCED.set(ANNOUNCED.get() + seq.size_hint().unwrap());
                while seq.next_element::<Nested>()?.is_some() {}
                Ok(Nested)
            }
        }
        deserializer.deserialize_seq(Seq)
    }
}

#[test]
fn memory_is_reserved_for_as_many_elements_as_there_are_bytes() {
    let announced = |bytes: &[u8]| {
        ANNOUNCED.set(0);
        let result = decode::<Nested>(bytes);
        (ANNOUNCED.get(), result.is_ok())
    };
    assert_eq!(announced(&[2, 2, 0, 0, 1, 0]), (5, true));
    // Each level claims all following bytes as its elements.
    let greedy: Vec<u8> = (0..200).rev().collect();
    assert_eq!(announced(&greedy), (200, false));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Variant {
    End,
    Next(Box<Variant>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum InTuple {
    End,
    Next(u8, Box<InTuple>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum InStruct {
    End,
    Next { next: Box<InStruct>, other: u8 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Optional(Option<Box<Optional>>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Node {
    name: String,
    next: Option<Box<Node>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Listed(Vec<Listed>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Mapped(BTreeMap<u8, Mapped>);

/// By hand: a tuple of a number and, if that is not 0, another one.
#[derive(Debug, PartialEq)]
struct Chained(Option<Box<Chained>>);

impl Serialize for Chained {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            None => (0_u8, ()).serialize(serializer),
            Some(next) => (1_u8, next).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Chained {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Two;
        impl<'de> Visitor<'de> for Two {
            type Value = Chained;
            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("two")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Chained, A::Error> {
                if seq.next_element::<u8>()? == Some(0) {
                    return Ok(Chained(None));
                }
                Ok(Chained(seq.next_element()?))
            }
        }
        deserializer.deserialize_tuple(2, Two)
    }
}

/// A level with a kilobyte in place.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Large {
    numbers: [[u64; 16]; 8],
    names: (String, String, String),
    next: Option<Box<Large>>,
}

/// That a value is refused where it is written exactly if it would be refused where it is read:
/// `wrap` adds `levels` to the innermost one, which has `inner`.
#[track_caller]
fn is_bounded<T>(inner: u32, innermost: T, levels: u32, wrap: impl Fn(T) -> T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let mut value = innermost;
    let mut has = inner;
    let mut bytes = encode(&value).unwrap();
    while has + levels <= DEEPEST {
        value = wrap(value);
        has += levels;
        bytes = encode(&value).unwrap();
    }
    assert_eq!(decode::<T>(&bytes).unwrap(), value);
    // One level more around both.
    for extra in 1..=levels {
        let around = |mut bytes: Vec<u8>| {
            (0..extra).for_each(|_| bytes.insert(0, 1));
            bytes
        };
        let fits = has + extra <= DEEPEST;
        let (encoded, decoded) = match extra {
            1 => (encode(&Some(&value)), decode::<Option<T>>(&around(bytes.clone())).map(drop)),
            _ => (
                encode(&Some(Some(&value))),
                decode::<Option<Option<T>>>(&around(bytes.clone())).map(drop),
            ),
        };
        assert_eq!((encoded.is_ok(), decoded.is_ok()), (fits, fits), "{has} and {extra}");
    }
    let error = encode(&wrap(value)).unwrap_err();
    assert!(error.contains("at most 256 levels"), "{error}");
}

/// Each way in which a type can hold itself, on a thread of the usual size.
#[test]
fn value_of_any_kind_encodes_exactly_if_it_decodes() {
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
        is_bounded(1, Variant::End, 1, |next| Variant::Next(next.into()));
        is_bounded(1, InTuple::End, 1, |next| InTuple::Next(7, next.into()));
        is_bounded(1, InStruct::End, 1, |next| InStruct::Next { next: next.into(), other: 7 });
        is_bounded(0, Optional(None), 1, |next| Optional(Some(next.into())));
        let node = |next| Node { name: "x".to_owned(), next };
        is_bounded(1, node(None), 2, |next| node(Some(next.into())));
        is_bounded(1, Listed(Vec::new()), 1, |next| Listed(vec![next]));
        is_bounded(1, Mapped(BTreeMap::new()), 1, |next| Mapped([(1, next)].into()));
        is_bounded(1, Chained(None), 1, |next| Chained(Some(next.into())));
        is_bounded(3, Large::new(None), 2, |next| Large::new(Some(next.into())));
    });
    thread.unwrap().join().unwrap();
}

impl Large {
    fn new(next: Option<Box<Large>>) -> Self {
        let names = ("x".to_owned(), "y".to_owned(), "z".to_owned());
        Self { numbers: [[7; 16]; 8], names, next }
    }
}

#[test]
fn bytes_that_nest_without_end_are_refused() {
    const DEEP: usize = 1_000_000;
    let errors = [
        decode::<Variant>(&b"\x01\x04Next".repeat(DEEP)).unwrap_err(),
        decode::<InTuple>(&b"\x01\x04Next\x07".repeat(DEEP)).unwrap_err(),
        decode::<InStruct>(&b"\x01\x04Next".repeat(DEEP)).unwrap_err(),
        decode::<Optional>(&[1; DEEP]).unwrap_err(),
        decode::<Listed>(&[1; DEEP]).unwrap_err(),
        decode::<Mapped>(&[1; DEEP]).unwrap_err(),
        decode::<Chained>(&[1; DEEP]).unwrap_err(),
    ];
    for error in errors {
        assert!(error.contains("at most 256 levels"), "{error}");
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![Just(Tree::Leaf), any::<i64>().prop_map(Tree::Number)];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            ("\\PC{0,300}", proptest::option::of(inner.clone()))
                .prop_map(|(name, next)| Tree::Node { name, next: next.map(Box::new) }),
            (proptest::collection::vec(inner.clone(), 0..6), 0..400_usize)
                .prop_map(|(nodes, units)| Tree::Nodes(nodes, vec![(); units])),
            proptest::collection::btree_map("[a-z]{0,3}", inner, 0..4).prop_map(Tree::Names),
        ]
    })
}

proptest! {
    #[test]
    fn values_come_back(tree in trees()) {
        let bytes = encode(&tree).unwrap();
        prop_assert_eq!(decode::<Tree>(&bytes).unwrap(), tree);
    }

    /// Nothing worse than an error, and no more than there was.
    #[test]
    fn garbage_is_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(tree) = decode::<Tree>(&bytes) {
            prop_assert!(encode(&tree).unwrap().len() <= bytes.len());
        }
        let _ = decode::<(Vec<String>, Option<Vec<BTreeMap<char, bool>>>)>(&bytes);
    }

    /// As the last one, near to what is right.
    #[test]
    fn a_changed_byte_is_a_value_or_an_error(
        tree in trees(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(&tree).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode::<Tree>(&bytes);
    }
}
