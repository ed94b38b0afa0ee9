//! The type of what is in an object: its name, and a hash that decides whether two types match.
//!
//! For the items of a queue, the hash is that of the schema: what the type's `Deserialize` asks
//! for. For plain data in a mutex or a table, it covers the name and the layout. A type without a
//! schema (one whose `Deserialize` asks for any type, for example) is compared by name.

use std::any::type_name;

use multiproc_message::{SchemaHash, schema_name, shape_of};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A longer name is truncated, and ends in a hash of the whole.
pub(crate) const LONGEST_NAME: usize = 1024;

/// A type, in the form that managers compare.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ItemType {
    pub(crate) name: String,
    shape: Option<u64>,
}

impl ItemType {
    /// The type of the items of a queue.
    pub(crate) fn of<T: DeserializeOwned>() -> Self {
        let own = without_paths(type_name::<T>());
        // A name of serde's says more than the compiler's only if it was chosen: it lacks the
        // arguments of a generic type.
        let chosen = schema_name::<T>().filter(|name| own.split('<').next() != Some(name));
        Self { name: short(chosen.unwrap_or(&own)), shape: shape_of::<T>() }
    }

    /// The type of plain data.
    pub(crate) fn of_plain<T>() -> Self {
        let name = without_paths(type_name::<T>());
        let mut hash = SchemaHash::default();
        hash.text("plain");
        hash.text(&name);
        hash.text(&format!("{} {}", size_of::<T>(), align_of::<T>()));
        Self { name: short(&name), shape: Some(hash.value()) }
    }

    /// Returns `true` if a client that asks for this type can use an object of the other one.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        match (self.shape, other.shape) {
            (Some(one), Some(other)) => one == other,
            _ => self.name == other.name,
        }
    }

    /// Returns `true` if the manager may store it and show it to other clients.
    pub(crate) fn is_valid(&self) -> bool {
        self.name.len() <= LONGEST_NAME && !self.name.chars().any(char::is_control)
    }
}

/// Removes the paths of types in a name of the compiler's, which begin with the name of a program.
/// Those of std stay, which are the same in all programs.
fn without_paths(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    // Where the path that is being read begins.
    let mut begin = 0;
    let mut rest = name;
    while let Some(next) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("::") {
            if ["std", "core", "alloc"].iter().any(|of_std| text[begin..].starts_with(of_std)) {
                text.push_str("::");
            } else {
                text.truncate(begin);
            }
            rest = after;
            continue;
        }
        text.push(next);
        rest = &rest[next.len_utf8()..];
        if !(next.is_alphanumeric() || next == '_') {
            begin = text.len();
        }
    }
    text
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

    mod one {
        #[derive(serde::Deserialize)]
        #[allow(dead_code)]
        pub(crate) struct Job {
            id: u32,
        }
    }

    mod other {
        #[derive(serde::Deserialize)]
        #[allow(dead_code)]
        pub(crate) struct Job {
            id: u32,
        }

        #[derive(serde::Deserialize)]
        #[serde(rename = "Job")]
        #[allow(dead_code)]
        pub(crate) struct Renamed {
            id: u32,
        }

        #[derive(serde::Deserialize)]
        #[allow(dead_code)]
        pub(crate) struct Envelope<T> {
            content: T,
        }
    }

    #[test]
    fn types_of_one_schema_match_whatever_their_paths_are() {
        let job = ItemType::of::<one::Job>();
        assert_eq!(job.name, "Job");
        for same in [ItemType::of::<other::Job>(), ItemType::of::<other::Renamed>()] {
            assert!(job.matches(&same) && same.matches(&job));
            assert_eq!(same.name, "Job");
        }
        assert!(!job.matches(&ItemType::of::<u32>()));
        let of_job = ItemType::of::<other::Envelope<Vec<one::Job>>>();
        assert_eq!(of_job.name, "Envelope<alloc::vec::Vec<Job>>");
        assert!(!of_job.matches(&ItemType::of::<other::Envelope<u8>>()));
    }

    #[test]
    fn names_lose_the_paths_of_programs() {
        for (name, without) in [
            ("u8", "u8"),
            ("(u8, alloc::string::String)", "(u8, alloc::string::String)"),
            ("shop::orders::Order", "Order"),
            ("alloc::vec::Vec<shop::Order>", "alloc::vec::Vec<Order>"),
            (
                "shop::A<shop::b::B, [core::option::Option<shop::C>; 4]>",
                "A<B, [core::option::Option<C>; 4]>",
            ),
            ("&dyn shop::Trait", "&dyn Trait"),
            ("größe::Maß", "Maß"),
            ("", ""),
        ] {
            assert_eq!(without_paths(name), without);
        }
    }

    #[test]
    fn plain_types_differ_by_name_and_layout() {
        let of_u64 = ItemType::of_plain::<u64>();
        assert!(of_u64.matches(&ItemType::of_plain::<u64>()));
        assert!(!of_u64.matches(&ItemType::of_plain::<f64>()));
        assert!(!of_u64.matches(&ItemType::of::<u64>()));
        assert!(!ItemType::of_plain::<[u8; 4]>().matches(&ItemType::of_plain::<[u8; 5]>()));
    }

    #[test]
    fn type_without_a_schema_has_its_name() {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Untagged {
            _Number(#[allow(dead_code)] u8),
        }
        let item = ItemType::of::<Untagged>();
        assert!(item.name.ends_with("Untagged") && item.shape.is_none(), "{item:?}");
        assert!(item.matches(&item) && !item.matches(&ItemType::of::<u8>()));
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
