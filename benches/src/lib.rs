//! What the benches compare with and std does not have. They are under `benches/`; see
//! `docs/benchmarks/results.md`.

// What cannot be measured ends the bench.
#![allow(clippy::missing_panics_doc)]

use std::env;

pub mod item;
pub mod one_cpu;
pub mod other;
pub mod posix;
pub mod rounds;

/// Runs those benches that the command line names, or all; none, if it asks for neither benches nor a
/// test of them.
pub fn run(benches: &[(&str, fn())]) {
    let has = |wanted: &str| env::args().any(|arg| arg == wanted);
    if !(has("--bench") || has("--test")) || has("--list") {
        return;
    }
    // As criterion has it: words select benches.
    let words: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, bench) in benches {
        if words.is_empty() || words.iter().any(|word| word == name) {
            bench();
        }
    }
}
