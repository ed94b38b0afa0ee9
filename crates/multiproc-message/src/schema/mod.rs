//! The schema of a type: what its `Deserialize` asks a deserializer for.
//!
//! One tracer answers four questions about a type: whether it asks the data what comes next, so
//! that it cannot be received ([`check_type`]); what the hash of its schema is ([`shape_of`]), by
//! which two programs detect that their types differ; what its name is ([`schema_name`]); and by
//! which numbers it reads the variants of its enums ([`variant_numbers`]).

mod made_up;
mod numbers;
mod tracer;

use std::any::type_name;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;

use serde::Deserialize;

use crate::error::EncodeError;
use crate::native::ASKS;
use tracer::Tracer;

pub use numbers::VariantNumbers;

/// Refuses a type whose values can be encoded but not decoded: its `Deserialize` asks the data what
/// comes next, as that of `serde_json::Value` does, or of an enum with serde's `untagged`.
///
/// A type that borrows from what it is decoded from, as `&str` does, is not refused for that.
///
/// Each type is traced once per process. A part that cannot be reached passes: one after a handle
/// in a tuple, for example, or one in a type that reads other parts first by code of its own. In a
/// program where a panic aborts, every type passes, since tracing calls the type's own code.
///
/// # Errors
///
/// If the type asks the data what comes next.
///
/// ```
/// use multiproc_message::check_type;
///
/// #[derive(serde::Deserialize)]
/// #[serde(untagged)]
/// #[allow(dead_code)]
/// enum Either {
///     Number(u32),
///     Text(String),
/// }
///
/// assert!(check_type::<(u32, Vec<String>)>().is_ok());
/// assert!(check_type::<Either>().is_err());
/// ```
pub fn check_type<T: Deserialize<'static>>() -> Result<(), EncodeError> {
    match schema_of::<T>() {
        Schema::AsksWhatComes => Err(EncodeError::new::<T>(ASKS)),
        Schema::Hash(..) | Schema::Unknown => Ok(()),
    }
}

/// Returns the hash of a type's schema, or `None` if it has none.
///
/// The hash covers the names of types, fields and variants, their order, and the kinds of all
/// values. It is the same in every program, whatever its compiler. A type has no hash if it asks
/// the data what comes next or if its code panics while it is traced. In a program where a panic
/// aborts, no type has one.
///
/// Types that differ may have the same hash:
///
/// - Two fields of the same name and kind have another meaning.
/// - A `Deserialize` written by hand reads other parts than it asked for first.
/// - They differ in what a type parameter is that no value contains.
/// - They differ inside a type that contains itself, beyond its first level, or beyond the first
///   1024 parts; or behind a handle in a tuple.
/// - One has a descriptor where the other has a `u32`.
#[must_use]
pub fn shape_of<T: Deserialize<'static>>() -> Option<u64> {
    match schema_of::<T>() {
        Schema::Hash(hash, _) => Some(hash),
        Schema::AsksWhatComes | Schema::Unknown => None,
    }
}

