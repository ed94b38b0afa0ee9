//! Handling of fork(2): parent and child never share a membership.
//!
//! A child made by fork(2) inherits descriptors and mappings, and through them the open file
//! description whose lock shows that the parent is alive. Therefore a handler that runs in the
//! child, before fork(2) returns there, reopens each region and maps it at the same address. From
//! then on the parent's death is noticed although the child lives, and vice versa. The child
//! becomes a member with its first operation. A child that calls exec(2) never becomes one, and its
//! end has no effect.
//!
//! The handlers are those of pthread_atfork(3). In the child, where other threads may have held any
//! lock when they ceased to exist, they do not allocate, and take no lock but the one that the
//! parent took before the fork. Children of vfork(2), posix_spawn(3) and a bare clone(2) run no
//! handlers: the first two call exec(2) at once, and the last is not supported.
//!
//! Contains `unsafe` to register the handlers and to keep the guard of the lock between them.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::sync::{MutexGuard, Once, PoisonError, Weak};

use super::registry::{OPEN, OpenRegions};

/// The lock on [`OPEN`] during a fork.
struct Held(UnsafeCell<Option<MutexGuard<'static, OpenRegions>>>);

// SAFETY: only the thread that holds the lock touches it: it is filled just after the lock was
// taken, and emptied by the same thread (in the parent, or as the only one in the child) before it
// is freed.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

/// Registers the handlers. Called before a process becomes a member for the first time, with
/// [`OPEN`] held.
pub(crate) fn register() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the handlers are functions of this library, and do not unwind. If there is no
        // memory for the registration, forked children share the membership of their
        // parent.
        unsafe { pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    });
}

unsafe extern "C" {
    /// See pthread_atfork(3). (The crate libc does not have it for Linux.)
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> libc::c_int;
}

unsafe extern "C" fn before() {
    let guard = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: this thread has just taken the lock.
    unsafe { *HELD.0.get() = Some(guard) };
}

fn take() -> Option<MutexGuard<'static, OpenRegions>> {
    // SAFETY: called by the handlers after a fork, in the thread that took the lock before it.
    unsafe { (*HELD.0.get()).take() }
}

unsafe extern "C" fn in_parent() {
    drop(take());
}

unsafe extern "C" fn in_child() {
    let Some(regions) = take() else { return };
    // The other threads are gone with their handles still counted, so no upgrade here is the last.
    for region in regions.values().filter_map(Weak::upgrade) {
        // The first use of the region reports the error.
        let _ = region.separate();
    }
}
