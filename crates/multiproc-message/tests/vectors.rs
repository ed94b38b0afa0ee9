//! The bytes of both formats, frozen: a change of any of them is a change of the protocols that use
//! it.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};

use multiproc_message::{Bytes, Format};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A line for each value: its name, its bytes in the native format, its bytes in postcard's format.
const FROZEN: &str = include_str!("vectors.txt");

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(u16);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(u8),
    Line(u8, u16),
    Rectangle { width: u8, height: u16 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    id: u64,
    name: String,
    tags: Vec<String>,
    parent: Option<Box<Record>>,
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Appends the line of a value after checking that decoding its bytes returns it.
fn line<T>(text: &mut String, name: &str, value: T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    write!(text, "{name}").unwrap();
    for format in [Format::Native, Format::Postcard] {
        let mut bytes = Vec::new();
        assert!(format.encode(&value, &mut bytes).unwrap().is_empty());
        assert_eq!(format.decode::<T>(&bytes, Vec::new()).unwrap(), value, "{name}");
        write!(text, " {}", hex(&bytes)).unwrap();
    }
    text.push('\n');
}

#[test]
fn bytes_of_both_formats_match_the_frozen_vectors() {
    let mut text = String::new();
    let out = &mut text;
    line(out, "bool", true);
    line(out, "u8", 200_u8);
    line(out, "i8", -2_i8);
    line(out, "u16", 0x1234_u16);
    line(out, "i16", -300_i16);
    line(out, "u32", 70_000_u32);
    line(out, "i32", -2_i32);
    line(out, "u64", u64::MAX);
    line(out, "i64", i64::MIN);
    line(out, "u128", 1_u128 << 120);
    line(out, "i128", -1_i128);
    line(out, "usize", 300_usize);
    line(out, "f32", 1.5_f32);
    line(out, "f64", -0.1_f64);
    line(out, "char", 'é');
    line(out, "string", "né".to_owned());
    line(out, "long-string", "x".repeat(300));
    line(out, "bytes", Bytes(vec![0, 127, 128, 255]));
    line(out, "unit", ());
    line(out, "unit-struct", Unit);
    line(out, "newtype-struct", Wrapped(1));
    line(out, "tuple", (1_u8, (2_u16, 3_u32)));
    line(out, "array", [1_u8, 2]);
    line(out, "none", None::<u8>);
    line(out, "some", Some(Some(5_u8)));
    line(out, "unit-variant", Shape::Point);
    line(out, "newtype-variant", Shape::Circle(9));
    line(out, "tuple-variant", Shape::Line(1, 300));
    line(out, "struct-variant", Shape::Rectangle { width: 3, height: 400 });
    line(out, "sequence", vec![1_u16, 300]);
    line(out, "units", vec![(), (), ()]);
    line(out, "map", BTreeMap::from([(1_u8, "x".to_owned()), (2, String::new())]));
    let parent = Record { id: 1, name: "a".to_owned(), tags: Vec::new(), parent: None };
    let tags = vec!["x".to_owned(), "yz".to_owned()];
    line(
        out,
        "record",
        Record { id: 300, name: "b".to_owned(), tags, parent: Some(Box::new(parent)) },
    );
    assert_eq!(text, FROZEN);
}
