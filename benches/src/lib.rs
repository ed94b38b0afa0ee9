//! References and tools for the benches, which are under `benches/`.
//!
//! `docs/benchmarks/workloads.md` describes what they measure.

// A failed measurement ends the bench.
#![allow(clippy::missing_panics_doc)]

use std::env;

pub mod item;
pub mod machine;
pub mod one_cpu;
pub mod other;
pub mod posix;
pub mod rounds;

/// Runs the benches that the command line names, or all of them if it names none. Runs nothing
/// without `--bench` or `--test`, or with `--list`.
pub fn run(benches: &[(&str, fn())]) {
    let has = |wanted: &str| env::args().any(|arg| arg == wanted);
    if !(has("--bench") || has("--test")) || has("--list") {
        return;
    }
    machine::print();
    // As in criterion, words select benches.
    let words: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, bench) in benches {
        if words.is_empty() || words.iter().any(|word| word == name) {
            bench();
        }
    }
}
