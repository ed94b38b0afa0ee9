//! `cargo xtask loom` and `cargo xtask faults`: run the tests that exist only under a cfg flag.
//!
//! A test that is not compiled cannot fail. So both jobs count the tests that passed in each crate,
//! and fail if there are none.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::shell::{self, Error, Result, failed};

struct Suite {
    name: &'static str,
    cfg: &'static str,
    crates: &'static [&'static str],
    /// The arguments that select profile and targets.
    targets: &'static [&'static str],
    /// More targets for a long run, with their crate.
    long_targets: &'static [(&'static str, &'static [&'static str])],
    /// The filter if the command line contains none.
    filter: Option<&'static str>,
    test_args: &'static [&'static str],
}

const LOOM: Suite = Suite {
    name: "loom",
    cfg: "loom",
    crates: &["multiproc-shm", "multiproc-sync", "multiproc-queue"],
    // --release, because a model runs its code thousands of times. --lib, because the models are
    // unit tests and the other targets do not compile with loom's atomics.
    targets: &["--release", "--lib"],
    long_targets: &[],
    // The models are in modules called `loom_tests`. Other unit tests panic with loom's atomics.
    filter: Some("loom"),
    // Shows loom's report of the number of executions.
    test_args: &["--nocapture"],
};

const FAULTS: Suite = Suite {
    name: "faults",
    cfg: "multiproc_faults",
    crates: &["multiproc-pipe", "multiproc-sync", "multiproc-queue", "multiproc-process"],
    // Selects tests/*faults.rs. Cargo fails if a crate has no such file.
    targets: &["--test", "*faults"],
    // Tests that use the time of a long run.
    long_targets: &[("multiproc-queue", &["--test", "differential", "--test", "memory"])],
    filter: None,
    test_args: &[],
};

/// Bugs in lock-free code rarely need more than three preemptions, and each further one multiplies
/// the time.
const PREEMPTIONS: u32 = 3;

/// The duration of the random tests.
const SOAK: &str = "MULTIPROC_SOAK_SECONDS";

/// How long the output may stay open after the tests have ended.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn loom(args: &[String]) -> Result {
    const VARIABLE: &str = "LOOM_MAX_PREEMPTIONS";
    let mut args = args;
    let mut preemptions = env::var(VARIABLE).unwrap_or_else(|_| PREEMPTIONS.to_string());
    if let [flag, rest @ ..] = args
        && flag == "--preemptions"
    {
        let Some((number, rest)) = rest.split_first().filter(|(n, _)| n.parse::<u32>().is_ok())
        else {
            return Err(Error::Usage("--preemptions needs a number".into()));
        };
        preemptions.clone_from(number);
        args = rest;
    }
    LOOM.run(args, &[(VARIABLE, &preemptions)])
}

/// `--soak SECONDS` sets the duration of the random tests. `--seed N` repeats a run.
pub(crate) fn faults(args: &[String]) -> Result {
    let mut envs = Vec::new();
    let mut args = args;
    while let [flag, rest @ ..] = args
        && let Some(variable) = match flag.as_str() {
            "--soak" => Some(SOAK),
            "--seed" => Some("MULTIPROC_SEED"),
            _ => None,
        }
    {
        let Some((number, rest)) = rest.split_first().filter(|(n, _)| n.parse::<u64>().is_ok())
        else {
            return Err(Error::Usage(format!("{flag} needs a number")));
        };
        envs.push((variable, number.as_str()));
        args = rest;
    }
    FAULTS.run(args, &envs)
}

impl Suite {
    fn run(&self, args: &[String], envs: &[(&str, &str)]) -> Result {
        let split = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
        let (filters, test_args) = args.split_at(split);
        if let Some(option) = filters.iter().find(|arg| arg.starts_with('-')) {
            return Err(Error::Usage(format!("unknown option `{option}` of {}", self.name)));
        }
        let mut total = 0;
        // One cargo call per crate, since the output of a common one does not show which crate ran
        // how many tests.
        for package in self.crates {
            let is_long = envs.iter().any(|(variable, _)| *variable == SOAK);
            let test_args = test_args.get(1..).unwrap_or(&[]);
            let mut command = self.command(package, is_long, filters, test_args);
            command.envs(envs.iter().copied());
            println!("{}: {}", self.name, shell::show(&command));
            let passed = run_counting(&mut command)?;
            // A filter on the command line may match tests of one crate only.
            if passed == 0 && filters.is_empty() {
                return failed(format!("{}: no test ran in {package}", self.name));
            }
            println!("{}: {package}: {passed} passed", self.name);
            total += passed;
        }
        if total == 0 {
            return failed(format!("{}: no test matches `{}`", self.name, filters.join(" ")));
        }
        Ok(())
    }

