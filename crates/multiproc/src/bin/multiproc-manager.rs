//! `multiproc-manager`: a manager as a program of its own, and a look into one that runs.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    multiproc_manager::program::run("multiproc-manager", env::args_os().skip(1))
}
