//! Bounds what nesting in a hostile message can cost: stack, and memory that is reserved ahead.
//!
//! A type such as `enum Tree { Leaf, Node(Box<Tree>) }` is decoded by recursion, one level for each
//! byte, if the sender wants it so: a message of some 100 KiB would overflow the stack, which ends
//! the process. Whoever recurses because of what came must have read a byte to know. So it is
//! enough to look at the stack where bytes are read.

use postcard::de_flavors::{Flavor, Slice};
use postcard::{Error, Result};

use crate::message::refusal;

/// What decoding one value may take of the stack: a quarter of what Rust gives a thread.
const STACK: usize = 512 * 1024;

/// Further in than this, a sequence grows with its elements, whatever length it claims: else each
/// level of nesting could reserve memory for as many as there are bytes left.
const TRUSTED: usize = 16 * 1024;

/// Bytes of a message, read by code that must not nest too deeply.
pub(crate) struct Bounded<'de> {
    bytes: Slice<'de>,
    /// The stack, which grows downwards, must not reach below this.
    floor: usize,
}

impl<'de> Bounded<'de> {
    #[inline]
    pub(crate) fn new(bytes: &'de [u8]) -> Self {
        Self { bytes: Slice::new(bytes), floor: stack_pointer().saturating_sub(STACK) }
    }

    #[inline(always)]
    fn check(&self) -> Result<()> {
        if stack_pointer() >= self.floor { Ok(()) } else { Err(too_deep()) }
    }
}

/// About where the stack ends: the address of a local variable.
#[inline(always)]
fn stack_pointer() -> usize {
    let local = 0_u8;
    (&raw const local).addr()
}

#[cold]
fn too_deep() -> Error {
    _ = refusal(format!(
        "it is nested so deeply that decoding it takes more than {} KiB of stack",
        STACK / 1024
    ));
    Error::SerdeDeCustom
}

impl<'de> Flavor<'de> for Bounded<'de> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];

    #[inline]
    fn pop(&mut self) -> Result<u8> {
        self.check()?;
        self.bytes.pop()
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        if stack_pointer() >= self.floor + (STACK - TRUSTED) {
            self.bytes.size_hint()
        } else {
            Some(0)
        }
    }

    #[inline]
    fn try_take_n(&mut self, count: usize) -> Result<&'de [u8]> {
        self.check()?;
        self.bytes.try_take_n(count)
    }

    fn finalize(self) -> Result<&'de [u8]> {
        self.bytes.finalize()
    }
}
