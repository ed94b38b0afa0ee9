//! Variants in the format of postcard, which have different numbers for writing and reading.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::net::IpAddr;
use std::ops::Bound;

use multiproc_message::{Descriptor, Format, encode_numbered, variant_numbers};
use serde::de::{DeserializeOwned, EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Sends a value as a connection does.
fn send<T: Serialize + DeserializeOwned>(value: &T) -> Result<T, String> {
    let mut bytes = Vec::new();
    let handles = encode_numbered(value, &mut bytes, &variant_numbers::<T>());
    let descriptors = match handles.map_err(|error| error.reason().to_owned())? {
        Some(mut handles) => handles.take_descriptors(),
        None => Vec::new(),
    };
    Ok(Format::Postcard.decode(&bytes, descriptors).unwrap())
}

/// Asserts that each of these values arrives unchanged.
#[track_caller]
fn arrive<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    values: impl IntoIterator<Item = T>,
) {
    for value in values {
        assert_eq!(send(&value).unwrap(), value);
    }
}

/// Asserts that each of these values is refused.
#[track_caller]
fn refused<T: Serialize + DeserializeOwned + Debug>(values: impl IntoIterator<Item = T>) {
    for value in values {
        let error = send(&value).unwrap_err();
        assert!(error.contains("behind all others"), "{value:?}: {error}");
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Skipping {
    Started,
    #[serde(skip)]
    #[allow(dead_code)]
    Local,
    Finished(u32),
    Moved {
        to: u32,
    },
}

#[test]
fn variant_after_a_skipped_one_is_refused_wherever_it_is() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holds {
        name: String,
        events: BTreeMap<u8, Vec<Option<Skipping>>>,
        result: Result<u8, Skipping>,
    }
    let holds = |event: fn() -> Skipping| Holds {
        name: "name".to_owned(),
        events: BTreeMap::from([(1, vec![None, Some(event())])]),
        result: Ok(1),
    };
    arrive([Skipping::Started]);
    refused([Skipping::Finished(7), Skipping::Moved { to: 8 }]);
    arrive([holds(|| Skipping::Started)]);
    refused([holds(|| Skipping::Finished(7))]);
    refused([(1_u8, Err::<u8, _>(Skipping::Moved { to: 1 }))]);
    // And again, from what is known.
    refused([Skipping::Finished(7)]);
    assert_eq!(
        send(&Skipping::Finished(7)).unwrap_err(),
        "the variant `Finished` of the enum `Skipping` is written as number 2, which the receiver \
         would read as another variant: move the variants with serde's `skip`, `skip_serializing` \
         or `skip_deserializing` behind all others, and let both directions use the same names"
    );
}

#[test]
fn skipped_variants_behind_the_others_change_nothing() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        Started,
        Finished(u32),
        #[serde(skip)]
        #[allow(dead_code)]
        Local,
        #[serde(skip)]
        #[allow(dead_code)]
        Other(u32),
    }
    arrive([Event::Started, Event::Finished(7)]);
    let error = send(&Event::Local).unwrap_err();
    assert!(error.contains("cannot be serialized"), "{error}");
}

#[test]
fn single_variant_after_a_skipped_one_is_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        #[serde(skip)]
        #[allow(dead_code)]
        Local,
        Started,
    }
    refused([Event::Started]);
}

#[test]
fn variant_that_is_only_written_is_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        Started,
        #[serde(skip_deserializing)]
        Local(u32),
        Finished(u32),
    }
    arrive([Event::Started]);
    refused([Event::Local(1), Event::Finished(1)]);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Last {
        Started,
        #[serde(skip_deserializing)]
        Local(u32),
    }
    arrive([Last::Started]);
    refused([Last::Local(1)]);
}

#[test]
fn variant_that_is_only_read_changes_nothing() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        Started,
        #[serde(skip_serializing)]
        #[allow(dead_code)]
        Local(u32),
        Finished(u32),
    }
    arrive([Event::Started, Event::Finished(7)]);
}

