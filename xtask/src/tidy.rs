//! `cargo xtask tidy`: checks rules of the project that neither the compiler nor clippy checks.
//!
//! Each problem is printed as `tidy: FILE:LINE: problem and solution`.

use std::fs;
use std::process::Command;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use toml_edit::{DocumentMut, Item, RawString, Table};

use crate::shell::{self, Error, Result, failed};

/// The published crates, and the crates of this workspace that each may depend on. Dev-dependencies
/// are not restricted, because users do not build them.
const LAYERS: &[(&str, &[&str])] = &[
    ("multiproc-message", &[]),
    ("multiproc-shm", &["message"]),
    ("multiproc-pipe", &["message", "shm"]),
    ("multiproc-sync", &["message", "shm"]),
    // Depends on pipe only for `Source`.
    ("multiproc-queue", &["message", "shm", "pipe"]),
    ("multiproc-process", &["message", "shm", "pipe"]),
    ("multiproc-manager", &["message", "shm", "pipe", "sync", "queue", "process"]),
    ("multiproc", &["pipe", "sync", "queue", "process", "manager"]),
    ("multiproc-cli", &["manager"]),
];

/// The library files that may contain unsafe code, and the reason. Each contains
/// `allow(unsafe_code)`, because the workspace denies unsafe code.
const UNSAFE: &[(&str, &str)] = &[
    ("crates/multiproc-shm/src/bytes.rs", "copies bytes into and out of shared memory"),
    ("crates/multiproc-shm/src/checked.rs", "dup3 onto a descriptor that is shared"),
    ("crates/multiproc-shm/src/mapping.rs", "maps memory, and copies out of it"),
    ("crates/multiproc-shm/src/ofd_lock.rs", "OFD locks are not in rustix"),
    ("crates/multiproc-shm/src/primitives/model.rs", "loom's cells return raw pointers"),
    ("crates/multiproc-shm/src/region/fork.rs", "registers handlers of fork(2)"),
    ("crates/multiproc-shm/src/region/mapping.rs", "maps and views shared memory"),
    ("crates/multiproc-shm/src/region/placed.rs", "declares what may lie in shared memory"),
    ("crates/multiproc-shm/src/sealed.rs", "refers to memory that cannot change"),
    ("crates/multiproc-shm/src/segment.rs", "refers to memory that no other process can write"),
    ("crates/multiproc-shm/src/sigpipe.rs", "the disposition and the mask of SIGPIPE"),
    ("crates/multiproc-process/src/bootstrap.rs", "calls the spawned function"),
    ("crates/multiproc-process/src/bulk.rs", "maps memory for large arguments"),
    ("crates/multiproc-process/src/executable.rs", "asks the loader where the executable lies"),
    ("crates/multiproc-process/src/inherited.rs", "closes descriptors by number"),
    ("crates/multiproc-process/src/init.rs", "constructor of `enable_in_tests!`, SIGPIPE"),
    ("crates/multiproc-process/src/newborn.rs", "constructor, environment marker, calls of libc"),
    ("crates/multiproc-process/src/thread.rs", "blocked signals, a thread on a given stack"),
    ("crates/multiproc-testkit/src/seccomp.rs", "sets a seccomp filter"),
];

/// The crates without unsafe code. They must contain `forbid(unsafe_code)`, which the compiler
/// enforces.
const FORBIDS_UNSAFE: &[&str] =
    &["crates/multiproc-message/src/lib.rs", "crates/multiproc-pipe/src/lib.rs"];

