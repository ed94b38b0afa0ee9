//! The algorithms of `raw` under loom: one property per test.
//!
//! Run by `cargo xtask loom`. In a test without [`Clock`], time does not pass. So a waiter that is
//! not woken is a deadlock, which loom reports: these tests show that no wake-up is lost. A test in
//! which a member dies has a clock: a thread that lets the recheck interval end at any point.

mod loom_barrier;
mod loom_condition;
mod loom_event;
mod loom_lock;
mod loom_permits;
mod loom_rwlock;
mod loom_semaphore;

use multiproc_shm::model_members::{Member, member};
