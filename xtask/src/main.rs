//! The development tasks of this workspace. `cargo xtask JOB` runs one of them.

mod bench;
mod ci;
mod kills;
mod model;
mod shell;
mod tidy;

use std::env;
use std::process::ExitCode;

use shell::{Error, Result};

struct Job {
    name: &'static str,
    args: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Result,
}

const JOBS: &[Job] = &[
    Job {
        name: "ci",
        args: "",
        help: "run all checks: format, clippy, tests, and every job below except kills and bench",
        run: ci::run,
    },
    Job {
        name: "tidy",
        args: "",
        help: "check layers, unsafe code and the reasons for dependencies",
        run: tidy::run,
    },
    Job {
        name: "loom",
        args: "[--preemptions N] [FILTER...] [-- TEST-ARGS]",
        help: "run the loom models of multiproc-shm, multiproc-sync and multiproc-queue",
        run: model::loom,
    },
    Job {
        name: "faults",
        args: "[--soak SECONDS] [--seed N] [FILTER...] [-- TEST-ARGS]",
        help: "run the tests that kill processes, fail system calls and break streams",
        run: model::faults,
    },
    Job {
        name: "kills",
        args: "[--rounds N] [--seed N] [FILTER...]",
        help: "kill each process of each example program, 100 times",
        run: kills::run,
    },
    Job {
        name: "deny",
        args: "",
        help: "check the licences and sources of dependencies with cargo-deny",
        run: ci::run_deny,
    },
    Job {
        name: "doc",
        args: "",
        help: "build the documentation of all crates and deny warnings",
        run: ci::run_doc,
    },
    Job {
        name: "package",
        args: "",
        help: "package each published crate and build it from its package",
        run: ci::run_package,
    },
    Job {
        name: "bench",
        args: "[--peers] [NAME] [-- BENCH-ARGS]",
        help: "run all benchmarks, or the one called NAME",
        run: bench::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Failed(why)) => {
            eprintln!("xtask: {why}");
            ExitCode::from(1)
        }
        Err(Error::Usage(why)) => {
            eprintln!("xtask: {why}\n\n{}", usage());
            ExitCode::from(2)
        }
    }
}

fn dispatch(args: &[String]) -> Result {
    // Arguments after `--` belong to the tests or the benchmarks.
    let asks_help =
        args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--help" || arg == "-h");
    let Some((name, rest)) = args.split_first().filter(|_| !asks_help) else {
        println!("{}", usage());
        return Ok(());
    };
    match JOBS.iter().find(|job| job.name == name) {
        Some(job) if job.args.is_empty() && !rest.is_empty() => {
            Err(Error::Usage(format!("{name} takes no arguments")))
        }
        Some(job) => (job.run)(rest),
        None => Err(Error::Usage(format!("unknown job `{name}`"))),
    }
}

fn usage() -> String {
    let mut text = "usage: cargo xtask JOB [ARGS]\n\njobs:".to_string();
    for Job { name, args, help, .. } in JOBS {
        text += &format!("\n  {name:<8} {help}");
        if !args.is_empty() {
            text += &format!("\n  {:<8}   {args}", "");
        }
    }
    text
}
