//! Named points at which tests kill a process, compiled in only by `--cfg multiproc_faults`.
//!
//! The environment arms a point, because a child dies before any code of a test has run in it.

/// The points in the life of a child, in order.
pub const CHILD_POINTS: &[&str] = &[
    "child.started",
    "child.connected",
    "child.told",
    "child.decoding",
    "child.running",
    "child.returned",
    "child.sent",
];

/// The points of a parent that starts a child, in order.
pub const SPAWN_POINTS: &[&str] = &["spawn.started", "spawn.told"];

/// Marks a point. If `MULTIPROC_FAULT` names it, the process is killed here by SIGKILL. Otherwise
/// this does nothing.
pub(crate) fn reached(point: &'static str) {
    #[cfg(multiproc_faults)]
    {
        assert!(CHILD_POINTS.contains(&point) || SPAWN_POINTS.contains(&point), "{point}");
        if std::env::var("MULTIPROC_FAULT").is_ok_and(|armed| armed == point) {
            multiproc_shm::failpoint::arm(point, 1);
            multiproc_shm::failpoint::reached(point);
        }
    }
    #[cfg(not(multiproc_faults))]
    let _ = point;
}
