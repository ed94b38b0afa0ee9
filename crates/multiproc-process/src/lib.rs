#![doc = include_str!("../README.md")]
// The examples show whole programs, because `init` belongs in `main`.
#![allow(clippy::needless_doctest_main)]

mod bootstrap;
mod builder;
mod bulk;
mod child;
mod child_table;
mod current;
mod error;
mod executable;
mod failpoint;
mod finish;
mod function;
mod inherited;
mod init;
mod limits;
mod newborn;
mod on_start;
mod panic_report;
mod parent_watch;
mod pidfd;
mod process;
mod protocol;
mod remote_error;
mod scope;
mod spawn;
mod status;
mod thread;

pub use builder::Builder;
#[doc(no_inline)]
pub use builder::Builder as ProcessBuilder;
pub use child::Child;
pub use child_table::active_children;
pub use current::{CurrentProcess, ParentProcess, cpu_count, current_process, parent_process};
pub use error::{JoinError, JoinTimeoutError, SpawnError};
pub use finish::{FailedProcess, FinishFailure};
pub use function::{Arguments, Function};
pub use init::{Runtime, init};
pub use limits::Resource;
pub use on_start::StartResult;
pub use process::Process;
pub use remote_error::RemoteError;
pub use scope::{Scope, scope};
pub use status::ExitStatus;

#[doc(hidden)]
pub mod private {
    pub use crate::failpoint::{CHILD_POINTS, SPAWN_POINTS};
    pub use crate::init::{Constructor, in_tests};
}
