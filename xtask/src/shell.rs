//! Runs commands in the root of the workspace.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug)]
pub(crate) enum Error {
    /// The arguments are invalid: exit code 2 and the list of jobs.
    Usage(String),
    /// The job ran and failed: exit code 1.
    Failed(String),
}

pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

pub(crate) fn failed<T>(why: impl Into<String>) -> Result<T> {
    Err(Error::Failed(why.into()))
}

/// Returns the root of the workspace, which is the parent directory of this crate.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent directory").into()
}

/// Returns cargo's target folder.
pub(crate) fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Returns the command `cargo SUB ARGS`, with the cargo that started this program.
pub(crate) fn cargo(sub: &str, args: &[&str]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root()).arg(sub).args(args);
    command
}

/// Like [`cargo`], for the subcommands that read Cargo.lock.
pub(crate) fn cargo_locked(sub: &str, args: &[&str]) -> Command {
    // Cargo.lock is committed, so a build must not change it. Without the file (after it was
    // deleted to update all dependencies) --locked would fail.
    let locked = root().join("Cargo.lock").exists().then_some("--locked");
    let all: Vec<&str> = locked.into_iter().chain(args.iter().copied()).collect();
    cargo(sub, &all)
}

/// Returns the value of the environment variable with `flags` appended, for RUSTFLAGS and
/// RUSTDOCFLAGS.
pub(crate) fn with_flags(variable: &str, flags: &str) -> String {
    match env::var(variable) {
        Ok(old) if !old.is_empty() => format!("{old} {flags}"),
        _ => flags.to_string(),
    }
}

/// Runs `command` and waits until it ends. Any exit code but 0 is a failure.
pub(crate) fn run(command: &mut Command) -> Result {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => failed(format!("{status}: {}", show(command))),
        Err(error) => failed(format!("cannot start {}: {error}", show(command))),
    }
}

/// Returns `command` as typed in a shell in the root, with the environment variables that it sets.
pub(crate) fn show(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let envs = command
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}={}", key.to_string_lossy(), quote(value?))));
    let words = [name].into_iter().chain(command.get_args()).map(quote);
    envs.chain(words).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_command_is_quoted_for_a_shell() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["doc", "it's", ""]).env("RUSTDOCFLAGS", "-D warnings").env("A", "1");
        assert_eq!(show(&command), r"A=1 RUSTDOCFLAGS='-D warnings' cargo doc 'it'\''s' ''");
    }
}
