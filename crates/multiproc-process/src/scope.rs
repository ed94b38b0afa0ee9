//! Processes that end before a scope does.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use multiproc_message::Message;

use crate::child::Child;
use crate::child_table;
use crate::error::SpawnError;
use crate::function::{Arguments, Function};
use crate::process::Process;

/// Calls `f`, which may start processes in the scope, and waits for all of them to end.
///
/// When `f` returns, the processes that it has not joined are joined. If `f` panics, they are
/// terminated (SIGTERM, and SIGKILL if they are still alive after one second), and the panic
/// continues.
///
/// An early return from `f` is not a panic: the scope still waits. Make sure that whatever its
/// processes wait for arrives, or is closed, on every return path. A process that is killed ends
/// the wait for it at once.
///
/// Unlike scoped threads, processes cannot borrow: their arguments are sent as a message.
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
/// Panics if `f` panics. Like `std::thread::scope`, it also panics if a process failed unnoticed:
/// its exit code is not 0, and its handle was never used to join it, to wait for it, to query its
/// exit status, or to signal it. Join the processes whose failure you want to handle.
pub fn scope<T>(f: impl FnOnce(&Scope) -> T) -> T {
    let scope = Scope { children: Mutex::default() };
    // Unwind safe: the panic is resumed below.
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

/// A scope in which processes are started. Created by [`scope`].
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{Scope, SpawnError};
///
/// fn start(scope: &Scope, count: u32) -> Result<(), SpawnError> {
///     for n in 0..count {
///         scope.spawn(|n: u32| println!("{n}"), n)?;
///     }
///     Ok(())
/// }
///
/// multiproc::scope(|s| start(s, 3))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Scope {
    children: Mutex<Vec<Child>>,
}

impl Scope {
    /// Starts a process that ends before the scope does. See [`Process::spawn`]; for more settings,
    /// see [`Builder::spawn_scoped`](crate::Builder::spawn_scoped).
    ///
    /// ```
    /// # multiproc::enable_in_tests!();
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use multiproc::Process;
    ///
    /// let sum = multiproc::scope(|s| -> Result<u64, Box<dyn std::error::Error>> {
    ///     let halves: Vec<Process<u64>> = [vec![1, 2], vec![3, 4]]
    ///         .into_iter()
    ///         .map(|half| s.spawn(|half: Vec<u64>| half.iter().sum(), half))
    ///         .collect::<Result<_, _>>()?;
    ///     let mut sum = 0;
    ///     for half in halves {
    ///         sum += half.join()?;
    ///     }
    ///     Ok(sum)
    /// })?;
    /// assert_eq!(sum, 10);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same as for [`Process::spawn`].
    pub fn spawn<F, A, R, M>(&self, f: F, args: A) -> Result<Process<R>, SpawnError>
    where
        F: Function<A, R, M>,
        A: Arguments<F, R, M> + Message,
        R: Message,
    {
        Process::builder().spawn_scoped(self, f, args)
    }

    pub(crate) fn add(&self, child: &Child) {
        self.children.lock().unwrap_or_else(PoisonError::into_inner).push(child.clone());
    }
}
