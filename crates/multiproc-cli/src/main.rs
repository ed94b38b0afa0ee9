//! The program `multiproc`.

use std::env;
use std::process::ExitCode;

const USAGE: &str = "\
multiproc: tools for programs that use the library of this name

usage:
  multiproc manager serve|list|watch ...

  manager  named queues, locks and the rest, for programs that start apart:
           `multiproc manager --help` says more
";

/// The arguments are wrong.
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
