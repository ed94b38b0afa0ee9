//! Values that carry descriptors: encoding and decoding, for those who build on this crate.
//!
//! While a value is encoded, each handle in it puts its descriptor into a side table with
//! [`attach`] and writes the index it got; while it is decoded, each handle [`claim`]s its own. The
//! table is a thread-local that belongs to one encode or decode: a nested one has its own, a failed
//! one closes what it held, and outside of one there is none, so serialising a handle to JSON, say,
//! is an error that says so.
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

/// How many descriptors a message can have.
pub const MAX_DESCRIPTORS: usize = 12 * 253;

/// What this thread is doing. Kept apart from [`TABLE`], and without a destructor, because every
/// message pays for it, and few have handles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Nothing,
    Encoding,
    Decoding,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    doing: Doing,
    /// Whether [`TABLE`] belongs to what is being done; if not, it belongs to nobody.
    pub(crate) has_table: bool,
}

pub(crate) const NOTHING: State = State { doing: Doing::Nothing, has_table: false };

thread_local! {
    pub(crate) static STATE: Cell<State> = const { Cell::new(NOTHING) };
    /// In a box, because a message without handles has to move it, too. Without a destructor, so that
    /// it is there to the very end of the thread: another thread-local's destructor may send a
    /// message, or a handler of atexit(3). Nothing is lost by it, because outside of an encode or a
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
    /// Decoding takes them out one by one: `None` is one that was claimed.
    descriptors: Vec<Option<OwnedFd>>,
    /// Flags of handles that must know whether they have been sent: see [`tell_when_sent`].
    sent: Vec<Arc<AtomicBool>>,
}

/// The handles in a value that was encoded: see [`encode_unsent`](crate::encode_unsent).
pub struct Handles(pub(crate) Box<Table>);

impl Handles {
    /// Their descriptors, to be sent with the bytes.
    #[must_use]
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.0.descriptors).into_iter().flatten().collect()
    }

    /// Says that they are on their way: from here on they live elsewhere.
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

/// One encode or decode. The outer one's table is put back at the end, also when a user's
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

    /// What handles have put into the table, if any did.
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

/// The table of what is being done, which has one from now on.
fn with_table<R>(use_it: impl FnOnce(&mut Table) -> R) -> R {
    let mut table = take_table();
    let result = use_it(&mut table);
    set_table(table);
    result
}

/// Sets the flag when the message being encoded has been sent, and not if it comes back in an error.
#[doc(hidden)] // for handles of this workspace
pub fn tell_when_sent(flag: &Arc<AtomicBool>) {
    if doing() == Doing::Encoding {
        with_table(|table| table.sent.push(Arc::clone(flag)));
    }
}

/// Puts what came into the table, for handles to [`claim`].
#[cold]
pub(crate) fn offer(descriptors: Vec<OwnedFd>) {
    let descriptors = descriptors.into_iter().map(Some).collect();
    set_table(Box::new(Table { descriptors, ..Table::default() }));
}

/// Puts a descriptor into the message being encoded. To be called from a handle's `Serialize`.
///
/// # Errors
///
/// If no message is being encoded, or it has as many descriptors as it can have.
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
            Err("it holds a descriptor, which can only travel in a multiproc message: through a \
             connection, or as an argument of a process"
                .to_owned())
        }
    };
    match index {
        Ok(index) => index.serialize(serializer),
        Err(reason) => Err(serde::ser::Error::custom(reason)),
    }
}

/// Takes a descriptor out of the message being decoded. To be called from a handle's `Deserialize`.
///
/// # Errors
///
/// If no message is being decoded, or it has no such descriptor, or another handle took it.
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
    fn a_nested_encode_has_a_table_of_its_own() {
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
    fn what_is_not_claimed_is_closed() {
        struct Fails;
        impl Serialize for Fails {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("out of ink"))
            }
        }
        let mut bytes = vec![1, 2];
        let error = encode(&(null(), Fails), &mut bytes).unwrap_err();
        assert!(error.to_string().contains("out of ink"), "{error}");
        assert_eq!(bytes, [1, 2], "what was there before stays");

        // Without descriptors of other tests around: counted in a loop until it is quiet.
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
    fn a_forged_index_is_refused() {
        let descriptors = || vec![OwnedFd::from(null())];
        for (second, what) in [(0, "used twice"), (1, "no descriptor 1")] {
            let bytes = [0, 0, 0, 0, second, 0, 0, 0];
            let error = decode::<(Descriptor, Descriptor)>(&bytes, descriptors()).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn outside_of_a_message_a_handle_refuses() {
        let text = null().serialize(Encoder::new(&mut Vec::new())).unwrap_err().to_string();
        assert!(text.contains("can only travel in a multiproc message"), "{text}");
    }

    #[test]
    fn a_panic_in_serialize_puts_the_outer_table_back() {
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