/// Returns the name by which a struct or an enum asks a deserializer for itself: its own without a
/// path, or that of `#[serde(rename = "…")]`. It is the same in every program. Returns `None` for a
/// type without such a name, such as `u32` or `Vec<Job>`, and for one without a
/// [hash](shape_of).
///
/// ```
/// use multiproc_message::schema_name;
///
/// #[derive(serde::Deserialize)]
/// #[serde(rename = "shop.Job")]
/// #[allow(dead_code)]
/// struct Job(u32);
///
/// assert_eq!(schema_name::<Job>(), Some("shop.Job"));
/// assert_eq!(schema_name::<Vec<Job>>(), None);
/// ```
#[must_use]
pub fn schema_name<T: Deserialize<'static>>() -> Option<&'static str> {
    match schema_of::<T>() {
        Schema::Hash(_, name) => name,
        Schema::AsksWhatComes | Schema::Unknown => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Schema {
    /// The hash, and the name of the type if it has one.
    Hash(u64, Option<&'static str>),
    AsksWhatComes,
    /// It cannot be traced.
    Unknown,
}

/// Traces a type, once in a process.
fn schema_of<T: Deserialize<'static>>() -> Schema {
    static KNOWN: Mutex<BTreeMap<(usize, &str), Schema>> = Mutex::new(BTreeMap::new());
    // The type's own code is called, and its panic would end the process.
    if cfg!(panic = "abort") {
        return Schema::Unknown;
    }
    // Two types may have one name; or one function, if their code is the same.
    let trace: fn() -> Schema = trace::<T>;
    let key = (trace as usize, type_name::<T>());
    // Not waited for: a process made by fork(2) may find it locked for good.
    if let Some(known) = KNOWN.try_lock().ok().and_then(|known| known.get(&key).copied()) {
        return known;
    }
    let schema = trace();
    if let Ok(mut known) = KNOWN.try_lock() {
        known.insert(key, schema);
    }
    schema
}

fn trace<T: Deserialize<'static>>() -> Schema {
    let mut tracer = Tracer::new();
    let result = run::<T>(&mut tracer);
    match (tracer.asks_what_comes(), result) {
        (true, _) => Schema::AsksWhatComes,
        (false, Ok(())) => Schema::Hash(tracer.hash().value(), tracer.name()),
        (false, Err(panic)) => {
            // Its drop could panic as well.
            std::mem::forget(panic);
            Schema::Unknown
        }
    }
}

/// Returns the numbers by which a type reads the variants of its enums, for
/// [`encode_numbered`](crate::encode_numbered). Each type is traced once per process.
#[doc(hidden)] // for the connections of this workspace
#[must_use]
pub fn variant_numbers<T: Deserialize<'static>>() -> Arc<VariantNumbers> {
    static KNOWN: Mutex<BTreeMap<(usize, &str), Arc<VariantNumbers>>> = Mutex::new(BTreeMap::new());
    if cfg!(panic = "abort") {
        return Arc::default();
    }
    let trace: fn() -> VariantNumbers = trace_numbers::<T>;
    // As in `schema_of`.
    let key = (trace as usize, type_name::<T>());
    if let Some(known) = KNOWN.try_lock().ok().and_then(|known| known.get(&key).cloned()) {
        return known;
    }
    let numbers = Arc::new(trace());
    if let Ok(mut known) = KNOWN.try_lock() {
        known.insert(key, Arc::clone(&numbers));
    }
    numbers
}

fn trace_numbers<T: Deserialize<'static>>() -> VariantNumbers {
    let mut tracer = Tracer::of_numbers();
    // A panic ends the trace.
    if let Err(panic) = run::<T>(&mut tracer) {
        std::mem::forget(panic);
    }
    tracer.into_numbers()
}

/// Traces all parts of a type.
fn run<T: Deserialize<'static>>(tracer: &mut Tracer) -> thread::Result<()> {
    // Unwind safe: state that the type's own code has changed elsewhere is not used here.
    catch_unwind(AssertUnwindSafe(|| {
        while tracer.begin_next() {
            let _ = T::deserialize(&mut *tracer);
        }
    }))
}

