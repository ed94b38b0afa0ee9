//! The program `multiproc-manager`: runs or inspects a manager. `multiproc manager` is the same.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    multiproc_manager::program::run("multiproc-manager", env::args_os().skip(1))
}
