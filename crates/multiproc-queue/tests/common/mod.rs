//! What the tests of the queue share.
#![allow(dead_code)] // each test program uses some of it

use std::fs::File;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Descriptor, duplex};
use multiproc_queue::Queue;
use multiproc_testkit::{is_asleep, until};

/// The bound of the promise: nobody waits longer for the dead.
pub(crate) const RECOVERY: Duration = Duration::from_secs(1);

/// For what happens at once: some hundred times as long as it takes.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The same queue, for items of another type.
pub(crate) fn retype<T, U>(queue: &Queue<T>) -> Queue<U> {
    let (left, right) = duplex::<Queue<T>, ()>().unwrap();
    left.send(queue.clone()).unwrap();
    right.retype::<(), Queue<U>>().recv().unwrap()
}

/// A handle as it travels.
pub(crate) type Wire = (Descriptor, Option<Descriptor>, Option<Descriptor>, Option<String>);

/// What a handle is made of: shared memory, producers' and consumers' end of the lane.
pub(crate) fn parts<T>(queue: &Queue<T>) -> Wire {
    let (left, right) = duplex::<Queue<T>, ()>().unwrap();
    left.send(queue.clone()).unwrap();
    right.retype::<(), Wire>().recv().unwrap()
}

/// The shared memory of a queue, as a file: writing into it is what a hostile process can do.
pub(crate) fn memory<T>(queue: &Queue<T>) -> File {
    File::from(parts(queue).0.0)
}

/// Where the control block, the hot ring and the table of blocks are in it.
pub(crate) const CONTROL: u64 = 128;
/// See [`CONTROL`].
pub(crate) const HOT: u64 = 12_288;
/// See [`CONTROL`].
pub(crate) const TABLE: u64 = HOT + 256 * 1024;

/// Waits until all of them sleep.
pub(crate) fn until_asleep<R>(children: &[Process<R>]) {
    until(|| children.iter().all(|child| is_asleep(child.pid())));
}

/// Does it, within the bound.
pub(crate) fn within<R>(bound: Duration, action: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = action();
    assert!(start.elapsed() < bound, "it took {:?}", start.elapsed());
    result
}