/// FNV-1a (64 bits): the same in every program, whatever its compiler.
#[derive(Debug, Clone, Copy)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// Adds a text, and where it ends.
    pub fn text(&mut self, text: &str) {
        // Ends with a byte that is in no text.
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    /// The hash of what was added.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0
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

    use serde::Serialize;
    use serde::de::{Deserializer, Error};

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

    #[test]
    fn usual_types_have_a_shape_of_their_own() {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Point {
            x: i32,
            y: i32,
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        enum Job {
            Stop,
            Hash(PathBuf),
            Move { from: Point, to: Option<Point> },
        }
        let shapes = [
            shape_of::<u8>(),
            shape_of::<u64>(),
            shape_of::<i64>(),
            shape_of::<()>(),
            shape_of::<String>(),
            shape_of::<Vec<u8>>(),
            shape_of::<Option<u8>>(),
            shape_of::<(u8, u8)>(),
            shape_of::<[u8; 4]>(),
            shape_of::<HashMap<String, u8>>(),
            shape_of::<Point>(),
            shape_of::<Job>(),
            shape_of::<Vec<Job>>(),
            shape_of::<Result<u8, String>>(),
            shape_of::<IpAddr>(),
            shape_of::<Duration>(),
            shape_of::<SystemTime>(),
        ];
        for (index, shape) in shapes.iter().enumerate() {
            assert!(shape.is_some(), "{index}");
            assert_eq!(shapes.iter().filter(|other| *other == shape).count(), 1, "{index}");
        }
        assert!(shape_of::<NonZeroU64>().is_some());
        assert!(shape_of::<BTreeMap<String, Vec<Job>>>().is_some());
    }

    #[test]
    fn every_part_counts() {
        /// Types of one name, each in a place of its own.
        macro_rules! variation {
            ($($type:tt)*) => {{
                #[derive(Deserialize)]
                #[allow(dead_code)]
                $($type)*
                shape_of::<Message>().unwrap()
            }};
        }
        let shapes = [
            variation!(
                enum Message {
                    A(u8),
                    B { text: String },
                }
            ),
            variation!(
                enum Message {
                    A(u8),
                    B { text: String },
                    C,
                }
            ),
            variation!(
                enum Message {
                    A(u16),
                    B { text: String },
                }
            ),
            variation!(
                enum Message {
                    A(u8),
                    B { text: Vec<u8> },
                }
            ),
            variation!(
                enum Message {
                    A(u8),
                    B { name: String },
                }
            ),
            variation!(
                enum Message {
                    B { text: String },
                    A(u8),
                }
            ),
            variation!(
                struct Message {
                    text: String,
                }
            ),
        ];
        for shape in shapes {
            assert_eq!(shapes.iter().filter(|other| **other == shape).count(), 1);
        }
    }

    #[test]
    fn types_that_contain_themselves_or_handles_have_a_shape() {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Tree(Vec<Tree>);
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Wide(Vec<Wide>, Vec<Wide>, Vec<Wide>, Vec<Wide>);
        #[derive(Deserialize)]
        #[allow(dead_code)]
        enum Expression {
            Number(f64),
            Sum { left: Box<Expression>, right: Box<Expression> },
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct File {
            name: String,
            descriptor: crate::Descriptor,
        }
        let shapes = [
            shape_of::<Tree>().unwrap(),
            shape_of::<Wide>().unwrap(),
            shape_of::<Expression>().unwrap(),
            shape_of::<File>().unwrap(),
            shape_of::<crate::Descriptor>().unwrap(),
        ];
        for shape in shapes {
            assert_eq!(shapes.iter().filter(|other| **other == shape).count(), 1);
        }
        // A part after one that contains itself is seen.
        assert_ne!(shape_of::<(Tree, u8)>(), shape_of::<(Tree, u16)>());
    }

    #[test]
    fn type_that_cannot_be_traced_has_no_shape() {
        struct Panics;
        impl<'de> Deserialize<'de> for Panics {
            fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                panic!("on purpose")
            }
        }
        assert_eq!(shape_of::<Untagged>(), None);
        assert_eq!(shape_of::<Vec<Untagged>>(), None);
        assert_eq!(shape_of::<Panics>(), None);
    }

    #[test]
    fn shape_is_the_same_in_every_program() {
        assert_eq!(shape_of::<u8>(), Some(15_749_966_773_829_858_449));
        assert_eq!(shape_of::<Result<(u8, String), Vec<u64>>>(), Some(5_698_290_784_896_209_192));
    }

    #[test]
    fn types_with_the_same_bytes_have_the_same_shape_borrowed_or_not() {
        assert_eq!(shape_of::<&str>(), shape_of::<String>());
        assert_eq!(shape_of::<Vec<&str>>(), shape_of::<Vec<String>>());
        assert_eq!(shape_of::<&[u8]>(), shape_of::<Vec<u8>>());
        assert_eq!(shape_of::<crate::Bytes>(), shape_of::<Vec<u8>>());
    }

    #[test]
    fn variants_with_several_names_have_a_shape() {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        enum Event {
            #[serde(alias = "a", alias = "b")]
            Started(u8),
            Ended,
        }
        assert!(shape_of::<Event>().is_some());
    }
}
