//! The algorithms of `raw` under loom: one property a test.
//!
//! Run by `cargo xtask loom`. A test without [`Clock`] shows that no wake-up is lost: time does not
//! pass there, so whoever sleeps without being woken is a deadlock, which loom reports. A test in
//! which a member dies has a clock: a thread that lets the recheck interval end at any point.

mod loom_lock;
mod loom_waiters;

use crate::raw::member_id::MemberId;

/// The member of a test's thread number `n`.
fn member(n: usize) -> MemberId {
    MemberId::new(n, 1)
}
