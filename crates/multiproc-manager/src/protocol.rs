//! The messages between a client and a manager.
//!
//! Both sides first identify themselves, in bytes that stay the same in every version: the client
//! by a magic number and its version, the manager by the same and a verdict. Then the client sends
//! requests, one at a time, and the manager answers each. A client's frames are short and carry no
//! descriptors.

use multiproc_pipe::Format;
use serde::{Deserialize, Serialize};

use crate::item_type::LONGEST_NAME as LONGEST_TYPE;
use crate::object::{ObjectInfo, ObjectKind};
use crate::spec::{LONGEST_VALUE, Number, Spec};

/// To be increased with every change of requests and replies. The layouts of the objects have
/// versions of their own.
pub(crate) const VERSION: u32 = 4;

/// The format of requests and replies: programs that talk to a manager are built separately.
pub(crate) const FORMAT: Format = Format::Postcard;

const MAGIC: &[u8; 8] = b"mp-mngr\0";

/// The maximum size of a request in bytes: a name, the name of a type, some numbers, and the first
/// value of a mutex.
pub(crate) const LONGEST_REQUEST: usize = LONGEST_NAME + LONGEST_TYPE + LONGEST_VALUE + 256;

/// The number of objects in one reply to `List`, so that a reply always fits into a socket's
/// buffer.
pub(crate) const PAGE: usize = 64;

/// The number of names in a refusal.
pub(crate) const NAMED: usize = 8;

/// The maximum length of an object's name, in bytes.
pub(crate) const LONGEST_NAME: usize = 255;

/// Returns the first message of a client.
pub(crate) fn greeting(version: u32) -> Vec<u8> {
    [&MAGIC[..], &version.to_le_bytes()].concat()
}

/// Returns the version of the sender, if this is the first message of a client.
pub(crate) fn version_of(greeting: &[u8]) -> Option<u32> {
    let version = greeting.strip_prefix(MAGIC)?;
    Some(u32::from_le_bytes(version.try_into().ok()?))
}

/// Whether a client is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Welcome,
    OtherVersion,
    /// The limit of clients, which is this number, is reached.
    TooMany(u32),
}

/// Returns the answer to the first message of a client.
pub(crate) fn answer(verdict: Verdict) -> Vec<u8> {
    let (code, number) = match verdict {
        Verdict::Welcome => (0u32, 0),
        Verdict::OtherVersion => (1, 0),
        Verdict::TooMany(limit) => (2, limit),
    };
    [&*greeting(VERSION), &code.to_le_bytes(), &number.to_le_bytes()].concat()
}

/// Returns the version of the manager, and the verdict if this version knows it.
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

/// A request of a client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Opens the object of this name. If there is none, creates it, or refuses.
    Open {
        name: String,
        spec: Spec,
        creates: bool,
    },
    /// Lists the objects that were created after this one.
    List {
        after: u64,
    },
    Remove {
        name: String,
    },
    Shutdown,
}

/// A reply of the manager. `O` is the object: any one for the manager, which sends it, and the one
/// that was asked for, for the client.
#[derive(Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // as with what is in it
pub(crate) enum Reply<O> {
    Opened(O),
    /// Some objects, and the last of them if there may be more.
    Listed {
        objects: Vec<ObjectInfo>,
        next: Option<u64>,
    },
    Done,
    Refused(Refusal),
}

/// Why a request was refused.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Refusal {
    InvalidName,
    NoSuchName,
    KindIs(ObjectKind),
    TypeIs(String),
    NumberIs(Number),
    BytesAre(usize),
    AttemptsAre(u32),
    /// No object of this name is to be opened. These names of its kind exist, and some others.
    OnlyThese {
        names: Vec<String>,
        others: usize,
    },
    TooManyObjects(usize),
    /// The object could not be created or sent.
    Failed(String),
}

/// Returns why a name is not valid.
pub(crate) fn reason_against(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("it is empty".to_owned());
    }
    if name.len() > LONGEST_NAME {
        return Some(format!("it has {} bytes", name.len()));
    }
    // Characters that are printed as themselves. (Quotes and backslashes are escaped for another
    // reason.)
    let is_printable = |text: &str| {
        let plain = text.replace(['"', '\'', '\\'], "_");
        plain.escape_debug().eq(plain.chars())
    };
    (!is_printable(name)).then(|| "it has unprintable characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_are_parsed_as_they_were_written() {
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
    fn names_must_be_printable() {
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
    fn longest_request_fits() {
        use crate::item_type::ItemType;
        let mut item = ItemType::of::<u64>();
        item.name = "x".repeat(1024);
        let spec = Spec {
            kind: ObjectKind::Mutex,
            item: Some(item),
            number: Number::Exactly(usize::MAX),
            bytes: Some(usize::MAX),
            attempts: Some(u32::MAX),
            value: Some(vec![0; LONGEST_VALUE]),
        };
        let request = Request::Open { name: "x".repeat(LONGEST_NAME), spec, creates: true };
        let mut bytes = Vec::new();
        FORMAT.encode(&request, &mut bytes).unwrap();
        assert!(bytes.len() <= LONGEST_REQUEST, "{}", bytes.len());
    }
}
