//! Asymmetric fences: cheap for the side that runs often, a system call for the side that sleeps.
//!
//! A notifier makes a condition true, fences, and checks for sleepers. A sleeper announces itself,
//! fences, and checks the condition. With a full fence on both sides, one of the two sees the other
//! (Dekker). An asymmetric pair has the same effect: the notifier's fence is a mere compiler fence, and
//! the sleeper makes every processor that runs a member pass a full one, by [membarrier(2)]. (In C++,
//! P1202 proposes the pair under the names `asymmetric_thread_fence_light` and `_heavy`.)
//!
//! Whether a pair matches cannot be tested by a model (in loom, both are full fences). So it is a
//! matter of types: a notification takes a proof that the right fence was passed, and the words that
//! are slept on are of a type that says which one that is.
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

/// The asymmetric fences of all who have an object open. It lies in its shared memory.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Fences {
    /// Whether some member cannot be reached by a heavy fence, or could not pass one: then light ones
    /// are full. 1, or 0; never back to 0.
    needs_full: AtomicU32,
}

impl Fences {
    /// To be called by each process before it passes one of the light fences.
    pub fn join(&self) {
        if !has_light_fences() {
            self.use_full_fences();
        }
    }

    fn use_full_fences(&self) {
        self.needs_full.store(1, Ordering::SeqCst);
    }

    /// Whether light fences are full ones: the kernel does not know membarrier(2), or refuses it.
    #[must_use]
    #[inline]
    pub fn are_full(&self) -> bool {
        self.needs_full.load(Ordering::Relaxed) != 0
    }

    /// The notifier's side.
    #[inline]
    pub fn light(&self) -> LightFence {
        if self.are_full() {
            fence(Ordering::SeqCst);
        } else {
            asymmetric_fence_light();
        }
        LightFence(())
    }

    /// The sleeper's side, and a full fence.
    ///
    /// If the kernel refuses (a seccomp filter that was set after this process had joined), all
    /// members use full fences from now on. One that has loaded the old word may still pass a light
    /// fence that this one cannot see: then a wake-up is lost, which the recheck interval makes up for.
    pub fn heavy(&self) -> LightFence {
        if asymmetric_fence_heavy().is_err() {
            self.use_full_fences();
        }
        LightFence(())
    }

    /// A full fence, which serves as a light one.
    #[inline]
    pub fn full(&self) -> LightFence {
        fence(Ordering::SeqCst);
        LightFence(())
    }
}
