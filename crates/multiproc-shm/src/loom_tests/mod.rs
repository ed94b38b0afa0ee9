//! The algorithms under loom: see `multiproc-sync`, whose models follow the same rules.
//!
//! Run by `cargo xtask loom`.

mod event_count;
mod owner_lock;

use crate::model_members::member;
