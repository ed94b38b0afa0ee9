//! A number for each thread of this process.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Returns a number that no other thread of this process has, or had before it. It is never 0.
///
/// Owners in shared memory are processes; this number tells the threads of one owner apart. Unlike
/// gettid(2) it is not reused when a thread ends, and it costs no system call.
///
/// ```
/// use multiproc_shm::thread_id;
///
/// let mine = thread_id();
/// assert_eq!(thread_id(), mine);
/// assert_ne!(std::thread::spawn(thread_id).join().unwrap(), mine);
/// ```
#[inline]
#[must_use]
pub fn thread_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static THIS: Cell<u64> = const { Cell::new(0) };
    }
    if THIS.get() == 0 {
        THIS.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    THIS.get()
}
