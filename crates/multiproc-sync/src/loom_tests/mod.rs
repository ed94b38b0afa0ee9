//! The algorithms of `raw` under loom: one property a test.
//!
//! Run by `cargo xtask loom`. A test without [`Clock`] shows that no wake-up is lost: time does not
//! pass there, so whoever sleeps without being woken is a deadlock, which loom reports. A test in
//! which a member dies has a clock: a thread that lets the recheck interval end at any point.

mod loom_barrier;
mod loom_condition;
mod loom_event;
mod loom_latch;
mod loom_lock;
mod loom_permits;
mod loom_semaphore;
mod loom_waiters;

use crate::raw::members::{MemberId, Members};

/// A member, and the one other member that is dead, if any.
#[derive(Clone, Copy)]
struct Member {
    me: MemberId,
    dead: Option<MemberId>,
}

impl Members for Member {
    fn me(&self) -> MemberId {
        self.me
    }

    fn is_alive(&self, member: MemberId) -> bool {
        Some(member) != self.dead
    }
}

/// The member of a test's thread number `n`.
fn member(n: usize) -> Member {
    Member { me: MemberId::new(n, 1), dead: None }
}

impl Member {
    /// The same one, after the death of another.
    fn after_death_of(self, dead: Self) -> Self {
        Self { dead: Some(dead.me), ..self }
    }
}
