use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::fs::File;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

use super::EMPTY_ELEMENTS;
use crate::{Descriptor, Format, native::DEEPEST};

fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0xaa];
    match Format::Postcard.encode(value, &mut bytes) {
        Ok(descriptors) => {
            assert!(descriptors.is_empty());
            Ok(bytes.split_off(1))
        }
        Err(error) => {
            assert_eq!(bytes, [0xaa], "a failed encode leaves nothing behind");
            Err(error.reason().to_owned())
        }
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    Format::Postcard.decode(bytes, Vec::new()).map_err(|error| error.reason().to_owned())
}

/// Checks that a value has the bytes of the crate, and that fewer and more are refused.
#[track_caller]
fn agrees<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let bytes = ::postcard::to_allocvec(&value).unwrap();
    assert_eq!(encode(&value).unwrap(), bytes);
    assert_eq!(decode::<T>(&bytes).unwrap(), value);
    for cut in 0..bytes.len() {
        decode::<T>(&bytes[..cut]).unwrap_err();
    }
    let error = decode::<T>(&[&bytes[..], &[0]].concat()).unwrap_err();
    assert_eq!(error, "1 bytes are left over");
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Number(i64),
    Pair(u8, Option<Box<Tree>>),
    Node { name: String, next: Option<Box<Tree>> },
    Nodes(Vec<Tree>, Vec<()>),
    Names(BTreeMap<String, Tree>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(u16);

#[test]
fn each_kind_of_value_has_the_bytes_of_the_crate() {
    agrees((true, -2_i8, 300_u16, -70_000_i32, u64::MAX, i64::MIN));
    agrees((u128::MAX, i128::MIN, 1.5_f32, -0.1_f64, 'é', 7_usize));
    agrees(("né".to_owned(), (), Unit, Wrapped(1), [1_u8, 2], Some(Some(5_u8)), None::<u8>));
    agrees(BTreeMap::from([(1_u8, "x".to_owned()), (2, String::new())]));
    agrees(HashSet::from([()]));
    agrees(vec![(), (), ()]);
    agrees(crate::Bytes(vec![1, 2, 3]));
    agrees(Ok::<u8, String>(1));
    agrees(std::net::IpAddr::from([127, 0, 0, 1]));
    agrees(std::time::Duration::from_millis(1500));
}

#[test]
fn sequence_of_unknown_length_has_the_bytes_of_a_known_one() {
    struct Odd(Vec<u8>);
    impl Serialize for Odd {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(self.0.iter().filter(|number| *number % 2 == 1))
        }
    }
    let bytes = encode(&(9_u8, Odd(vec![1, 2, 3]), 4_u8)).unwrap();
    assert_eq!(bytes, encode(&(9_u8, vec![1_u8, 3], 4_u8)).unwrap());
}

#[test]
fn handles_are_sent_beside_the_bytes() {
    let mut bytes = Vec::new();
    let null = || Descriptor::from(File::open("/dev/null").unwrap());
    let descriptors = Format::Postcard.encode(&(1_u8, null(), null()), &mut bytes).unwrap();
    assert_eq!((descriptors.len(), &bytes[..]), (2, &[1, 0, 1][..]));
    let decode = |bytes: &[u8], descriptors| {
        Format::Postcard.decode::<(u8, Descriptor, Descriptor)>(bytes, descriptors)
    };
    decode(&bytes, descriptors).unwrap();
    let descriptors = vec![null().into(), null().into()];
    decode(&[1, 0, 0], descriptors).unwrap_err();
    decode(&bytes, Vec::new()).unwrap_err();
}

#[test]
fn value_with_too_many_levels_is_refused_by_both_sides() {
    let levels = |count| {
        // Each node takes two: a variant and an option.
        (0..count).fold(Tree::Leaf, |tree, _| Tree::Pair(1, Some(Box::new(tree))))
    };
    let most = (DEEPEST as usize - 1) / 2;
    agrees(levels(most));
    assert_eq!(decode::<Tree>(&encode(&levels(most)).unwrap()).unwrap(), levels(most));
    let deeper = levels(most + 1);
    let error = encode(&deeper).unwrap_err();
    assert_eq!(decode::<Tree>(&::postcard::to_allocvec(&deeper).unwrap()).unwrap_err(), error);
    decode::<Tree>(&[2, 1, 1].repeat(1_000_000)).unwrap_err();
}

#[test]
fn elements_without_bytes_are_limited_by_both_sides() {
    let most = vec![(); EMPTY_ELEMENTS];
    agrees((most.clone(), 1_u8));
    let more = vec![(); EMPTY_ELEMENTS + 10];
    encode(&more).unwrap_err();
    decode::<Vec<()>>(&::postcard::to_allocvec(&more).unwrap()).unwrap_err();
    // Many sequences, each within the limit.
    let many = vec![most.clone(); 3];
    encode(&many).unwrap_err();
    decode::<Vec<Vec<()>>>(&::postcard::to_allocvec(&many).unwrap()).unwrap_err();
    // A count alone takes no time and reserves no memory.
    let huge = ::postcard::to_allocvec(&u64::MAX).unwrap();
    decode::<Vec<()>>(&huge).unwrap_err();
    decode::<Vec<u64>>(&huge).unwrap_err();
    decode::<String>(&huge).unwrap_err();
}

#[test]
fn reasons_of_a_type_are_kept() {
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "u8")]
    struct Even(#[allow(dead_code)] u8);
    impl TryFrom<u8> for Even {
        type Error = String;
        fn try_from(number: u8) -> Result<Self, String> {
            if number.is_multiple_of(2) {
                Ok(Self(number))
            } else {
                Err(format!("{number} is odd"))
            }
        }
    }
    assert_eq!(decode::<Even>(&[7]).unwrap_err(), "7 is odd");
    assert_eq!(decode::<Even>(&[8]).unwrap().0, 8);
    decode::<Tree>(&[6]).unwrap_err();
    decode::<bool>(&[2]).unwrap_err();
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![Just(Tree::Leaf), any::<i64>().prop_map(Tree::Number)];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            ("\\PC{0,300}", proptest::option::of(inner.clone()))
                .prop_map(|(name, next)| Tree::Node { name, next: next.map(Box::new) }),
            (any::<u8>(), proptest::option::of(inner.clone()))
                .prop_map(|(number, next)| Tree::Pair(number, next.map(Box::new))),
            (proptest::collection::vec(inner.clone(), 0..6), 0..400_usize)
                .prop_map(|(nodes, units)| Tree::Nodes(nodes, vec![(); units])),
            proptest::collection::btree_map("[a-z]{0,3}", inner, 0..4).prop_map(Tree::Names),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_has_the_bytes_of_the_crate(tree in trees()) {
        let bytes = ::postcard::to_allocvec(&tree).unwrap();
        prop_assert_eq!(&encode(&tree).unwrap(), &bytes);
        prop_assert_eq!(decode::<Tree>(&bytes).unwrap(), tree);
    }

    /// The crate decodes what this module decodes, and nothing that this module refuses for other
    /// reasons than its limits.
    #[test]
    fn garbage_is_decoded_as_by_the_crate(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(tree) = decode::<Tree>(&bytes) {
            prop_assert_eq!(::postcard::from_bytes::<Tree>(&bytes).unwrap(), tree);
        }
        let _ = decode::<(Vec<String>, Option<Vec<BTreeMap<char, bool>>>)>(&bytes);
    }
}
