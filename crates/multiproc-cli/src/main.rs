//! The program `multiproc`.

use std::env;
use std::process::ExitCode;

const USAGE: &str = "\
multiproc: tools for programs that use the library multiproc

usage:
  multiproc manager serve|list|watch ADDRESS ...

  manager  run or inspect a manager of named queues and locks

`multiproc manager --help` lists the options.
";

/// The exit code after wrong arguments.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(command) = arguments.next() else {
        print!("{USAGE}");
        return ExitCode::from(MISUSED);
    };
    match command.to_str() {
        Some("manager") => multiproc_manager::program::run("multiproc manager", arguments),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("multiproc: there is no command {command:?}\n\n{USAGE}");
            ExitCode::from(MISUSED)
        }
    }
}
