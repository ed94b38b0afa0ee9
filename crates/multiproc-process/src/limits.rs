//! Limits on the resources of a child: see setrlimit(2).

use std::fmt;
use std::io;

use rustix::process::{Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use serde::{Deserialize, Serialize};

/// A resource whose use by a process can be limited with
/// [`Builder::rlimit`](crate::Builder::rlimit).
///
/// ```
/// # multiproc::enable_in_tests!();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use multiproc::{Process, Resource};
///
/// // At most 1 GiB of data, and at most 10 s of CPU time.
/// let worker = Process::builder()
///     .rlimit(Resource::Data, 1 << 30, 1 << 30)
///     .rlimit(Resource::CpuTime, 10, 11)
///     .spawn(|()| vec![1_u8; 1000].len(), ())?;
/// assert_eq!(worker.join()?, 1000);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "setrlimit")]
#[doc(alias = "ulimit")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Resource {
    /// The size of the address space, in bytes. A queue reserves address space for its `max_bytes`,
    /// so [`Data`](Self::Data) suits most programs better.
    #[doc(alias = "RLIMIT_AS")]
    AddressSpace,
    /// The size of a core dump, in bytes. 0 prevents core dumps.
    #[doc(alias = "RLIMIT_CORE")]
    CoreSize,
    /// CPU time, in seconds. At the soft limit the kernel sends SIGXCPU, and at the hard limit
    /// SIGKILL.
    #[doc(alias = "RLIMIT_CPU")]
    CpuTime,
    /// The private memory that the process may write to, in bytes: heap, stacks, statics.
    /// Allocations beyond it fail, and Rust programs abort then. Shared memory does not count.
    #[doc(alias = "RLIMIT_DATA")]
    Data,
    /// The size of a file that the process writes, in bytes. It also limits the size of the regions
    /// of shared memory that the process creates.
    #[doc(alias = "RLIMIT_FSIZE")]
    FileSize,
    /// Memory that is locked with mlock(2), in bytes.
    #[doc(alias = "RLIMIT_MEMLOCK")]
    LockedMemory,
    /// The largest descriptor number that the process may open, plus one.
    #[doc(alias = "RLIMIT_NOFILE")]
    OpenFiles,
    /// The number of processes and threads of the user. Processes of root are not limited.
    #[doc(alias = "RLIMIT_NPROC")]
    Processes,
    /// The size of the stack of the main thread, in bytes.
    #[doc(alias = "RLIMIT_STACK")]
    Stack,
}

impl Resource {
    /// The value of a limit that does not limit: `RLIM_INFINITY`.
    pub const UNLIMITED: u64 = u64::MAX;

    fn to_kernel(self) -> rustix::process::Resource {
        use rustix::process::Resource as Kernel;
        match self {
            Self::AddressSpace => Kernel::As,
            Self::CoreSize => Kernel::Core,
            Self::CpuTime => Kernel::Cpu,
            Self::Data => Kernel::Data,
            Self::FileSize => Kernel::Fsize,
            Self::LockedMemory => Kernel::Memlock,
            Self::OpenFiles => Kernel::Nofile,
            Self::Processes => Kernel::Nproc,
            Self::Stack => Kernel::Stack,
        }
    }
}

/// A limit that a child sets for itself.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Limit {
    pub(crate) resource: Resource,
    soft: u64,
    hard: u64,
}

impl Limit {
    /// Returns an error if the kernel would refuse the limit in a child of this process.
    pub(crate) fn new(resource: Resource, soft: u64, hard: u64) -> io::Result<Self> {
        let limit = Self { resource, soft, hard };
        if soft > hard {
            let why = "the soft limit exceeds the hard limit; pass the soft limit first";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, limit.refused(why)));
        }
        let maximum = getrlimit(resource.to_kernel()).maximum.unwrap_or(Resource::UNLIMITED);
        if hard > maximum && !may_raise_limits() {
            let why = format!(
                "the hard limit of this process is {}, and only a process with CAP_SYS_RESOURCE may \
                 raise it; request no more than that",
                Value(maximum)
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, limit.refused(&why)));
        }
        Ok(limit)
    }

    /// Sets the limit for this process.
    pub(crate) fn set(self) -> Result<(), String> {
        let value = |limit| (limit != Resource::UNLIMITED).then_some(limit);
        let limit = Rlimit { current: value(self.soft), maximum: value(self.hard) };
        setrlimit(self.resource.to_kernel(), limit)
            .map_err(|error| self.refused(&io::Error::from(error).to_string()))
    }

    fn refused(&self, why: &str) -> String {
        let Self { resource, soft, hard } = *self;
        let (soft, hard) = (Value(soft), Value(hard));
        format!("cannot limit {resource:?} to {soft} (soft) and {hard} (hard): {why}")
    }
}

/// Whether this process may raise its hard limits, as root may.
fn may_raise_limits() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// Displays a limit.
struct Value(u64);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Resource::UNLIMITED => f.write_str("unlimited"),
            limit => write!(f, "{limit}"),
        }
    }
}
