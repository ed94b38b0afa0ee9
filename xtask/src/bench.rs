//! `cargo xtask bench`: the benchmarks.

use crate::shell::{self, Error, Result};

pub(crate) fn run(args: &[String]) -> Result {
    let split = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let (names, rest) = args.split_at(split);
    let mut command = shell::cargo_locked("bench", &["-p", "multiproc-benches"]);
    match names {
        [] => {}
        [name] if !name.starts_with('-') => {
            command.args(["--bench", name]);
        }
        _ => return Err(Error::Usage(format!("bench takes one name, not `{}`", names.join(" ")))),
    }
    command.args(rest);
    println!("bench: {}", shell::show(&command));
    shell::run(&mut command)
}
