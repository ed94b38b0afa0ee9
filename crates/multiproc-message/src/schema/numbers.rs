//! The numbers by which a type reads the variants of its enums.
//!
//! serde numbers variants twice: `Serialize` counts all of them, and `Deserialize` only those that
//! it reads. A format that writes numbers alone would let a variant behind one with `skip` arrive
//! as another one. The numbers of `Serialize` come with each value; those of `Deserialize` are
//! found here, by letting each enum read every name and every number. Which of its variants that
//! was is told by [`discriminant`]: the type that serde derives for this has one variant for each.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::discriminant;

use crate::native::{Error, Result};

/// The variants of all enums in a type.
#[derive(Debug, Default)]
pub struct VariantNumbers(Vec<Enum>);

#[derive(Debug)]
struct Enum {
    name: &'static str,
    variants: &'static [&'static str],
    /// What each name is read as.
    by_name: Vec<Read>,
    /// What each number is read as. One more than there are names: the last one is read only by
    /// `other`, or by a type that accepts any number.
    by_number: Vec<Read>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    NotTried,
    Refused,
    /// As the variant with this discriminant.
    As(u64),
}

impl Read {
    fn of<V, E>(result: &std::result::Result<V, E>) -> Self {
        let Ok(variant) = result else { return Self::Refused };
        let mut hasher = DefaultHasher::new();
        discriminant(variant).hash(&mut hasher);
        Self::As(hasher.finish())
    }
}

impl VariantNumbers {
    /// Adds an enum. Returns how many numbers are to be tried: none if it is known.
    pub(super) fn begin(&mut self, name: &'static str, variants: &'static [&'static str]) -> usize {
        if variants.is_empty() || self.find(name, variants).is_some() {
            return 0;
        }
        let by_name = vec![Read::NotTried; variants.len()];
        let by_number = vec![Read::NotTried; variants.len() + 1];
        self.0.push(Enum { name, variants, by_name, by_number });
        variants.len() + 1
    }

    fn find(&mut self, name: &'static str, variants: &'static [&'static str]) -> Option<&mut Enum> {
        self.0.iter_mut().find(|known| known.name == name && known.variants == variants)
    }

    /// Takes down what was read for the name or number at an index: first come the names.
    pub(super) fn note<V, E>(
        &mut self,
        (name, variants): (&'static str, &'static [&'static str]),
        index: usize,
        result: &std::result::Result<V, E>,
    ) {
        let Some(known) = self.find(name, variants) else { return };
        let read = match index.checked_sub(variants.len()) {
            None => known.by_name.get_mut(index),
            Some(number) => known.by_number.get_mut(number),
        };
        if let Some(read) = read {
            *read = Read::of(result);
        }
    }

    /// Leaves out the enums of which too little is known to refuse anything.
    pub(super) fn finish(mut self) -> Self {
        self.0.retain(Enum::is_known);
        self
    }

    /// Checks the number and name of a variant that is about to be written.
    ///
    /// # Errors
    ///
    /// If the type would read the number as another variant, or not at all.
    pub(crate) fn check(&self, name: &str, number: u32, variant: &str) -> Result {
        let mut of_this_name = self.0.iter().filter(|known| known.name == name).peekable();
        if of_this_name.peek().is_none() || of_this_name.any(|known| known.reads(number, variant)) {
            return Ok(());
        }
        Err(misnumbered(name, number, variant))
    }
}

impl Enum {
    /// Whether each name is read, and different numbers as different variants. Code that was
    /// written by hand may do neither.
    fn is_known(&self) -> bool {
        let reads_names = self.by_name.iter().all(|read| matches!(read, Read::As(_)));
        let has_tried = !self.by_number.contains(&Read::NotTried);
        reads_names && has_tried && self.by_number[0] != self.by_number[1]
    }

    /// Returns whether the number is read as the variant of this name.
    fn reads(&self, number: u32, variant: &str) -> bool {
        let last = self.by_number.len() - 1;
        let read = self.by_number[last.min(number as usize)];
        let mut names = self.variants.iter().zip(&self.by_name);
        names.any(|(name, as_name)| *name == variant && *as_name == read)
    }
}

#[cold]
fn misnumbered(name: &str, number: u32, variant: &str) -> Error {
    Error::new(format!(
        "the variant `{variant}` of the enum `{name}` is written as number {number}, which the \
         receiver would read as another variant: move the variants with serde's `skip`, \
         `skip_serializing` or `skip_deserializing` behind all others, and let both directions use \
         the same names"
    ))
}
