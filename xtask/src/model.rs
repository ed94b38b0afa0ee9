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
    /// Integration tests that a run with `--soak` adds, each with its crate.
    soak_tests: &'static [(&'static str, &'static str)],
    /// The options with a number, and the environment variables that they set.
    options: &'static [(&'static str, &'static str)],
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
    soak_tests: &[],
    options: &[("--preemptions", PREEMPTIONS)],
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
    targets: &["--test=*faults"],
    soak_tests: &[("multiproc-queue", "--test=differential"), ("multiproc-queue", "--test=memory")],
    options: &[("--soak", SOAK), ("--seed", "MULTIPROC_SEED")],
    filter: None,
    test_args: &[],
};

const PREEMPTIONS: &str = "LOOM_MAX_PREEMPTIONS";

/// The duration of the random tests.
const SOAK: &str = "MULTIPROC_SOAK_SECONDS";

/// How long the output may stay open after the tests have ended.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn loom(args: &[String]) -> Result {
    // Bugs in lock-free code rarely need more than three preemptions, and each further one
    // multiplies the time.
    let default = env::var(PREEMPTIONS).unwrap_or_else(|_| "3".into());
    LOOM.run(args, vec![(PREEMPTIONS, &default)])
}

pub(crate) fn faults(args: &[String]) -> Result {
    FAULTS.run(args, Vec::new())
}

impl Suite {
    /// Runs the tests with the environment variables `envs` and those that options set.
    fn run<'a>(&self, mut args: &'a [String], mut envs: Vec<(&'static str, &'a str)>) -> Result {
        while let [flag, rest @ ..] = args
            && let Some((_, variable)) = self.options.iter().find(|(option, _)| option == flag)
        {
            let Some((number, rest)) = rest.split_first().filter(|(n, _)| n.parse::<u64>().is_ok())
            else {
                return Err(Error::Usage(format!("{flag} needs a number")));
            };
            envs.push((variable, number));
            args = rest;
        }
        let split = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
        let (filters, test_args) = (&args[..split], args.get(split + 1..).unwrap_or(&[]));
        if let Some(option) = filters.iter().find(|arg| arg.starts_with('-')) {
            return Err(Error::Usage(format!("unknown option `{option}` of {}", self.name)));
        }
        let is_soak = envs.iter().any(|(variable, _)| *variable == SOAK);
        let mut total = 0;
        // One cargo call per crate, since the output of a common one does not show which crate ran
        // how many tests.
        for package in self.crates {
            let mut command = self.command(package, is_soak, filters, test_args);
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
        is_soak: bool,
        filters: &[String],
        test_args: &[String],
    ) -> Command {
        let mut command = shell::cargo_locked("test", &["-p", package]);
        let soak_tests = self.soak_tests.iter().filter(|(name, _)| is_soak && *name == package);
        command.args(self.targets).args(soak_tests.map(|(_, test)| test)).arg("--");
        command.args(self.filter.filter(|_| filters.is_empty()));
        command.args(filters).args(self.test_args).args(test_args);

        let flags = shell::with_flags("RUSTFLAGS", &format!("--cfg {}", self.cfg));
        command.env("RUSTFLAGS", flags);
        // In the same directory, other RUSTFLAGS would discard the ordinary build.
        command.env("CARGO_TARGET_DIR", shell::target().join(self.name));
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
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    counts.split_once(" passed;")?.0.parse().ok()
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

    fn arguments(command: &Command) -> String {
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        args.join(" ")
    }

    #[test]
    fn filters_replace_the_default_one() {
        let args = |filters: &[String]| {
            arguments(&LOOM.command("multiproc-sync", false, filters, &["--exact".into()]))
        };
        assert!(args(&[]).ends_with("--lib -- loom --nocapture --exact"));
        assert!(args(&["ring".into()]).ends_with("--lib -- ring --nocapture --exact"));
    }

    #[test]
    fn soak_adds_tests_of_their_crate() {
        let args = |package, is_soak| arguments(&FAULTS.command(package, is_soak, &[], &[]));
        assert!(args("multiproc-queue", true).contains("--test=differential --test=memory --"));
        assert!(!args("multiproc-queue", false).contains("differential"));
        assert!(!args("multiproc-sync", true).contains("differential"));
    }

    #[test]
    fn options_without_number_and_unknown_options_are_usage_errors() {
        for args in [&["--soak"][..], &["--seed", "x"], &["--preemptions", "3"], &["ring", "--x"]] {
            let args: Vec<_> = args.iter().map(ToString::to_string).collect();
            assert!(matches!(faults(&args), Err(Error::Usage(_))), "{args:?}");
        }
    }
}
