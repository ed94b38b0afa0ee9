//! The jobs of this workspace, run as `cargo xtask JOB`.

mod bench;
mod ci;
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
        help: "every check below but bench, with format, lints, tests and docs",
        run: ci::run,
    },
    Job {
        name: "tidy",
        args: "",
        help: "the rules no compiler checks: layers, unsafe code, reasons for dependencies",
        run: tidy::run,
    },
    Job {
        name: "loom",
        args: "[--preemptions N] [FILTER...] [-- TEST-ARGS]",
        help: "the loom models of multiproc-sync and multiproc-queue",
        run: model::loom,
    },
    Job {
        name: "faults",
        args: "[--soak SECONDS] [--seed N] [FILTER...] [-- TEST-ARGS]",
        help: "tests that kill processes, let system calls fail, break streams",
        run: model::faults,
    },
    Job {
        name: "deny",
        args: "",
        help: "licences and sources of the dependencies, by cargo-deny",
        run: ci::run_deny,
    },
    Job {
        name: "doc",
        args: "",
        help: "the documentation of all crates, without warnings",
        run: ci::run_doc,
    },
    Job {
        name: "package",
        args: "",
        help: "packages each published crate, and builds it from its package",
        run: ci::run_package,
    },
    Job {
        name: "bench",
        args: "[NAME] [-- BENCH-ARGS]",
        help: "the benchmarks, or the one called NAME",
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
    // What follows `--` belongs to the tests or the benchmarks.
    let asks_help =
        args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--help" || arg == "-h");
    let Some((name, rest)) = args.split_first().filter(|_| !asks_help) else {
        println!("{}", usage());
        return Ok(());
    };
    match JOBS.iter().find(|job| job.name == name) {
        Some(job) => (job.run)(rest),
        None => Err(Error::Usage(format!("there is no job `{name}`"))),
    }
}

fn usage() -> String {
    let mut text = "usage: cargo xtask JOB\n\njobs:".to_string();
    for Job { name, args, help, .. } in JOBS {
        let call = format!("{name} {args}");
        text += &format!("\n  {call:<51} {help}");
    }
    text
}
