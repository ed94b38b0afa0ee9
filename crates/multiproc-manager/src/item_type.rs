//! The item type of a queue: its name, and a hash of its schema.
//!
//! A type without a schema (one whose `Deserialize` asks for any type, for example) is compared by
//! name alone.

use std::any::type_name;

use multiproc_message::{SchemaHash, shape_of};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A longer name is truncated, and ends in a hash of the whole.
const LONGEST_NAME: usize = 1024;

/// An item type, in the form that managers compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ItemType {
    pub(crate) name: String,
    shape: Option<u64>,
}

impl ItemType {
    pub(crate) fn of<T: DeserializeOwned>() -> Self {
        Self { name: short(type_name::<T>()), shape: shape_of::<T>() }
    }

    /// Returns `true` if the manager may store it and show it to other clients.
    pub(crate) fn is_valid(&self) -> bool {
        self.name.len() <= LONGEST_NAME && !self.name.chars().any(char::is_control)
    }
}

fn short(name: &str) -> String {
    if name.len() <= LONGEST_NAME {
        return name.to_owned();
    }
    let mut hash = SchemaHash::default();
    hash.text(name);
    let cut = (0..=LONGEST_NAME - 20).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
    format!("{}…{:016x}", &name[..cut], hash.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_without_a_schema_has_its_name() {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Untagged {
            _Number(#[allow(dead_code)] u8),
        }
        let item = ItemType::of::<Untagged>();
        assert_eq!((&*item.name, item.shape), (type_name::<Untagged>(), None));
        assert!(ItemType::of::<Vec<u8>>().shape.is_some());
    }

    #[test]
    fn long_name_is_truncated_and_stays_unique() {
        let (one, other) = ("x".repeat(1 << 16), "x".repeat((1 << 16) + 1));
        assert!(short(&one).len() <= LONGEST_NAME);
        assert_ne!(short(&one), short(&other));
        assert_eq!(short("u8"), "u8");
    }
}
