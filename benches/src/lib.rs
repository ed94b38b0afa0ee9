//! What the benches compare with and std does not have. They are under `benches/`; see
//! `docs/benchmarks.md`.

// What cannot be measured ends the bench.
#![allow(clippy::missing_panics_doc)]

pub mod item;
pub mod one_cpu;
pub mod other;
pub mod posix;
pub mod rounds;
