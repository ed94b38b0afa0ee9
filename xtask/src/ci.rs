//! `cargo xtask ci`: runs all checks, the fastest first.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::shell::{self, Error, Result, cargo, cargo_locked, failed};
use crate::{model, tidy};

enum Action {
    Cargo(Command),
    Job(fn(&[String]) -> Result),
}

struct Step {
    name: &'static str,
    action: Action,
}

impl Step {
    fn command(&self) -> String {
        match &self.action {
            Action::Cargo(command) => shell::show(command),
            Action::Job(_) => format!("cargo xtask {}", self.name),
        }
    }

    fn run(&mut self) -> Result {
        match &mut self.action {
            Action::Cargo(command) => shell::run(command),
            Action::Job(job) => job(&[]),
        }
    }
}

fn doc() -> Command {
    let mut doc = cargo_locked("doc", &["--workspace", "--all-features", "--no-deps"]);
    // By default, a broken link is only a warning.
    doc.env("RUSTDOCFLAGS", shell::with_flags("RUSTDOCFLAGS", "-D warnings"));
    doc
}

fn steps() -> Vec<Step> {
    let cargo_step = |name, command| Step { name, action: Action::Cargo(command) };
    let job = |name, run| Step { name, action: Action::Job(run) };

    vec![
        // fmt resolves no dependencies, so it has no --locked.
        cargo_step("fmt", cargo("fmt", &["--all", "--check"])),
        job("tidy", tidy::run),
        // --all-targets adds tests, examples and benchmarks. Warnings are denied after `--`,
        // because a change of RUSTFLAGS would rebuild every dependency.
        cargo_step(
            "clippy",
            cargo_locked(
                "clippy",
                &["--workspace", "--all-features", "--all-targets", "--", "-D", "warnings"],
            ),
        ),
        // Without --all-targets, which would skip the doc tests.
        cargo_step("test", cargo_locked("test", &["--workspace", "--all-features"])),
        job("deny", run_deny),
        job("loom", model::loom),
        job("faults", model::faults),
        cargo_step("doc", doc()),
        job("package", run_package),
    ]
}

/// Builds each published crate from its package alone, as uploaded to crates.io.
///
/// Cargo keeps the sources of a package by the path of the registry and by its version. In a target
/// folder that was used before, it would build with the crates of that time. So each run has a
/// target folder of its own.
pub(crate) fn run_package(_: &[String]) -> Result {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let folder = shell::target().join(format!("package-{}", now.as_nanos()));
    let args = ["--workspace", "--dry-run", "--allow-dirty", "--quiet", "--target-dir"];
    let result = shell::run(cargo_locked("publish", &args).arg(&folder));
    // It does no harm if it cannot be removed.
    let _ = fs::remove_dir_all(&folder);
    result
}

/// Checks licences, versions and sources of the dependencies. Advisories need a network connection:
/// see CONTRIBUTING.md.
pub(crate) fn run_deny(_: &[String]) -> Result {
    let is_installed = cargo("deny", &["--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !is_installed {
        println!("deny: skipped because cargo-deny is missing: run `cargo install cargo-deny`");
        return Ok(());
    }
    let check = ["--offline", "check", "licenses", "bans", "sources"];
    shell::run(&mut cargo("deny", &check))
}

pub(crate) fn run_doc(_: &[String]) -> Result {
    shell::run(&mut doc())
}

pub(crate) fn run(_: &[String]) -> Result {
    let mut times = Vec::new();
    for mut step in steps() {
        let (name, command) = (step.name, step.command());
        println!("\nci: {name}: {command}");
        let start = Instant::now();
        let result = step.run();
        let time = start.elapsed();
        println!("ci: {name}: {:.1} s", time.as_secs_f64());
        if let Err(Error::Failed(why) | Error::Usage(why)) = result {
            return failed(format!("{why}\nci: step {name} failed; repeat it with: {command}"));
        }
        times.push((name, time));
    }
    println!("\n{}", summary(&times));
    Ok(())
}

fn summary(times: &[(&str, Duration)]) -> String {
    let total = times.iter().map(|(_, time)| *time).sum();
    let mut text = format!("{:<8} {:>8}", "step", "seconds");
    for (name, time) in times.iter().chain(&[("total", total)]) {
        text += &format!("\n{name:<8} {:>8.1}", time.as_secs_f64());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lists_steps_and_their_total() {
        let times = [("fmt", Duration::from_millis(500)), ("tidy", Duration::from_millis(1500))];
        let lines = "step      seconds\nfmt           0.5\ntidy          1.5\ntotal         2.0";
        assert_eq!(summary(&times), lines);
    }
}
