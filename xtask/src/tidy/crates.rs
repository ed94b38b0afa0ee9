//! The layers: which crate may depend on which, and what every published crate has.

use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand};

use super::reasons::{Line, dependency_lines};
use super::{Problem, Tree, mask};
use crate::shell::{Error, Result};

/// The published crates, and the crates of this workspace that each may use. Dev-dependencies
/// are free: they are not part of what users build.
const LAYERS: &[(&str, &[&str])] = &[
    ("multiproc-message", &[]),
    ("multiproc-shm", &["multiproc-message"]),
    ("multiproc-pipe", &["multiproc-message", "multiproc-shm"]),
    ("multiproc-sync", &["multiproc-message", "multiproc-shm"]),
    // On the pipe for `Source` alone.
    ("multiproc-queue", &["multiproc-message", "multiproc-shm", "multiproc-pipe"]),
    ("multiproc-process", &["multiproc-message", "multiproc-shm", "multiproc-pipe"]),
    (
        "multiproc-manager",
        &[
            "multiproc-message",
            "multiproc-shm",
            "multiproc-pipe",
            "multiproc-sync",
            "multiproc-queue",
            "multiproc-process",
        ],
    ),
    (
        "multiproc",
        &[
            "multiproc-pipe",
            "multiproc-sync",
            "multiproc-queue",
            "multiproc-process",
            "multiproc-manager",
        ],
    ),
    ("multiproc-cli", &["multiproc-manager"]),
];

/// Only for tests, in every crate.
const TESTKIT: &str = "multiproc-testkit";

/// The lowest layer refuses to build elsewhere, and with it every crate above.
const LINUX_ONLY: &str = "crates/multiproc-message/src/lib.rs";

/// A crate of this workspace.
pub(super) struct Crate {
    pub(super) name: String,
    /// Its Cargo.toml, relative to the root.
    pub(super) manifest: String,
    /// Its lib.rs, relative to the root; or the main.rs of one that is a program alone.
    lib: Option<String>,
    pub(super) published: bool,
    pub(super) dependencies: Vec<Dependency>,
    /// The dependencies as they stand in Cargo.toml.
    pub(super) lines: Vec<Line>,
}

pub(super) struct Dependency {
    package: String,
    /// The name in Cargo.toml.
    pub(super) key: String,
    dev: bool,
}

impl Crate {
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.lines.iter().find(|line| line.key == key).map_or(1, |line| line.number)
    }
}

pub(super) fn read(root: &Path) -> Result<Vec<Crate>> {
    let broken = |error: String| Error::Failed(format!("tidy cannot read the crates: {error}"));
    // --no-deps: the rules are about what Cargo.toml says, so the lock and the registry can rest.
    let metadata = MetadataCommand::new()
        .current_dir(root)
        .no_deps()
        .exec()
        .map_err(|error| broken(error.to_string()))?;
    // Cargo may know the root by another name, through a link.
    let relative = |path: &cargo_metadata::camino::Utf8Path| {
        path.strip_prefix(&metadata.workspace_root).unwrap_or(path).to_string()
    };
    let mut crates = Vec::new();
    for package in &metadata.packages {
        let text = std::fs::read_to_string(&package.manifest_path)
            .map_err(|error| broken(format!("{}: {error}", package.manifest_path)))?;
        let lib = package.targets.iter().find(|target| target.is_lib());
        let lib = lib.or_else(|| package.targets.iter().find(|target| target.is_bin()));
        crates.push(Crate {
            name: package.name.to_string(),
            manifest: relative(&package.manifest_path),
            lib: lib.map(|target| relative(&target.src_path)),
            published: package.publish.as_ref().is_none_or(|registries| !registries.is_empty()),
            dependencies: package
                .dependencies
                .iter()
                .map(|dependency| Dependency {
                    package: dependency.name.clone(),
                    key: dependency.rename.as_ref().unwrap_or(&dependency.name).clone(),
                    dev: dependency.kind == DependencyKind::Development,
                })
                .collect(),
            lines: dependency_lines(&text),
        });
    }
    Ok(crates)
}

pub(super) fn check_layers(crates: &[Crate]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, _) in LAYERS {
        if !crates.iter().any(|one| one.name == *name && one.published) {
            let text = format!("{name} is not a published crate here, but LAYERS lists it");
            problems.push(Problem::new("Cargo.toml", 1, text));
        }
    }
    for one in crates {
        let layer = LAYERS.iter().find(|(name, _)| *name == one.name).map(|(_, below)| *below);
        if one.published && layer.is_none() {
            let text = "published, but in no layer: set `publish = false` or add it to LAYERS";
            problems.push(Problem::new(&one.manifest, 1, text));
        }
        for dependency in one.dependencies.iter().filter(|dependency| !dependency.dev) {
            let used = dependency.package.as_str();
            let text = if used == TESTKIT {
                format!("{used} is for tests, make it a dev-dependency")
            } else if crates.iter().any(|other| other.name == used)
                && layer.is_some_and(|below| !below.contains(&used))
            {
                format!("{} is in a layer that may not use {used}, move the code", one.name)
            } else {
                continue;
            };
            problems.push(Problem::new(&one.manifest, one.line_of(&dependency.key), text));
        }
    }
    problems
}

