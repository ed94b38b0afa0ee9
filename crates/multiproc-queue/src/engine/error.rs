//! Why an operation of the engine failed.

/// Why an operation came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineError {
    /// The deadline passed while a living process, most likely a stopped one, held a lock.
    Stalled,
    /// Other code in this process has closed the descriptor by which other members are asked about.
    CutOff,
    /// The queue was shut down.
    Closed,
    /// Nobody is left on the other side.
    Disconnected,
    /// The kernel has no memory for the item.
    OutOfMemory,
    /// The kernel refused to pass descriptors on.
    Os(i32),
    /// As many tasks are in work as can be.
    TooManyTasks,
    /// The shared memory holds what no member writes.
    Corrupted(&'static str),
}
