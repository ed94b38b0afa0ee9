//! `cargo xtask bench [--peers] [NAME] [-- BENCH-ARGS]`: runs the benchmarks of the package
//! `multiproc-benches`, or the one called NAME (a file in `benches/benches/` without its ending).
//!
//! `--peers` also measures other libraries. They exist for queues only, so without a NAME it
//! selects `queue`. BENCH-ARGS are passed to the benchmark. The name of a part selects that part,
//! except in `manager`, which ignores it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{self, Error, Result};

/// The Python packages that `--peers` compares with, in addition to the standard library.
const PEERS: &[&str] = &["faster-fifo"];

pub(crate) fn run(args: &[String]) -> Result {
    let split = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let (own, rest) = args.split_at(split);
    let (flags, names): (Vec<_>, Vec<_>) = own.iter().partition(|arg| arg.starts_with('-'));
    let with_peers = match flags.as_slice() {
        [] => false,
        [flag] if *flag == "--peers" => true,
        _ => return Err(Error::Usage("the only flag of bench is --peers".to_owned())),
    };
    let mut command = shell::cargo_locked("bench", &["-p", "multiproc-benches"]);
    match names.as_slice() {
        // Only the benchmark of queues has peers.
        [] if with_peers => {
            command.args(["--bench", "queue"]);
        }
        [] => {}
        [name] => {
            command.args(["--bench", name]);
        }
        _ => {
            let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
            return Err(Error::Usage(format!(
                "bench takes at most one name, not `{}`",
                names.join(" ")
            )));
        }
    }
    command.args(rest);
    if with_peers {
        if rest.is_empty() {
            command.arg("--");
        }
        command.arg("--peers");
        command.env("MULTIPROC_PEERS_PYTHON", install_peers());
    }
    println!("bench: {}", shell::show(&command));
    shell::run(&mut command)
}

/// Installs the peers in a virtual environment under `target` and returns its Python. The benchmark
/// reports the peers that could not be installed.
fn install_peers() -> PathBuf {
    let folder = Path::new("target/peers");
    let python = folder.join("bin/python3");
    let made = python.exists()
        || shell::run(Command::new("python3").args(["-m", "venv"]).arg(folder)).is_ok();
    if !made {
        return PathBuf::from("python3");
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PEERS);
    if shell::run(&mut pip).is_err() {
        println!("bench: cannot install all of {PEERS:?}");
    }
    std::env::current_dir().map_or(python.clone(), |here| here.join(&python))
}
