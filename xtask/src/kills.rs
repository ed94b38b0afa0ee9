//! `cargo xtask kills`: kills each process of each example program, many times.

use std::env;

use crate::shell::{self, Error, Result, cargo_locked};

/// The options with a number, and the environment variables that they set.
const OPTIONS: &[(&str, &str)] = &[("--rounds", ROUNDS), ("--seed", "MULTIPROC_SEED")];

const ROUNDS: &str = "MULTIPROC_KILL_ROUNDS";

pub(crate) fn run(mut args: &[String]) -> Result {
    let rounds = env::var(ROUNDS).unwrap_or_else(|_| "100".into());
    let mut envs = vec![(ROUNDS, rounds.as_str())];
    while let [flag, rest @ ..] = args
        && let Some((_, variable)) = OPTIONS.iter().find(|(option, _)| option == flag)
    {
        let Some((number, rest)) = rest.split_first().filter(|(n, _)| n.parse::<u64>().is_ok())
        else {
            return Err(Error::Usage(format!("{flag} needs a number")));
        };
        envs.push((variable, number));
        args = rest;
    }
    if let Some(option) = args.iter().find(|arg| arg.starts_with('-')) {
        return Err(Error::Usage(format!("unknown option `{option}` of kills")));
    }
    let test = ["-p", "multiproc", "--all-features"];
    // A single test target would not build the examples.
    shell::run(cargo_locked("test", &test).arg("--no-run"))?;
    let mut kills = cargo_locked("test", &test);
    // --nocapture shows how many kills there were, and how they ended.
    kills.args(["--test=kills", "--", "--nocapture"]).args(args).envs(envs);
    shell::run(&mut kills)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_without_number_and_unknown_options_are_usage_errors() {
        for args in [&["--rounds"][..], &["--seed", "x"], &["pool", "--x"]] {
            let args: Vec<_> = args.iter().map(ToString::to_string).collect();
            assert!(matches!(run(&args), Err(Error::Usage(_))), "{args:?}");
        }
    }
}
