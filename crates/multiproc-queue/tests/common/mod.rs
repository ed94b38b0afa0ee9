//! Helpers shared by the tests of the queue.
#![allow(dead_code)] // each test program uses some of it

use std::fs::File;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Descriptor, duplex};
use multiproc_queue::Queue;
use multiproc_testkit::{is_asleep, until};

/// The guaranteed bound: no process waits longer for a crashed one.
pub(crate) const RECOVERY: Duration = Duration::from_secs(1);

/// A bound for operations that complete at once: some hundred times as long as they take.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Returns the same queue with items of another type.
pub(crate) fn retype<T, U>(queue: &Queue<T>) -> Queue<U> {
    let (left, right) = duplex::<Queue<T>, ()>().unwrap();
    left.send(queue.clone()).unwrap();
    right.retype::<(), Queue<U>>().recv().unwrap()
}

/// The encoded form of a handle.
pub(crate) type Wire =
    (Descriptor, Option<Descriptor>, Option<Descriptor>, Option<Descriptor>, Option<String>);

/// Returns the parts of a handle: shared memory, producers' and consumers' end of the lane.
pub(crate) fn parts<T>(queue: &Queue<T>) -> Wire {
    let (left, right) = duplex::<Queue<T>, ()>().unwrap();
    left.send(queue.clone()).unwrap();
    right.retype::<(), Wire>().recv().unwrap()
}

/// Returns the shared memory of a queue as a file. A hostile process can write into it in the same
/// way.
pub(crate) fn memory<T>(queue: &Queue<T>) -> File {
    File::from(parts(queue).0.0)
}

/// The offsets of the control block, the hot ring and the table of blocks.
pub(crate) const CONTROL: u64 = 128;
/// See [`CONTROL`].
pub(crate) const HOT: u64 = 12_288;
/// See [`CONTROL`].
pub(crate) const TABLE: u64 = HOT + 256 * 1024;

/// Waits until all children are asleep.
pub(crate) fn until_asleep<R>(children: &[Process<R>]) {
    until(|| children.iter().all(|child| is_asleep(child.pid())));
}

/// Runs `action` and asserts that it takes less than `bound`.
pub(crate) fn within<R>(bound: Duration, action: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = action();
    assert!(start.elapsed() < bound, "it took {:?}", start.elapsed());
    result
}
