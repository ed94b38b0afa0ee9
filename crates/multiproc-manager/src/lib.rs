#![doc = include_str!("../README.md")]

mod builder;
mod client;
mod error;
mod item_type;
mod manager;
mod name;
mod object;
mod open;
#[cfg(feature = "program")]
#[doc(hidden)]
pub mod program;
mod protocol;
mod server;

pub use builder::ManagerBuilder;
pub use error::ManagerError;
pub use manager::Manager;
pub use name::Name;
pub use object::{ObjectInfo, ObjectKind};