pub(super) fn check_docs(tree: &Tree, crates: &[Crate]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for one in crates.iter().filter(|one| one.published) {
        match one.lib.as_ref().map(|lib| (lib, tree.text(lib))) {
            None => problems.push(Problem::new(
                &one.manifest,
                1,
                "published, but has no library and no program",
            )),
            Some((_, Err(problem))) => problems.push(problem),
            Some((lib, Ok(text))) if !starts_with_docs(&text) => {
                let text = "does not start with `//!`, say first what the crate is for";
                problems.push(Problem::new(lib, 1, text));
            }
            Some(_) => {}
        }
    }
    match tree.text(LINUX_ONLY) {
        Ok(text) if !is_linux_only(&text) => {
            let text = "does not refuse other systems, add a `compile_error!` under a \
                        `#[cfg(not(target_os = \"linux\"))]`";
            problems.push(Problem::new(LINUX_ONLY, 1, text));
        }
        Ok(_) => {}
        Err(problem) => problems.push(problem),
    }
    problems
}

fn starts_with_docs(text: &str) -> bool {
    let first = text.lines().next().and_then(|line| line.strip_prefix("//!"));
    first.is_some_and(|docs| !docs.trim().is_empty())
}

fn is_linux_only(text: &str) -> bool {
    let code = mask::code_only(text);
    // Looks only whether there is one for a reason of the target. Its exact condition would need
    // a parser, and stays plain to see in the file.
    code.contains("compile_error!") && code.contains("target_os")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One crate; `uses` lists its dependencies, those after a `dev:` are for tests.
    fn one(name: &str, published: bool, uses: &[&str]) -> Crate {
        let dependencies = uses
            .iter()
            .map(|name| (name.trim_start_matches("dev:"), name.starts_with("dev:")))
            .map(|(name, dev)| Dependency { package: name.into(), key: name.into(), dev })
            .collect();
        let lines = vec![Line { key: "multiproc-queue".into(), number: 7, reason: true }];
        let manifest = format!("{name}/Cargo.toml");
        Crate { name: name.into(), manifest, lib: None, published, dependencies, lines }
    }

    fn workspace() -> Vec<Crate> {
        vec![
            one("multiproc-message", true, &["serde"]),
            one("multiproc-shm", true, &["libc", "multiproc-message"]),
            one("multiproc-pipe", true, &["multiproc-shm", "dev:multiproc-testkit"]),
            one("multiproc-sync", true, &["multiproc-shm", "rustix"]),
            one("multiproc-queue", true, &["multiproc-pipe", "multiproc-shm"]),
            one("multiproc-process", true, &["multiproc-pipe", "dev:multiproc"]),
            one("multiproc-manager", true, &["multiproc-process", "multiproc-queue"]),
            one("multiproc", true, &["multiproc-queue", "dev:multiproc-testkit", "serde"]),
            one("multiproc-cli", true, &["multiproc-manager"]),
            one("multiproc-testkit", false, &["multiproc-pipe"]),
            one("xtask", false, &["cargo_metadata"]),
        ]
    }

    /// The problems once the crate called `name` is `new`.
    fn problems_with(new: Crate) -> Vec<String> {
        let mut crates = workspace();
        crates.retain(|one| one.name != new.name);
        crates.push(new);
        let print = |p: Problem| format!("{}:{}: {}", p.file, p.line, p.text);
        check_layers(&crates).into_iter().map(print).collect()
    }

    #[test]
    fn the_layers_hold() {
        assert_eq!(check_layers(&workspace()), []);
    }

    #[test]
    fn a_lower_layer_may_not_use_a_higher_one() {
        let found = problems_with(one("multiproc-sync", true, &["multiproc-queue"]));
        let text = "multiproc-sync is in a layer that may not use multiproc-queue, move the code";
        assert_eq!(found, [format!("multiproc-sync/Cargo.toml:7: {text}")]);
        assert_eq!(problems_with(one("multiproc-pipe", true, &["xtask"])).len(), 1);
        assert_eq!(problems_with(one("multiproc-pipe", true, &["dev:multiproc"])).len(), 0);
    }

    #[test]
    fn the_testkit_is_for_tests() {
        assert_eq!(problems_with(one("multiproc", true, &["multiproc-testkit"])).len(), 1);
        assert_eq!(problems_with(one("xtask", false, &["multiproc-testkit"])).len(), 1);
    }

    #[test]
    fn the_published_crates_are_the_layers() {
        assert_eq!(problems_with(one("multiproc-new", true, &[])).len(), 1);
        assert_eq!(problems_with(one("multiproc-new", false, &["multiproc"])).len(), 0);
        assert_eq!(problems_with(one("multiproc", false, &[])).len(), 1);
    }

    #[test]
    fn docs_come_first() {
        assert!(starts_with_docs("//! A pipe.\n"));
        assert!(!starts_with_docs("//!\n//! A pipe.\n"));
        assert!(!starts_with_docs("// A pipe.\n"));
        assert!(!starts_with_docs(""));
    }

    #[test]
    fn other_systems_are_refused_in_code() {
        let guard = "#[cfg(not(target_os = \"linux\"))]\ncompile_error!(\"Linux only\");\n";
        assert!(is_linux_only(guard));
        assert!(!is_linux_only(&guard.replace("compile", "// compile")));
        assert!(!is_linux_only("compile_error!(\"target_os\");"));
    }
}