/// Forbidden text: a Perl regular expression, the files to search, and what to do instead.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (r"#\[ignore", &["*.rs"], "make the test run, or remove it"),
    (r"(?<![\w._~)}-])/(home|root)/", &["*"], "use a path relative to the workspace"),
    (r"^(?=\s*//[/!]? (?!\|)).{101}", &["*.rs"], "break the comment at 100 columns"),
    (r"^(?!\||.*https?://).{121}", &["*.md"], "break the line at 120 columns"),
    (r"(?i)\bfor ever\b", &["*.rs", "*.md"], "write `forever` or `indefinitely`"),
    (r"\bWho(ever)? (?!\w+s (who|which)\b)\w+s\b[^?]*$", &["*.rs", "*.md"], "name the subject"),
    (r"\b[Tt]he dead\b(?! \w)", &["*.rs", "*.md"], "write `dead owners` or `crashed processes`"),
];

pub(crate) fn run(_: &[String]) -> Result {
    let metadata = MetadataCommand::new()
        .current_dir(shell::root())
        .no_deps()
        .exec()
        .map_err(|error| Error::Failed(format!("tidy cannot read the workspace: {error}")))?;

    let mut problems = check_layers(&metadata.packages);
    for package in metadata.packages.iter().filter(|package| is_published(package)) {
        problems.extend(check_package(package)?);
    }
    problems.extend(check_files("allow(unsafe_code)", UNSAFE.iter().map(|(file, _)| *file))?);
    problems.extend(check_files("forbid(unsafe_code)", FORBIDS_UNSAFE.iter().copied())?);
    for (pattern, files, what_to_do) in FORBIDDEN {
        let found = git_grep("-nP", pattern, files)?;
        problems.extend(found.iter().map(|line| format!("{line}\n    {what_to_do}")));
    }

    for problem in &problems {
        eprintln!("tidy: {problem}");
    }
    match problems.len() {
        0 => Ok(()),
        n => failed(format!("tidy found {n} problem(s)")),
    }
}

fn is_published(package: &Package) -> bool {
    package.publish.as_ref().is_none_or(|registries| !registries.is_empty())
}

fn check_layers(packages: &[Package]) -> Vec<String> {
    let mut problems = Vec::new();
    let published = packages.iter().filter(|package| is_published(package));
    for Package { name, dependencies, .. } in published {
        let Some((_, below)) = LAYERS.iter().find(|(layer, _)| *layer == name.as_str()) else {
            problems.push(format!("{name} is published but not in LAYERS: add it"));
            continue;
        };
        let own = dependencies.iter().filter(|used| used.kind != DependencyKind::Development);
        for used in own.filter_map(|used| used.name.strip_prefix("multiproc")) {
            if !below.contains(&used.trim_start_matches('-')) {
                problems.push(format!("{name} may not depend on multiproc{used}: move the code"));
            }
        }
    }
    problems
}

/// Checks the metadata for crates.io, the licence files, and the reason for each dependency.
fn check_package(package: &Package) -> Result<Vec<String>> {
    let manifest = &package.manifest_path;
    let mut problems = Vec::new();
    let fields = [
        ("description", package.description.is_some()),
        ("documentation", package.documentation.is_some()),
        ("homepage", package.homepage.is_some()),
        ("keywords", !package.keywords.is_empty()),
        ("categories", !package.categories.is_empty()),
        ("readme", package.readme.is_some()),
    ];
    problems.extend(
        fields.iter().filter(|(_, is_set)| !is_set).map(|(name, _)| format!("add `{name}`")),
    );
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        if !manifest.with_file_name(licence).exists() {
            problems
                .push(format!("add a link to ../../{licence}, so that the package contains it"));
        }
    }
    let broken = |error: String| Error::Failed(format!("tidy cannot read {manifest}: {error}"));
    let text = fs::read_to_string(manifest).map_err(|error| broken(error.to_string()))?;
    let document: DocumentMut = text.parse().map_err(|error| broken(format!("{error}")))?;
    problems.extend(
        without_reason(&document).map(|name| {
            format!("`{name}` has no reason: add a comment that states why it is needed")
        }),
    );
    Ok(problems.into_iter().map(|problem| format!("{manifest}: {problem}")).collect())
}

