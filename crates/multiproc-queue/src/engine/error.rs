//! The errors of the engine.

/// The reason why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineError {
    /// The deadline passed while a live process, most likely a stopped one, held a lock.
    Stalled,
    /// Other code in this process has closed the descriptor that is needed to check whether members
    /// are alive.
    CutOff,
    /// The queue was shut down.
    Closed,
    /// No process is left on the other side.
    Disconnected,
    /// The kernel has no memory for the item.
    OutOfMemory,
    /// The kernel refused to transfer descriptors.
    Os(i32),
    /// The maximum number of tasks is in progress.
    TooManyTasks,
    /// The shared memory contains a value that no member writes.
    Corrupted(&'static str),
}