#[test]
fn variant_with_several_names_is_found_by_each() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        #[serde(alias = "a", alias = "b", rename = "z")]
        Started(u8),
        #[serde(alias = "c")]
        Ended,
        Failed,
    }
    arrive([Event::Started(1), Event::Ended, Event::Failed]);

    // The position in the list of names is that of the number, by chance.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Both {
        #[serde(alias = "a")]
        Started(u8),
        #[serde(skip)]
        #[allow(dead_code)]
        Local,
        Ended,
        Failed,
    }
    arrive([Both::Started(1)]);
    refused([Both::Ended, Both::Failed]);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Apart {
        #[serde(rename(serialize = "there", deserialize = "here"))]
        Moved,
        Stopped,
    }
    arrive([Apart::Stopped]);
    refused([Apart::Moved]);
}

#[test]
fn other_reads_all_numbers_that_are_left() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Open {
        Started,
        Ended(u8),
        #[serde(other)]
        Unknown,
    }
    arrive([Open::Started, Open::Ended(1), Open::Unknown]);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Skips {
        Started,
        #[serde(skip)]
        #[allow(dead_code)]
        Local,
        #[serde(skip)]
        #[allow(dead_code)]
        Other,
        #[serde(other)]
        Unknown,
    }
    arrive([Skips::Started, Skips::Unknown]);
}

#[test]
fn enums_of_one_name_are_told_apart() {
    mod inner {
        use super::*;

        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        pub(super) enum Skipping {
            Moved,
            Finished(u32),
        }
    }
    arrive([(Skipping::Started, inner::Skipping::Moved, inner::Skipping::Finished(1))]);
    refused([(Skipping::Finished(1), inner::Skipping::Moved)]);
}

#[test]
fn types_that_contain_themselves_or_handles_are_checked() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Tree {
        #[serde(skip)]
        #[allow(dead_code)]
        Cached,
        Leaf,
        Node(Vec<Tree>),
    }
    refused([Tree::Leaf, Tree::Node(Vec::new())]);
    #[derive(Serialize, Deserialize)]
    struct Holds {
        file: Descriptor,
        event: Skipping,
    }
    let file = || Descriptor::from(std::fs::File::open("/dev/null").unwrap());
    send(&Holds { file: file(), event: Skipping::Started }).unwrap();
    assert!(send(&Holds { file: file(), event: Skipping::Finished(1) }).is_err());
}

#[test]
fn enums_of_std_arrive() {
    arrive([Ok::<u8, String>(1), Err("no".to_owned())]);
    arrive([IpAddr::from([127, 0, 0, 1]), "::1".parse().unwrap()]);
    arrive([Bound::Unbounded, Bound::Included(1), Bound::Excluded(2)]);
    arrive([Format::Native, Format::Postcard]);
}

/// Reads its variants by code of its own, from any number.
#[derive(Debug, PartialEq)]
struct ByHand(u32);

impl Serialize for ByHand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit_variant("ByHand", self.0, "Some")
    }
}

impl<'de> Deserialize<'de> for ByHand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByNumber;
        impl<'de> Visitor<'de> for ByNumber {
            type Value = ByHand;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<ByHand, A::Error> {
                let (number, content) = data.variant::<u32>()?;
                content.unit_variant()?;
                Ok(ByHand(number))
            }
        }
        deserializer.deserialize_enum("ByHand", &["One", "Two"], ByNumber)
    }
}

#[test]
fn variants_that_are_read_by_hand_are_not_checked() {
    arrive([ByHand(0), ByHand(1), ByHand(70)]);
}

#[test]
fn type_that_panics_while_it_is_traced_is_not_checked() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holds(Panics, Skipping);
    #[derive(Debug, PartialEq, Serialize)]
    struct Panics;
    impl<'de> Deserialize<'de> for Panics {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            static CALLS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let calls = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert!(calls > 0, "on purpose");
            <()>::deserialize(deserializer).map(|()| Self)
        }
    }
    arrive([Holds(Panics, Skipping::Started)]);
}
