//! The worker that a dead letter names.

use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::worker::{End, Record};

/// The name of this process, as [`Worker::name`] of other processes returns it: 16 bytes, padded
/// with zeros. Zero if it was not read yet. (A lock could stay locked in a forked child.)
static NAME: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Returns the name of this process, if it was read.
pub(crate) fn name() -> [u64; 2] {
    NAME.each_ref().map(|word| word.load(Ordering::Relaxed))
}

/// Reads the name of this process if it was not read before. It is that of the main thread, which
/// the crate `multiproc-process` sets to the name of the process. Without /proc, it stays unknown.
#[cold]
pub(crate) fn read_name() {
    if name() != [0, 0] {
        return;
    }
    let Ok(comm) = fs::read("/proc/self/comm") else { return };
    let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
    let mut bytes = [0; 16];
    let len = comm.len().min(bytes.len());
    bytes[..len].copy_from_slice(&comm[..len]);
    let (low, high) = bytes.split_at(8);
    for (word, half) in NAME.iter().zip([low, high]) {
        let half = half.try_into().map_or(0, u64::from_le_bytes);
        word.store(half, Ordering::Relaxed);
    }
}

/// How the last attempt of a dead letter ended: see [`Worker::end`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerEnd {
    /// The process died while it had the task. Only its parent knows its exit status.
    Died,
    /// It put the task back, or dropped it.
    PutBack,
    /// A panic dropped the task.
    Panicked,
    /// It could not decode the task.
    Undecodable,
}

/// The worker that had a dead letter last: see
/// [`DeadLetter::worker`](crate::DeadLetter::worker).
///
/// The process has written these values itself, into memory that every member of the queue can
/// write. They are for people to read, not to be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    pid: u32,
    name: String,
    end: WorkerEnd,
}

impl Worker {
    pub(crate) fn new(Record { pid, name, end }: Record) -> Self {
        let len = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        let name = String::from_utf8_lossy(&name[..len]).chars().map(shown).collect();
        let end = match end {
            End::Died => WorkerEnd::Died,
            End::PutBack => WorkerEnd::PutBack,
            End::Panicked => WorkerEnd::Panicked,
            End::Undecodable => WorkerEnd::Undecodable,
        };
        Self { pid, name, end }
    }

    /// Returns the process id of the worker, in its own pid namespace. If the process has ended,
    /// the id may be in use again.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the name of the process, as `ps` shows it: up to 15 bytes. It is empty if the worker
    /// could not determine it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns how the last attempt ended.
    #[must_use]
    pub fn end(&self) -> WorkerEnd {
        self.end
    }
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, name, end } = self;
        let end = match end {
            WorkerEnd::Died => "died while it had the task",
            WorkerEnd::PutBack => "put the task back",
            WorkerEnd::Panicked => "panicked while it had the task",
            WorkerEnd::Undecodable => "could not decode the task",
        };
        match &**name {
            "" => write!(f, "process {pid} {end}"),
            name => write!(f, "process {pid} ({name}) {end}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_of_hostile_bytes_has_a_printable_name() {
        let mut name = [0xff; 16];
        name[..5].copy_from_slice(b"a\x1b\nb\0");
        let worker = Worker::new(Record { pid: 7, name, end: End::Died });
        assert_eq!(worker.name(), "a\u{fffd}\u{fffd}b");
        assert_eq!(worker.to_string(), "process 7 (a\u{fffd}\u{fffd}b) died while it had the task");
        let worker = Worker::new(Record { pid: 7, name: [0xff; 16], end: End::PutBack });
        assert_eq!(worker.name(), "\u{fffd}".repeat(16));
    }

    #[test]
    fn text_of_each_end() {
        let text = |end| Worker::new(Record { pid: 7, name: [0; 16], end }).to_string();
        assert_eq!(text(End::Died), "process 7 died while it had the task");
        assert_eq!(text(End::PutBack), "process 7 put the task back");
        assert_eq!(text(End::Panicked), "process 7 panicked while it had the task");
        assert_eq!(text(End::Undecodable), "process 7 could not decode the task");
    }
}
