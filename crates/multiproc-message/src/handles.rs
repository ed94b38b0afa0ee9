//! Handles: values that carry descriptors.
//!
//! While a value is encoded, each handle in it puts its descriptor into a side table with
//! [`attach`] and writes the index. While it is decoded, each handle takes its descriptor with
//! [`claim`]. The table is a thread-local that belongs to one encode or decode. A nested one has a
//! table of its own, a failed one closes the descriptors in its table, and elsewhere there is no
//! table, so serialising a handle to JSON, for example, returns an error that explains this.
//!
//! ```
//! use multiproc_message::{self as message, Descriptor};
//! use std::fs::File;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = Descriptor::from(File::open("/dev/null")?);
//! let mut bytes = Vec::new();
//! let descriptors = message::encode(&("log", file), &mut bytes)?;
//! let (name, _file): (String, Descriptor) = message::decode(&bytes, descriptors)?;
//! assert_eq!(name, "log");
//! # Ok(())
//! # }
//! ```

use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The maximum number of descriptors of a message.
pub const MAX_DESCRIPTORS: usize = 12 * 253;

/// What this thread is doing. Separate from [`TABLE`] and without a destructor, because every
/// message pays for it and few have handles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Nothing,
    Encoding,
    Decoding,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    doing: Doing,
    /// Whether [`TABLE`] belongs to the present encode or decode. If not, it is unused.
    pub(crate) has_table: bool,
}

pub(crate) const NOTHING: State = State { doing: Doing::Nothing, has_table: false };

thread_local! {
    pub(crate) static STATE: Cell<State> = const { Cell::new(NOTHING) };
    /// Boxed, because a message without handles has to move it as well. Without a destructor, so
    /// that it exists until the end of the thread: the destructor of another thread-local or a
    /// handler of atexit(3) may send a message. Nothing leaks, because outside of an encode or
    /// decode there is no table.
    static TABLE: Cell<ManuallyDrop<Option<Box<Table>>>> =
        const { Cell::new(ManuallyDrop::new(None)) };
}

fn replace_table(table: Option<Box<Table>>) -> Option<Box<Table>> {
    ManuallyDrop::into_inner(TABLE.replace(ManuallyDrop::new(table)))
}

/// The descriptors of one message while it is being encoded or decoded.
#[derive(Default)]
pub(crate) struct Table {
    /// `None` for a descriptor that was claimed while decoding.
    descriptors: Vec<Option<OwnedFd>>,
    /// The flags of handles that need to know whether they have been sent: see [`tell_when_sent`].
    sent: Vec<Arc<AtomicBool>>,
}

/// The handles in an encoded value: see [`encode_unsent`](crate::encode_unsent).
pub struct Handles(pub(crate) Box<Table>);

impl Handles {
    /// Returns their descriptors, to be sent with the bytes.
    #[must_use]
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.0.descriptors).into_iter().flatten().collect()
    }

    /// Tells the handles that they have been sent: from here on the receiver owns them.
    pub fn sent(self) {
        self.0.sent.iter().for_each(|flag| flag.store(true, Ordering::Relaxed));
    }
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles")
            .field("descriptors", &self.0.descriptors.len())
            .finish_non_exhaustive()
    }
}

/// One encode or decode. The table of the outer one is restored at the end, also when a user's
/// `Serialize` panics.
pub(crate) struct Scope {
    outer: State,
    outer_table: Option<Box<Table>>,
}

impl Scope {
    #[inline]
    pub(crate) fn enter(doing: Doing) -> Self {
        let outer = STATE.replace(State { doing, has_table: false });
        let outer_table = if outer.has_table { Some(take_table()) } else { None };
        Self { outer, outer_table }
    }

    /// Returns the table, if handles have put descriptors into it.
    #[inline]
    pub(crate) fn table(&self) -> Option<Box<Table>> {
        let state = STATE.get();
        if !state.has_table {
            return None;
        }
        STATE.set(State { has_table: false, ..state });
        Some(take_table())
    }
}

impl Drop for Scope {
    #[inline]
    fn drop(&mut self) {
        let has_table = STATE.replace(self.outer).has_table;
        if has_table || self.outer.has_table {
            drop(replace_table(self.outer_table.take()));
        }
    }
}

#[cold]
fn take_table() -> Box<Table> {
    replace_table(None).unwrap_or_default()
}

fn doing() -> Doing {
    STATE.get().doing
}

fn set_table(table: Box<Table>) {
    replace_table(Some(table));
    STATE.set(State { has_table: true, ..STATE.get() });
}

/// Calls `use_it` with the table of the present encode or decode, which is created if necessary.
fn with_table<R>(use_it: impl FnOnce(&mut Table) -> R) -> R {
    let mut table = take_table();
    let result = use_it(&mut table);
    set_table(table);
    result
}

/// Sets the flag when the message being encoded has been sent, but not if it is returned in an
/// error.
#[doc(hidden)] // for handles of this workspace
pub fn tell_when_sent(flag: &Arc<AtomicBool>) {
    if doing() == Doing::Encoding {
        with_table(|table| table.sent.push(Arc::clone(flag)));
    }
}

/// Puts received descriptors into the table, for handles to [`claim`].
#[cold]
pub(crate) fn offer(descriptors: Vec<OwnedFd>) {
    let descriptors = descriptors.into_iter().map(Some).collect();
    set_table(Box::new(Table { descriptors, ..Table::default() }));
}

