//! The real primitives.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::OnceLock;

use crate::Deadline;
use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Timespec};
use rustix::thread::{MembarrierCommand, membarrier};

pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

pub use crossbeam_utils::{Backoff, CachePadded};

/// A word in shared memory that processes can sleep on ([futex(2)]).
///
/// It dereferences to an atomic `u32`. It is the shared kind of futex, which works between
/// processes that map the same memory at different addresses.
///
/// [futex(2)]: https://man7.org/linux/man-pages/man2/futex.2.html
#[derive(Debug, Default)]
#[repr(transparent)]
#[doc(alias = "futex")]
pub struct Futex(AtomicU32);

impl Futex {
    /// Creates a futex that holds `value`.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    /// Sleeps while the word holds `expected`. Returns `false` if the deadline passed, and `true`
    /// if it was woken, the word holds another value, or the wake-up was spurious.
    pub fn wait(&self, expected: u32, deadline: Deadline) -> bool {
        let timeout = deadline.remaining().and_then(|left| Timespec::try_from(left).ok());
        futex::wait(&self.0, Flags::empty(), expected, timeout.as_ref()) != Err(Errno::TIMEDOUT)
    }

    /// Wakes up to `count` sleepers (at most `i32::MAX`).
    pub fn wake(&self, count: u32) {
        // This fails only for an address that is not mapped.
        let _ = futex::wake(&self.0, Flags::empty(), count);
    }
}

impl Deref for Futex {
    type Target = AtomicU32;

    #[inline]
    fn deref(&self) -> &AtomicU32 {
        &self.0
    }
}

/// Loads a word while holding the lock that every store to it requires.
///
/// In loom it is not a point of interleaving, and fails if another thread stores meanwhile. (It
/// also keeps loom from missing interleavings: loom remembers only the last load of a word, and a
/// load by the storing thread before each store would hide those of the others.)
#[inline]
pub fn load_locked(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

/// A full fence for code that has just performed a read-modify-write with `AcqRel`.
///
/// On x86-64 that instruction was a full fence already, so a compiler fence suffices (Linux has the
/// same as `smp_mb__after_atomic`).
#[inline]
pub fn fence_after_rmw() {
    #[cfg(target_arch = "x86_64")]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(target_arch = "x86_64"))]
    fence(Ordering::SeqCst);
}

/// Returns `true` if the heavy fence of any process reaches this one: see
/// [`fences`](crate::fences).
///
/// The first call registers the process with the kernel ([membarrier(2)]), which takes some 10 µs,
/// or 10 ms if the process already has several threads. Returns `false` if the kernel refuses.
///
/// [membarrier(2)]: https://man7.org/linux/man-pages/man2/membarrier.2.html
pub fn has_light_fences() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok())
}

/// The light side of an asymmetric fence: a compiler fence. Used through
/// [`Fences`](crate::fences::Fences).
#[inline]
pub(crate) fn asymmetric_fence_light() {
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// The heavy side of an asymmetric fence: a system call of half a microsecond or more. It is a full
/// fence for this process in any case. An error means that it did not reach the others.
pub(crate) fn asymmetric_fence_heavy() -> std::io::Result<()> {
    fence(Ordering::SeqCst);
    let result = membarrier(MembarrierCommand::GlobalExpedited);
    fence(Ordering::SeqCst);
    Ok(result?)
}

/// Spins `times` times: 16 take some hundred nanoseconds, in which another processor can perform
/// several operations on a cache line that this one does not touch.
#[inline]
pub fn pause(times: u32) {
    for _ in 0..times {
        std::hint::spin_loop();
    }
}

/// Returns `true` if this thread may run on one processor only, so that spinning would keep the
/// other side from running. The kernel is asked once in 64 calls, since the answer can change.
#[must_use]
pub fn has_one_cpu() -> bool {
    const CALLS_A_LOOK: u32 = 64;
    thread_local! {
        static KNOWN: Cell<(u32, bool)> = const { Cell::new((0, false)) };
    }
    let (calls_left, is_one) = KNOWN.get();
    if calls_left > 0 {
        KNOWN.set((calls_left - 1, is_one));
        return is_one;
    }
    let is_one = rustix::thread::sched_getaffinity(None).is_ok_and(|cpus| cpus.count() == 1);
    KNOWN.set((CALLS_A_LOOK, is_one));
    is_one
}
