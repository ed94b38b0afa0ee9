#![doc = include_str!("../README.md")]

mod builder;
mod client;
mod diagnosis;
mod error;
mod item_type;
mod managed;
mod manager;
mod name;
mod object;
mod open;
#[cfg(feature = "program")]
#[doc(hidden)]
pub mod program;
mod protocol;
mod queue_builder;
mod server;
mod spec;
mod stored;

pub use builder::ManagerBuilder;
pub use diagnosis::Diagnosis;
pub use error::ManagerError;
pub use managed::ManagedObject;
pub use manager::Manager;
pub use name::Name;
pub use object::{ObjectInfo, ObjectKind};
pub use queue_builder::ManagedQueueBuilder;
