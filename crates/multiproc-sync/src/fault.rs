//! Killing a process at named points, for tests: see [`multiproc_shm::failpoint`].

pub use multiproc_shm::failpoint::*;

/// All points of this crate's primitives.
pub const POINTS: &[&str] = &[
    "lock.taken",
    "lock.about_to_sleep",
    "lock.woken",
    "lock.about_to_wake",
    "rlock.taken",
    "rlock.releasing",
    "mutex.written",
    "rwlock.counted",
    "rwlock.passed",
    "rwlock.left",
    "rwlock.closed",
    "rwlock.writing",
    "rwlock.written",
    "rwlock.releasing",
    "rwlock.opened",
    "event_count.about_to_sleep",
    "event_count.woken",
    "event_count.about_to_wake",
    "semaphore.acquired",
    "semaphore.released",
    "permit.acquired",
    "permit.released",
    "event.set",
    "condition.about_to_sleep",
    "condition.notified",
    "condition.notifying",
    "barrier.arrived",
    "barrier.complete",
];
