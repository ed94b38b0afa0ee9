//! The ring, as plain structs over atomic words and bytes; see `multiproc_sync::raw`.

pub(crate) mod ring;
pub(crate) mod side;
