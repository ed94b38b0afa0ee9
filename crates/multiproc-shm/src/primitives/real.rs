//! The real ones.

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
/// It is an atomic `u32` (by `Deref`) with three more functions. The shared kind of futex: it works
/// between processes that map the same memory at different addresses.
///
/// [futex(2)]: https://man7.org/linux/man-pages/man2/futex.2.html
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Futex(AtomicU32);

impl Futex {
    /// A futex that holds `value`.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    /// Sleeps while the word holds `expected`. False: the deadline passed. True: woken, or the word
    /// holds something else, or for no reason.
    pub fn wait(&self, expected: u32, deadline: Deadline) -> bool {
        let timeout = deadline.remaining().and_then(|left| Timespec::try_from(left).ok());
        futex::wait(&self.0, Flags::empty(), expected, timeout.as_ref()) != Err(Errno::TIMEDOUT)
    }

    /// Wakes up to `count` sleepers (at most `i32::MAX`).
    pub fn wake(&self, count: u32) {
        // It can only fail for an address that is not mapped.
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

/// A load by whoever holds the lock that every store to the word needs.
///
/// loom's own is no point of interleaving, and fails if somebody does store meanwhile. (It also keeps
/// loom from missing interleavings: it remembers one last load of a word, and a load before each
/// store, by the one who stores, would hide those of the others.)
#[inline]
pub fn load_locked(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

/// A full fence for code that has just done a read-modify-write with `AcqRel`.
///
/// On x86-64 that instruction was a full fence already, so the compiler alone must be told (Linux
/// has the same under the name `smp_mb__after_atomic`).
#[inline]
pub fn fence_after_rmw() {
    #[cfg(target_arch = "x86_64")]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(target_arch = "x86_64"))]
    fence(Ordering::SeqCst);
}

/// Whether the heavy fence of any process reaches this one: see [`fences`](crate::fences).
///
/// The first call registers the process with the kernel ([membarrier(2)]), which takes some 10 µs; but
/// 10 ms if it has several threads already. False: this kernel does not let it.
///
/// [membarrier(2)]: https://man7.org/linux/man-pages/man2/membarrier.2.html
pub fn has_light_fences() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok())
}

/// The light side of an asymmetric fence, which tells only the compiler. To be used through
/// [`Fences`](crate::fences::Fences).
#[inline]
pub(crate) fn asymmetric_fence_light() {
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// The heavy side: a system call, from half a microsecond to some. It is a full fence in any case; an
/// error says that it did not reach the others.
pub(crate) fn asymmetric_fence_heavy() -> std::io::Result<()> {
    fence(Ordering::SeqCst);
    let result = membarrier(MembarrierCommand::GlobalExpedited);
    fence(Ordering::SeqCst);
    Ok(result?)
}

/// Spins: 16 times is some hundred nanoseconds, enough for another processor to do several operations
/// on a cache line that this one keeps its hands off.
#[inline]
pub fn pause(times: u32) {
    for _ in 0..times {
        std::hint::spin_loop();
    }
}

/// Whether this thread may run on one processor alone: then spinning keeps the other side from
/// running. Asks the kernel now and then: it can change, and asking takes as long as some spinning.
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
