//! The serde attributes that are supported: the table in docs/formats.md, row by row.

use std::fmt::{self, Debug};

use multiproc_message as message;
use serde::de::{DeserializeOwned, EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(message::encode(value, &mut bytes).unwrap().is_empty());
    bytes
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    message::decode(bytes, Vec::new()).map_err(|error| error.reason().to_owned())
}

/// Asserts that each of these values arrives unchanged.
#[track_caller]
fn arrive<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    values: impl IntoIterator<Item = T>,
) {
    for value in values {
        let bytes = encode(&(&value, 0xfefe_u16));
        assert_eq!(decode::<(T, u16)>(&bytes).unwrap(), (value, 0xfefe));
    }
}

#[test]
fn variant_after_a_skipped_one_arrives_unchanged() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        Started,
        #[serde(skip)]
        #[allow(dead_code)]
        Local,
        Finished(u32),
        #[serde(skip)]
        #[allow(dead_code)]
        Other(u32),
        Failed(u32),
        Moved {
            to: u32,
        },
    }
    arrive([Event::Started, Event::Finished(7), Event::Failed(8), Event::Moved { to: 9 }]);
    let error = message::encode(&Event::Local, &mut Vec::new()).unwrap_err();
    assert!(error.reason().contains("cannot be serialized"), "{error}");
}

#[test]
fn variant_that_is_only_serialized_is_refused_when_decoding() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        Started,
        #[serde(skip_deserializing)]
        Local(u32),
        Finished(u32),
        Failed(u32),
    }
    arrive([Event::Started, Event::Finished(7), Event::Failed(8)]);
    let error = decode::<Event>(&encode(&Event::Local(5))).unwrap_err();
    assert!(error.contains("got `Local`") && error.contains("skip_deserializing"), "{error}");

    // Not even `other` accepts it, because its content would be read as the next value.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Open {
        #[serde(skip_deserializing)]
        Local(u32),
        Started,
        #[serde(other)]
        Unknown,
    }
    arrive([Open::Started, Open::Unknown]);
    let error = decode::<Open>(&encode(&Open::Local(5))).unwrap_err();
    assert!(error.contains("got `Local`"), "{error}");
}

#[test]
fn variant_that_is_only_deserialized_is_refused_when_encoding() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        Started,
        #[serde(skip_serializing)]
        Local(u32),
        Finished(u32),
    }
    arrive([Event::Started, Event::Finished(7)]);
    message::encode(&Event::Local(5), &mut Vec::new()).unwrap_err();
}

#[test]
fn renamed_variants_arrive() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Event {
        // The variant has three names, and the last one is written.
        #[serde(alias = "a", alias = "b", rename = "z")]
        Started(u32),
        #[serde(skip)]
        #[allow(dead_code)]
        Local,
        IsFinished(u32),
        #[serde(alias = "IsFailed")]
        IsFailed(u32),
        #[serde(rename = "Fertig!")]
        Done,
    }
    arrive([Event::Started(1), Event::IsFinished(2), Event::IsFailed(3), Event::Done]);

    #[derive(Debug, Serialize)]
    enum Written {
        #[serde(rename = "IsFailed")]
        _One(u32),
    }
    assert_eq!(decode::<Event>(&encode(&Written::_One(4))), Ok(Event::IsFailed(4)));

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Apart {
        #[serde(rename(serialize = "there", deserialize = "here"))]
        Moved,
    }
    let error = decode::<Apart>(&encode(&Apart::Moved)).unwrap_err();
    assert!(error.contains("got `there`") && error.contains("`here`"), "{error}");
}

#[test]
fn enums_of_std_arrive() {
    arrive([Ok::<u8, String>(1), Err("no".to_owned())]);
    arrive([std::net::IpAddr::from([127, 0, 0, 1]), std::net::IpAddr::from([0; 16])]);
    arrive([std::ops::Bound::Included(1), std::ops::Bound::Unbounded]);
}

/// A type that supports only formats that number variants, and requests the number.
#[derive(Debug, PartialEq)]
struct ByNumber<I>(u32, std::marker::PhantomData<I>);

impl<I> Serialize for ByNumber<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = ["zero", "one", "two", "three"][self.0 as usize];
        serializer.serialize_newtype_variant("ByNumber", self.0, name, &self.0)
    }
}

impl<'de, I: Deserialize<'de> + Into<Number>> Deserialize<'de> for ByNumber<I> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Variants<I>(std::marker::PhantomData<I>);
        impl<'de, I: Deserialize<'de> + Into<Number>> Visitor<'de> for Variants<I> {
            type Value = ByNumber<I>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number's variant")
            }
            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<ByNumber<I>, A::Error> {
                let (number, variant) = data.variant::<I>()?;
                let content: u32 = variant.newtype_variant()?;
                assert_eq!(number.into().0, content);
                Ok(ByNumber(content, std::marker::PhantomData))
            }
        }
        // It does not name its variants.
        deserializer.deserialize_enum("ByNumber", &[], Variants(std::marker::PhantomData))
    }
}

#[derive(Debug, PartialEq)]
struct Number(u32);

impl From<u32> for Number {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self(u32::try_from(number).unwrap())
    }
}

impl From<String> for Number {
    fn from(name: String) -> Self {
        let names = ["zero", "one", "two", "three"];
        Self(u32::try_from(names.iter().position(|known| *known == name).unwrap()).unwrap())
    }
}

#[derive(Debug, PartialEq, Deserialize)]
struct Wrapped(u32);

impl From<Wrapped> for Number {
    fn from(wrapped: Wrapped) -> Self {
        Self(wrapped.0)
    }
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(variant_identifier, rename_all = "lowercase")]
enum Identifier {
    Zero,
    One,
    Two,
    Three,
}

