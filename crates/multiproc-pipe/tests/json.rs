//! `Json`, for types that the message format alone cannot hold. With the feature `json`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::io::Read;

use multiproc_pipe::{Descriptor, Json, duplex, message};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    message::encode(value, &mut bytes).map_err(|error| error.reason().to_owned())?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    message::decode(bytes, Vec::new()).map_err(|error| error.reason().to_owned())
}

/// Asserts that each of these values arrives unchanged between other values.
#[track_caller]
fn arrive<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    values: impl IntoIterator<Item = T>,
) {
    let (left, right) = duplex::<(u8, Json<T>, u8), ()>().unwrap();
    for value in values {
        let text = serde_json::to_string(&value).unwrap();
        left.send((1, Json(value), 2)).unwrap();
        let (before, Json(value), after) = right.recv().unwrap();
        assert_eq!((before, after), (1, 2));
        assert_eq!(serde_json::to_string(&value).unwrap(), text);
        assert_eq!(decode::<Json<T>>(&encode(&Json(&value)).unwrap()).unwrap().0, value);
    }
}

#[test]
fn json_value_arrives() {
    arrive([json!(null), json!([1, -2.5, "x", { "a": [true], "b": {} }]), json!(u64::MAX)]);
}

#[test]
fn untagged_enum_arrives() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
        Point { x: u8, y: u8 },
        Nothing,
    }
    arrive([
        Either::Number(7),
        Either::Text("x".to_owned()),
        Either::Point { x: 1, y: 2 },
        Either::Nothing,
    ]);
}

#[test]
fn internally_tagged_enum_arrives() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Event {
        Started,
        Moved { to: String },
        Inner(Inner),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Inner {
        number: u32,
    }
    arrive([
        Event::Started,
        Event::Moved { to: "x".to_owned() },
        Event::Inner(Inner { number: 7 }),
    ]);
}

#[test]
fn adjacently_tagged_enum_arrives() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", content = "of")]
    enum Event {
        Started,
        Moved { to: String },
        Number(u32),
    }
    arrive([Event::Started, Event::Moved { to: "x".to_owned() }, Event::Number(3)]);
}

#[test]
fn flattened_fields_arrive() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Open {
        id: u32,
        #[serde(flatten)]
        more: BTreeMap<String, Value>,
    }
    let more = BTreeMap::from([("a".to_owned(), json!(1)), ("b".to_owned(), json!(["x"]))]);
    arrive([Open { id: 7, more }, Open { id: 8, more: BTreeMap::new() }]);
}

#[test]
fn skipped_fields_arrive_with_their_defaults() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sparse {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        a: Option<u32>,
        b: u32,
    }
    arrive([Sparse { a: None, b: 1 }, Sparse { a: Some(2), b: 3 }]);
}

#[test]
fn nesting_beyond_the_limit_is_refused_when_encoding() {
    let nested = |depth| (1..depth).fold(json!([]), |inner, _| json!([inner]));
    let objects = |depth| (1..depth).fold(json!({}), |inner, _| json!({ "a": inner }));
    arrive([nested(127), objects(127)]);
    for value in [nested(128), objects(128), nested(1000)] {
        let error = encode(&Json(value)).unwrap_err();
        assert!(error.contains("127"), "{error}");
    }
    let deep = serde_json::to_vec(&nested(128)).unwrap();
    serde_json::from_slice::<Value>(&deep).expect_err("the bound is serde_json's own");
    // A long sequence is not a deep nesting.
    arrive([json!(vec![json!([[]]); 1000])]);
}

#[test]
fn value_without_a_json_form_is_refused() {
    let error = encode(&Json(BTreeMap::from([(vec![1], 2)]))).unwrap_err();
    assert!(error.contains("key must be a string"), "{error}");
    let error = decode::<Json<u8>>(&encode(&Json("x")).unwrap()).unwrap_err();
    assert!(error.contains("invalid type"), "{error}");
    decode::<Json<Value>>(&[3, b'[', b'1', 0xff]).unwrap_err();
    decode::<Json<Value>>(&[3, b'1', b' ', b'2']).unwrap_err();
}

#[test]
fn handle_in_json_arrives() {
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Log {
        File { file: Descriptor, name: String },
    }
    let (left, right) = duplex::<Json<Log>, ()>().unwrap();
    let file = File::open("/dev/zero").unwrap().into();
    left.send(Json(Log::File { file, name: "zero".to_owned() })).unwrap();
    let Json(Log::File { file, name }) = right.recv().unwrap();
    let mut bytes = [1; 3];
    File::from(file).read_exact(&mut bytes).unwrap();
    assert_eq!((bytes, &*name), ([0; 3], "zero"));
}

#[test]
fn json_wrapper_in_plain_json_is_transparent() {
    assert_eq!(serde_json::to_string(&[Json(1), Json(2)]).unwrap(), "[1,2]");
    assert_eq!(serde_json::from_str::<Json<Vec<u8>>>("[1,2]").unwrap(), Json(vec![1, 2]));
}