/// Returns the dependencies without a comment. The crates of this workspace need none, because
/// `LAYERS` lists them.
fn without_reason(document: &DocumentMut) -> impl Iterator<Item = &str> {
    let targets = document.get("target").and_then(Item::as_table);
    let parts = targets.into_iter().flatten().filter_map(|(_, target)| target.as_table());
    let tables = parts.chain([document.as_table()]).flat_map(|part| {
        ["dependencies", "dev-dependencies", "build-dependencies"]
            .into_iter()
            .filter_map(|kind| part.get(kind)?.as_table())
    });
    let names = tables.flat_map(|table| table.iter().map(move |(name, _)| (table, name)));
    names
        .filter(|(table, name)| !has_comment(table, name))
        .map(|(_, name)| name)
        .filter(|name| !name.starts_with("multiproc"))
}

/// Returns `true` if there is a comment above the line of `name`. The comment above
/// `name.workspace = true` belongs to the last key.
fn has_comment(table: &Table, name: &str) -> bool {
    let above = |table: &Table, name: &str| {
        let prefix = table.key(name).and_then(|key| key.leaf_decor().prefix());
        prefix.and_then(RawString::as_str).is_some_and(|text| text.contains('#'))
    };
    let inner = table.get(name).and_then(Item::as_table).filter(|inner| inner.is_dotted());
    above(table, name) || inner.is_some_and(|inner| inner.iter().any(|(key, _)| above(inner, key)))
}

/// Checks that exactly the `expected` library files contain `text`.
fn check_files<'a>(text: &str, expected: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let mut found = git_grep("-lF", text, &["crates/*/src/*.rs"])?;
    let mut problems = Vec::new();
    for file in expected {
        let before = found.len();
        found.retain(|other| other != file);
        if found.len() == before {
            problems
                .push(format!("{file}: lacks `{text}`: add it, or remove the file from the list"));
        }
    }
    problems.extend(found.into_iter().map(|file| {
        format!("{file}: contains `{text}`: move the code, or add the file to the list in tidy.rs")
    }));
    Ok(problems)
}

/// Returns the lines or files that `git grep` finds, including files not yet added to git.
fn git_grep(option: &str, pattern: &str, files: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("git")
        .current_dir(shell::root())
        // In UTF-8, a column is a character and not a byte.
        .env("LC_ALL", "C.UTF-8")
        .args(["grep", "--untracked", "-I", option, "-e", pattern, "--"])
        .args(files)
        .args([":!xtask/src/tidy.rs", ":!Cargo.lock"])
        .output()
        .map_err(|error| Error::Failed(format!("tidy cannot start git: {error}")))?;
    // Exit code 1 means that there is no match.
    if !matches!(output.status.code(), Some(0 | 1)) {
        return failed(format!("git grep: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependency_without_comment_has_no_reason() {
        let text = "[dependencies]\n# Futexes.\nrustix = '1'\nserde.workspace = true\n# Why.\n\
                    loom.workspace = true\nmultiproc-shm = '1'\n\
                    [target.'cfg(loom)'.dev-dependencies]\nlibc = '1'\n";
        let document = text.parse().unwrap();
        assert_eq!(without_reason(&document).collect::<Vec<_>>(), ["libc", "serde"]);
    }

    #[test]
    fn unlisted_and_missing_files_are_problems() {
        let listed = UNSAFE.iter().map(|(file, _)| *file);
        assert_eq!(check_files("allow(unsafe_code)", listed.clone().skip(1)).unwrap().len(), 1);
        let more = listed.chain(["crates/none.rs"]);
        assert_eq!(check_files("allow(unsafe_code)", more).unwrap().len(), 1);
    }

    #[test]
    fn git_grep_finds_perl_expressions() {
        let matches = |pattern: &str| !git_grep("-nP", pattern, &["*"]).unwrap().is_empty();
        assert!(matches("edition = .2024."));
        assert!(!matches(concat!("no file has ", "this text")));
    }
}
