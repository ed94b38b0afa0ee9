//! What a client and a manager say to each other.
//!
//! First both say who they are, in bytes that stay the same in every version: the client a magic
//! number and its version, the manager the same and a verdict. Then the client sends requests, one at a
//! time, and the manager answers each. A client's frames have no descriptors, and are short.

use serde::{Deserialize, Serialize};

use crate::object::{Object, ObjectInfo, ObjectKind, Spec};

/// Changes with the requests and replies. The layouts of the objects have versions of their own.
pub(crate) const VERSION: u32 = 2;

const MAGIC: &[u8; 8] = b"mp-mngr\0";

/// The most bytes of a request: a name, the name of a type, and some numbers.
pub(crate) const LONGEST_REQUEST: usize = 4096;

/// So many objects are listed at a time, so that a reply always fits into a socket's buffer.
pub(crate) const PAGE: usize = 64;

/// The longest name of an object, in bytes.
pub(crate) const LONGEST_NAME: usize = 255;

/// What the client begins with.
pub(crate) fn greeting(version: u32) -> Vec<u8> {
    [&MAGIC[..], &version.to_le_bytes()].concat()
}

/// The version of who greets, if that is a client.
pub(crate) fn version_of(greeting: &[u8]) -> Option<u32> {
    let version = greeting.strip_prefix(MAGIC)?;
    Some(u32::from_le_bytes(version.try_into().ok()?))
}

/// Whether a client may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Welcome,
    OtherVersion,
    /// There are so many clients already.
    TooMany(u32),
}

/// What the manager answers.
pub(crate) fn answer(verdict: Verdict) -> Vec<u8> {
    let (code, number) = match verdict {
        Verdict::Welcome => (0u32, 0),
        Verdict::OtherVersion => (1, 0),
        Verdict::TooMany(limit) => (2, limit),
    };
    [&*greeting(VERSION), &code.to_le_bytes(), &number.to_le_bytes()].concat()
}

/// The version of who answers, and the verdict, if it is one that this version knows.
pub(crate) fn verdict_of(answer: &[u8]) -> Option<(u32, Option<Verdict>)> {
    let (version, rest) = answer.split_at_checked(MAGIC.len() + 4)?;
    let version = version_of(version)?;
    let number = |at: usize| Some(u32::from_le_bytes(rest.get(at..at + 4)?.try_into().ok()?));
    let verdict = match number(0)? {
        0 => Some(Verdict::Welcome),
        1 => Some(Verdict::OtherVersion),
        2 => Some(Verdict::TooMany(number(4)?)),
        _ => None,
    };
    Some((version, verdict))
}

/// What a client wants.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The object of this name, made if there is none.
    Open {
        name: String,
        spec: Spec,
    },
    /// What there is, after so many objects since the manager began.
    List {
        after: u64,
    },
    Remove {
        name: String,
    },
    Shutdown,
}

/// What it gets.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
#[allow(clippy::large_enum_variant)] // as with what is in it
pub(crate) enum Reply<T> {
    Opened(Object<T>),
    /// Some objects; and, if there may be more, after which to go on.
    Listed {
        objects: Vec<ObjectInfo>,
        next: Option<u64>,
    },
    Done,
    Refused(Refusal),
}

/// Why it gets nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Refusal {
    InvalidName,
    NoSuchName,
    KindIs(ObjectKind),
    TypeIs(String),
    CapacityIs(Option<usize>),
    TooManyObjects(usize),
    /// It could not be made, or not be sent.
    Failed(String),
}

/// What is wrong with a name.
pub(crate) fn reason_against(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("it is empty".to_owned());
    }
    if name.len() > LONGEST_NAME {
        return Some(format!("it has {} bytes, and may have {LONGEST_NAME}", name.len()));
    }
    // What is shown to people as itself. (Quotes and backslashes are escaped for another reason.)
    let is_printable = |text: &str| {
        let plain = text.replace(['"', '\'', '\\'], "_");
        plain.escape_debug().eq(plain.chars())
    };
    (!is_printable(name)).then(|| "it has characters that cannot be printed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_go_there_and_back() {
        assert_eq!(version_of(&greeting(7)), Some(7));
        for bytes in [&b""[..], b"mp-mngr\0", b"GET / HTTP/1", &[0; 4096]] {
            assert_eq!(version_of(bytes), None);
            assert!(verdict_of(bytes).is_none());
        }
        for verdict in [Verdict::Welcome, Verdict::OtherVersion, Verdict::TooMany(9)] {
            assert_eq!(verdict_of(&answer(verdict)), Some((VERSION, Some(verdict))));
        }
    }

    #[test]
    fn names_are_for_people() {
        for name in ["jobs", "a b", "Aufträge", "名前", "it's \"q\" \\", "a/b.c", &"x".repeat(255)]
        {
            assert_eq!(reason_against(name), None, "{name}");
        }
        let bad = ["", "\0", "a\nb", "\u{1b}[31m", "\u{202e}x", "\u{200b}", &"x".repeat(10 << 10)];
        for name in bad {
            assert!(reason_against(name).is_some(), "{name:?}");
        }
    }

    #[test]
    fn the_longest_request_fits() {
        use crate::item_type::ItemType;
        let mut item = ItemType::of::<u64>();
        item.name = "x".repeat(1024);
        let spec =
            Spec { kind: ObjectKind::JoinableQueue, item: Some(item), capacity: Some(usize::MAX) };
        let request = Request::Open { name: "x".repeat(LONGEST_NAME), spec };
        let mut bytes = Vec::new();
        multiproc_pipe::message::encode(&request, &mut bytes).unwrap();
        assert!(bytes.len() <= LONGEST_REQUEST, "{}", bytes.len());
    }
}