impl From<Identifier> for Number {
    fn from(identifier: Identifier) -> Self {
        Self(identifier as u32)
    }
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Plain {
    Zero,
    One,
    Two,
    Three,
}

impl From<Plain> for Number {
    fn from(plain: Plain) -> Self {
        Self(plain as u32)
    }
}

#[test]
fn variant_of_a_manual_impl_is_identified_by_number_or_name() {
    fn arrives<I: DeserializeOwned + Into<Number> + Debug + PartialEq>() {
        arrive([ByNumber::<I>(0, std::marker::PhantomData), ByNumber(3, std::marker::PhantomData)]);
    }
    arrives::<u32>();
    arrives::<u64>();
    arrives::<String>();
    arrives::<Wrapped>();
    arrives::<Identifier>();
    arrives::<Plain>();
}

#[test]
fn long_forged_variant_name_is_not_repeated_in_the_error() {
    #[derive(Debug, Serialize, Deserialize)]
    enum One {
        Known,
    }
    let mut bytes = vec![0, 255];
    bytes.extend_from_slice(&1_000_000_u64.to_le_bytes());
    bytes.resize(bytes.len() + 1_000_000, b'x');
    let error = decode::<One>(&bytes).unwrap_err();
    assert!(error.contains("`Known`") && error.len() < 400, "{error}");
    let error = decode::<One>(&[0, 3, 0xff, 0xfe, 0xfd]).unwrap_err();
    assert!(error.contains("`Known`"), "{error}");
}

#[test]
fn renamed_and_skipped_fields_arrive() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Fields {
        #[serde(rename(serialize = "there", deserialize = "here"))]
        first_one: u8,
        #[serde(skip)]
        local: String,
        #[serde(alias = "a", alias = "b", default)]
        second_one: u16,
        #[serde(skip, default = "seven")]
        other: u8,
        last: Option<u32>,
    }
    fn seven() -> u8 {
        7
    }
    let fields = |local: &str, other| Fields {
        first_one: 1,
        local: local.to_owned(),
        second_one: 2,
        other,
        last: Some(3),
    };
    arrive([fields("", 7)]);
    // A skipped field gets a new value on arrival.
    assert_eq!(decode::<Fields>(&encode(&fields("x", 9))).unwrap(), fields("", 7));

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Tuple(u8, #[serde(skip)] String, u16);
    arrive([Tuple(1, String::new(), 2)]);
}

#[test]
fn converted_fields_arrive() {
    mod reversed {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        pub(super) fn serialize<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
            text.chars().rev().collect::<String>().serialize(to)
        }

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
            Ok(String::deserialize(from)?.chars().rev().collect())
        }
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct With {
        #[serde(with = "reversed")]
        text: String,
        #[serde(
            serialize_with = "reversed::serialize",
            deserialize_with = "reversed::deserialize"
        )]
        other: String,
    }
    arrive([With { text: "abc".to_owned(), other: "de".to_owned() }]);

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(into = "u32", try_from = "u32")]
    struct Even(u32);
    impl From<Even> for u32 {
        fn from(Even(half): Even) -> u32 {
            half * 2
        }
    }
    impl TryFrom<u32> for Even {
        type Error = String;
        fn try_from(number: u32) -> Result<Self, String> {
            if number.is_multiple_of(2) {
                Ok(Self(number / 2))
            } else {
                Err(format!("{number} is odd"))
            }
        }
    }
    arrive([Even(7)]);
    assert!(decode::<Even>(&encode(&7_u32)).unwrap_err().contains("7 is odd"));

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Thin {
        inner: Vec<u16>,
    }
    arrive([Thin { inner: vec![1, 2] }]);
    assert_eq!(encode(&Thin { inner: vec![1] }), encode(&vec![1_u16]));
}

#[test]
fn remote_type_arrives() {
    /// Stands for a type of another crate.
    #[derive(Debug, PartialEq)]
    enum Remote {
        Off,
        On { level: u8 },
    }
    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Remote")]
    enum RemoteDef {
        Off,
        On { level: u8 },
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holds(#[serde(with = "RemoteDef")] Remote);
    arrive([Holds(Remote::Off), Holds(Remote::On { level: 3 })]);
}

#[test]
fn conditionally_skipped_field_is_refused_when_encoding() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        here: Option<u8>,
        there: u8,
    }
    arrive([Sparse { here: Some(1), there: 2 }]);
    let sparse = Sparse { here: None, there: 2 };
    let error = message::encode(&sparse, &mut Vec::new()).unwrap_err();
    assert!(error.reason().contains("skip_serializing_if"), "{error}");
}

#[test]
fn self_describing_type_is_refused_with_a_hint() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u32),
        Text { text: String },
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Started,
        Moved { to: String },
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", content = "of")]
    enum Adjacent {
        Started,
        Number(u32),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        id: u32,
        #[serde(flatten)]
        more: std::collections::BTreeMap<String, u32>,
    }
    let more = [("a".to_owned(), 1)].into();
    let errors = [
        decode::<Untagged>(&encode(&Untagged::Number(7))).unwrap_err(),
        decode::<Untagged>(&encode(&Untagged::Text { text: "x".to_owned() })).unwrap_err(),
        decode::<Tagged>(&encode(&Tagged::Started)).unwrap_err(),
        decode::<Tagged>(&encode(&Tagged::Moved { to: "x".to_owned() })).unwrap_err(),
        decode::<Adjacent>(&encode(&Adjacent::Started)).unwrap_err(),
        decode::<Adjacent>(&encode(&Adjacent::Number(7))).unwrap_err(),
        decode::<Flat>(&encode(&Flat { id: 7, more })).unwrap_err(),
    ];
    for error in errors {
        assert!(error.contains("`Json`"), "{error}");
    }
}
