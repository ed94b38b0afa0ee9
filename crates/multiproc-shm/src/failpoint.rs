//! Failpoints: named points at which a test kills the process (the term is that of FreeBSD's
//! fail(9) and the crate `fail`). They are compiled in only with `--cfg multiproc_faults`.
//!
//! In loom's models a thread stands for a process: it stops at the point and does nothing further.

/// Marks a point of an operation. Does nothing unless a test has armed it; then the process is
/// killed here by a real SIGKILL.
#[inline(always)]
pub fn reached(point: &'static str) {
    #[cfg(multiproc_faults)]
    armed::reached(point);
    #[cfg(loom)]
    modelled::reached(point);
    #[cfg(not(any(loom, multiproc_faults)))]
    let _ = point;
}

/// Returns `true` if a test wants this step to fail, as if the kernel had refused it.
#[inline(always)]
pub fn fails(point: &'static str) -> bool {
    #[cfg(multiproc_faults)]
    return armed::fails(point);
    #[cfg(not(multiproc_faults))]
    {
        let _ = point;
        false
    }
}

#[cfg(loom)]
pub use modelled::die_at;

#[cfg(loom)]
mod modelled {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    loom::thread_local! {
        static ARMED: Cell<Option<&'static str>> = Cell::new(None);
    }

    struct Died;

    pub(super) fn reached(point: &'static str) {
        if ARMED.with(Cell::get) == Some(point) {
            // Unlike a panic, this prints nothing. The algorithms have nothing to unwind.
            resume_unwind(Box::new(Died));
        }
    }

    /// Runs `life` until it reaches `point`. Returns `true` if it did.
    pub fn die_at(point: &'static str, life: impl FnOnce()) -> bool {
        ARMED.with(|armed| armed.set(Some(point)));
        let result = catch_unwind(AssertUnwindSafe(life));
        ARMED.with(|armed| armed.set(None));
        match result {
            Ok(()) => false,
            Err(died) if died.is::<Died>() => true,
            Err(panic) => resume_unwind(panic),
        }
    }
}

#[cfg(multiproc_faults)]
pub use armed::{arm, refuse, seen};

#[cfg(multiproc_faults)]
mod armed {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    struct State {
        armed: Option<(String, u32)>,
        seen: BTreeSet<&'static str>,
        refused: BTreeSet<String>,
    }

    static STATE: Mutex<State> =
        Mutex::new(State { armed: None, seen: BTreeSet::new(), refused: BTreeSet::new() });

    pub(super) fn reached(point: &'static str) {
        let Ok(mut state) = STATE.lock() else { return };
        state.seen.insert(point);
        if let Some((name, visits)) = &mut state.armed
            && name == point
        {
            *visits -= 1;
            if *visits == 0 {
                let me = rustix::process::getpid();
                let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
                // The signal is delivered before the call returns.
                std::process::abort();
            }
        }
    }

    /// Kills this process when it reaches `point` for the `visit`th time from now, counted from 1.
    pub fn arm(point: &str, visit: u32) {
        if let Ok(mut state) = STATE.lock() {
            state.armed = Some((point.to_owned(), visit));
        }
    }

    pub(super) fn fails(point: &'static str) -> bool {
        STATE.lock().is_ok_and(|state| state.refused.contains(point))
    }

    /// Makes the step at `point` fail in this process from now on, or ends that.
    pub fn refuse(point: &str, refused: bool) {
        if let Ok(mut state) = STATE.lock() {
            match refused {
                true => state.refused.insert(point.to_owned()),
                false => state.refused.remove(point),
            };
        }
    }

    /// Returns the points that this process has reached so far.
    pub fn seen() -> BTreeSet<&'static str> {
        STATE.lock().map(|state| state.seen.clone()).unwrap_or_default()
    }
}
