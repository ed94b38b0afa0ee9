//! The algorithms of `raw` under loom: one property a test.
//!
//! Run by `cargo xtask loom`. A test without [`Clock`] shows that no wake-up is lost: time does not
//! pass there, so whoever sleeps without being woken is a deadlock, which loom reports. A test in
//! which a member dies has a clock: a thread that lets the recheck interval end at any point.

mod loom_barrier;
mod loom_condition;
mod loom_event;
mod loom_lock;
mod loom_permits;
mod loom_semaphore;

use multiproc_shm::model_members::{Member, member};