    fn command(
        &self,
        package: &str,
        is_long: bool,
        filters: &[String],
        test_args: &[String],
    ) -> Command {
        let mut command = shell::cargo_locked("test", &["-p", package]);
        command.args(self.targets);
        let more = self.long_targets.iter().filter(|(name, _)| is_long && *name == package);
        more.for_each(|(_, targets)| _ = command.args(*targets));
        command.arg("--");
        if filters.is_empty() {
            command.args(self.filter);
        }
        command.args(filters).args(self.test_args).args(test_args);

        let flags = shell::with_flags("RUSTFLAGS", &format!("--cfg {}", self.cfg));
        command.env("RUSTFLAGS", flags);
        // In the same directory, other RUSTFLAGS would discard the ordinary build.
        let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        command.env("CARGO_TARGET_DIR", shell::root().join(target).join(self.name));
        command
    }
}

/// Runs a `cargo test` command, forwards its output, and returns the number of passed tests.
fn run_counting(command: &mut Command) -> Result<u64> {
    let shown = shell::show(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Error::Failed(format!("cannot start {shown}: {error}")))?;
    let output = child.stdout.take().expect("stdout is piped");

    let (sender, receiver) = mpsc::channel();
    // Sending fails if the wait below has timed out. Then the count is not needed.
    thread::spawn(move || drop(sender.send(copy_counting(output, io::stdout()))));

    let status = child.wait().map_err(|error| Error::Failed(format!("{shown}: {error}")))?;
    // A process that outlives its test keeps the pipe open, possibly indefinitely. That is a bug in
    // the test.
    let count = receiver.recv_timeout(PATIENCE);
    if !status.success() {
        return failed(format!("{status}: {shown}"));
    }
    match count {
        Ok(Ok(count)) => Ok(count),
        Ok(Err(error)) => failed(format!("cannot forward the output of {shown}: {error}")),
        Err(_) => failed(format!(
            "the tests ended {} s ago, but a process they started still has their output open: \
             {shown}",
            PATIENCE.as_secs()
        )),
    }
}

/// Copies `from` to `to` and returns the number of passed tests that it reports.
fn copy_counting(from: impl Read, mut to: impl Write) -> io::Result<u64> {
    let mut from = BufReader::new(from);
    let mut count = 0;
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        count += passed(&String::from_utf8_lossy(&line)).unwrap_or(0);
        line.clear();
    }
    to.flush()?;
    Ok(count)
}

/// Returns the N of `test result: ok. N passed; ...`.
fn passed(line: &str) -> Option<u64> {
    let result = line.strip_prefix("test result: ")?;
    let (_, result) = result.split_once(". ")?;
    let (number, _) = result.split_once(" passed;")?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out";

    #[test]
    fn result_line_yields_number_of_passed_tests() {
        assert_eq!(passed(OK), Some(12));
        assert_eq!(passed("test result: FAILED. 3 passed; 1 failed; 0 ignored"), Some(3));
        assert_eq!(passed("test lock::loom_tests::two ... ok"), None);
        assert_eq!(passed("a test result: ok. 12 passed; 0 failed"), None);
    }

    #[test]
    fn output_is_copied_and_results_are_summed() {
        let text = format!("running 12 tests\nnot UTF-8: \u{fffd}\n{OK}\nrunning 0 tests\n{OK}");
        let mut copy = Vec::new();
        assert_eq!(copy_counting(text.as_bytes(), &mut copy).unwrap(), 24);
        assert_eq!(copy, text.as_bytes());
    }

    #[test]
    fn filters_replace_the_default_one() {
        let args = |filters: &[String]| {
            let command = LOOM.command("multiproc-sync", false, filters, &["--exact".to_string()]);
            let args: Vec<_> =
                command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
            args.join(" ")
        };
        assert!(args(&[]).ends_with("--lib -- loom --nocapture --exact"));
        let long = |package| {
            let command = FAULTS.command(package, true, &[], &[]);
            command.get_args().any(|arg| arg == "differential")
        };
        assert!(long("multiproc-queue") && !long("multiproc-sync"));
        assert!(args(&["ring".to_string()]).ends_with("--lib -- ring --nocapture --exact"));
    }
}
