//! Processes that do not outlive a piece of code.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::child::Child;
use crate::child_table;
use crate::error::SpawnError;
use crate::process::Process;

/// Runs `f`, which starts processes in the scope, and waits for the end of all of them.
///
/// Those that `f` has not joined are joined when it returns. If it panics, they are terminated
/// (SIGTERM, and SIGKILL if they are still there a second later), and then the panic goes on.
///
/// An early return is no panic: the scope waits then, too. So what its processes wait for has to come,
/// or to be closed, on every way out.
///
/// Unlike threads in a scope, processes cannot borrow: they get their arguments as a message.
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::Queue;
///
/// let squares = Queue::bounded(10)?;
/// multiproc::scope(|s| -> Result<(), multiproc::SpawnError> {
///     for n in 1..=3_u64 {
///         s.spawn(|(n, to): (u64, Queue<u64>)| to.put(n * n).unwrap(), (n, squares.clone()))?;
///     }
///     Ok(())
/// })?;
/// // All have ended here.
/// assert_eq!(squares.len(), 3);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// If `f` does; and, as `std::thread::scope` does, if a process failed and nobody could have noticed:
/// it did not end with code 0, and its handle was neither joined nor waited on, nor was it asked for
/// the exit status, nor to end the process. Join those whose failure is to be handled.
pub fn scope<T>(f: impl FnOnce(&Scope) -> T) -> T {
    let scope = Scope { children: Mutex::default() };
    // Unwind safe: if it panics, so does this.
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let children = scope.children.into_inner().unwrap_or_else(PoisonError::into_inner);
    match result {
        Err(panic) => {
            child_table::end(&children);
            resume_unwind(panic)
        }
        Ok(value) => {
            let failed: Vec<String> = children.iter().filter_map(unnoticed_failure).collect();
            assert!(failed.is_empty(), "a process in a scope failed: {}", failed.join("; "));
            value
        }
    }
}

fn unnoticed_failure(child: &Child) -> Option<String> {
    let is_noticed = child.is_noticed();
    let status = child.wait();
    let is_failure = !is_noticed && !status.success();
    is_failure.then(|| format!("{} (pid {}) {status}", child.name(), child.pid()))
}

/// Where processes are started that [`scope`] waits for.
#[derive(Debug)]
pub struct Scope {
    children: Mutex<Vec<Child>>,
}

impl Scope {
    /// Starts a process that ends before the scope does: see [`Process::spawn`]. To set more than
    /// function and arguments, use [`Builder::spawn_scoped`](crate::Builder::spawn_scoped).
    ///
    /// # Errors
    ///
    /// As [`Process::spawn`].
    pub fn spawn<F, A, R>(&self, f: F, args: A) -> Result<Process<R>, SpawnError>
    where
        F: FnOnce(A) -> R + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        Process::builder().spawn_scoped(self, f, args)
    }

    pub(crate) fn add(&self, child: &Child) {
        self.children.lock().unwrap_or_else(PoisonError::into_inner).push(child.clone());
    }
}