/// Puts a descriptor into the message being encoded. Called from a handle's `Serialize`.
///
/// # Errors
///
/// If no message is being encoded, or it already has [`MAX_DESCRIPTORS`] descriptors.
///
/// ```
/// use multiproc_message::{attach, claim, decode, encode};
/// use serde::{Deserialize, Deserializer, Serialize, Serializer};
/// use std::{fs::File, os::fd::OwnedFd};
///
/// /// A handle of one's own.
/// struct Log(OwnedFd);
///
/// impl Serialize for Log {
///     fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
///         let copy = self.0.try_clone().map_err(serde::ser::Error::custom)?;
///         attach(copy, serializer)
///     }
/// }
///
/// impl<'de> Deserialize<'de> for Log {
///     fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
///         claim(deserializer).map(Log)
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut bytes = Vec::new();
/// let descriptors = encode(&Log(File::open("/dev/null")?.into()), &mut bytes)?;
/// let _log: Log = decode(&bytes, descriptors)?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "SCM_RIGHTS")]
pub fn attach<S: Serializer>(descriptor: OwnedFd, serializer: S) -> Result<S::Ok, S::Error> {
    let index = match doing() {
        Doing::Encoding => with_table(|table| {
            if table.descriptors.len() == MAX_DESCRIPTORS {
                return Err(format!("it has more than {MAX_DESCRIPTORS} descriptors"));
            }
            table.descriptors.push(Some(descriptor));
            u32::try_from(table.descriptors.len() - 1).map_err(|error| error.to_string())
        }),
        Doing::Nothing | Doing::Decoding => {
            Err("it holds a descriptor, which can only be sent in a multiproc message: through a \
             connection, or as an argument of a process"
                .to_owned())
        }
    };
    match index {
        Ok(index) => index.serialize(serializer),
        Err(reason) => Err(serde::ser::Error::custom(reason)),
    }
}

/// Takes a descriptor out of the message being decoded. Called from a handle's `Deserialize`: see
/// [`attach`] for an example.
///
/// # Errors
///
/// If no message is being decoded, it has no such descriptor, or another handle has taken it.
pub fn claim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OwnedFd, D::Error> {
    let index = u32::deserialize(deserializer)? as usize;
    let descriptor = match doing() {
        Doing::Decoding => with_table(|table| {
            let count = table.descriptors.len();
            match table.descriptors.get_mut(index) {
                Some(slot) => {
                    slot.take().ok_or_else(|| format!("descriptor {index} is used twice"))
                }
                None => Err(format!("there is no descriptor {index}: the message has {count}")),
            }
        }),
        Doing::Nothing | Doing::Encoding => {
            Err("a descriptor can only arrive in a multiproc message".to_owned())
        }
    };
    descriptor.map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs::File;

    use super::*;
    use crate::native::Encoder;
    use crate::{Descriptor, decode, encode};

    fn null() -> Descriptor {
        File::open("/dev/null").unwrap().into()
    }

    fn open_descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn nested_encode_has_a_table_of_its_own() {
        /// Sends a message while it is being encoded itself.
        struct Nosy(RefCell<Vec<u8>>, Descriptor);
        impl Serialize for Nosy {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let inner = encode(&self.1, &mut self.0.borrow_mut()).unwrap();
                assert_eq!(inner.len(), 1);
                ((), &self.1).serialize(serializer)
            }
        }
        let mut bytes = Vec::new();
        let value = (null(), Nosy(RefCell::default(), null()), null());
        let descriptors = encode(&value, &mut bytes).unwrap();
        assert_eq!(descriptors.len(), 3);
        decode::<(Descriptor, ((), Descriptor), Descriptor)>(&bytes, descriptors).unwrap();
    }

    // One test, because it counts the descriptors of the whole process.
    #[test]
    fn unclaimed_descriptors_are_closed() {
        struct Fails;
        impl Serialize for Fails {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("out of ink"))
            }
        }
        let mut bytes = vec![1, 2];
        let error = encode(&(null(), Fails), &mut bytes).unwrap_err();
        assert!(error.to_string().contains("out of ink"), "{error}");
        assert_eq!(bytes, [1, 2], "bytes before the value stay");

        // Other tests open descriptors as well, so counting repeats until it is undisturbed.
        let leaks = |action: &dyn Fn()| {
            (0..100).all(|_| {
                let before = open_descriptors();
                action();
                open_descriptors() > before
            })
        };
        assert!(!leaks(&|| {
            encode(&(null(), Fails), &mut Vec::new()).unwrap_err();
        }));
        assert!(!leaks(&|| {
            let mut bytes = Vec::new();
            let descriptors = encode(&(null(), null()), &mut bytes).unwrap();
            decode::<(Descriptor, String, String)>(&bytes, descriptors).unwrap_err();
        }));
    }

    #[test]
    fn forged_index_is_refused() {
        let descriptors = || vec![OwnedFd::from(null())];
        for (second, what) in [(0, "used twice"), (1, "no descriptor 1")] {
            let bytes = [0, 0, 0, 0, second, 0, 0, 0];
            let error = decode::<(Descriptor, Descriptor)>(&bytes, descriptors()).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn handle_outside_of_a_message_is_refused() {
        let text = null().serialize(Encoder::new(&mut Vec::new())).unwrap_err().to_string();
        assert!(text.contains("can only be sent in a multiproc message"), "{text}");
    }

    #[test]
    fn panic_in_serialize_restores_the_outer_table() {
        struct Panics;
        impl Serialize for Panics {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                panic!("on purpose")
            }
        }
        std::panic::catch_unwind(|| encode(&Panics, &mut Vec::new())).unwrap_err();
        assert!(STATE.get() == NOTHING);
    }
}
