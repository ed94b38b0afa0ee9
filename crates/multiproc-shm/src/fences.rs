//! Asymmetric fences: cheap for the side that runs often, a system call for the side that sleeps.
//!
//! A notifier makes a condition true, fences, and checks for sleepers. A sleeper announces itself,
//! fences, and checks the condition. With a full fence on both sides, one of the two sees the other
//! (Dekker's pattern). An asymmetric pair has the same effect: the notifier's fence is a compiler
//! fence only, and the sleeper makes every processor that runs a member pass a full fence, by
//! [membarrier(2)]. C++ P1202 proposes the pair as `asymmetric_thread_fence_light` and `_heavy`.
//!
//! A model cannot test whether a pair matches, because in loom both are full fences. Therefore the
//! types enforce it: a notification takes a proof that the right fence was passed, and the type of
//! the word determines which one that is.
//!
//! [membarrier(2)]: https://man7.org/linux/man-pages/man2/membarrier.2.html

use crate::primitives::{
    AtomicU32, Ordering, asymmetric_fence_heavy, asymmetric_fence_light, fence, has_light_fences,
};

/// Proof that a full fence was passed after the last change.
#[derive(Debug, Clone, Copy)]
pub struct FullFence(());

/// Proof that a [light fence](Fences::light), or a stronger one, was passed after the last change.
#[derive(Debug, Clone, Copy)]
pub struct LightFence(());

/// A sequentially consistent fence.
#[inline]
pub fn full_fence() -> FullFence {
    fence(Ordering::SeqCst);
    FullFence(())
}

/// A full fence for code that has just done a read-modify-write with `AcqRel`: see
/// [`fence_after_rmw`](crate::primitives::fence_after_rmw).
#[inline]
pub fn full_fence_after_rmw() -> FullFence {
    crate::primitives::fence_after_rmw();
    FullFence(())
}

/// The asymmetric fences of all members of an object, placed in its shared memory.
#[derive(Debug, Default)]
#[repr(transparent)]
#[doc(alias = "membarrier")]
pub struct Fences {
    /// 1 if some member cannot be reached by a heavy fence or could not pass one; light fences are
    /// then full. It never returns to 0.
    needs_full: AtomicU32,
}

impl Fences {
    /// Must be called by each process before it passes a light fence.
    pub fn join(&self) {
        if !has_light_fences() {
            self.use_full_fences();
        }
    }

    fn use_full_fences(&self) {
        self.needs_full.store(1, Ordering::SeqCst);
    }

    /// Returns `true` if light fences are full ones, because the kernel lacks membarrier(2) or
    /// refuses it.
    #[must_use]
    #[inline]
    pub fn are_full(&self) -> bool {
        self.needs_full.load(Ordering::Relaxed) != 0
    }

    /// Passes the notifier's fence.
    #[inline]
    pub fn light(&self) -> LightFence {
        if self.are_full() {
            fence(Ordering::SeqCst);
        } else {
            asymmetric_fence_light();
        }
        LightFence(())
    }

    /// Passes the sleeper's fence, which is also a full fence.
    ///
    /// If the kernel refuses it (a seccomp filter that was set after this process joined), all
    /// members use full fences from now on. A member that has loaded the old word may still
    /// pass a light fence that this one cannot see. A wake-up is then lost and recovered by the
    /// recheck interval.
    pub fn heavy(&self) -> LightFence {
        if asymmetric_fence_heavy().is_err() {
            self.use_full_fences();
        }
        LightFence(())
    }

    /// Passes a full fence, which serves as a light one.
    #[inline]
    pub fn full(&self) -> LightFence {
        fence(Ordering::SeqCst);
        LightFence(())
    }
}
