//! References and tools of the benches that std does not have. The benches are under `benches/`:
//! see `docs/benchmarks/results.md`.

// A failed measurement ends the bench.
#![allow(clippy::missing_panics_doc)]

use std::env;

pub mod item;
pub mod one_cpu;
pub mod other;
pub mod posix;
pub mod rounds;

/// Runs the benches that the command line names, or all. Runs none if the command line asks for
/// neither benches nor their test.
pub fn run(benches: &[(&str, fn())]) {
    let has = |wanted: &str| env::args().any(|arg| arg == wanted);
    if !(has("--bench") || has("--test")) || has("--list") {
        return;
    }
    // As in criterion, words select benches.
    let words: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, bench) in benches {
        if words.is_empty() || words.iter().any(|word| word == name) {
            bench();
        }
    }
}
