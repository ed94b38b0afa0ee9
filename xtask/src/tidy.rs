//! `cargo xtask tidy`: the rules of the project that no compiler checks.
//!
//! Every fault found is printed as `tidy: FILE:LINE: what is wrong, what to do`.

mod crates;
mod mask;
mod reasons;
mod unsafe_code;
mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{self, Error, Result, failed};

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Problem {
    file: String,
    line: usize,
    text: String,
}

impl Problem {
    fn new(file: &str, line: usize, text: impl Into<String>) -> Self {
        Self { file: file.into(), line, text: text.into() }
    }
}

pub(crate) fn run(args: &[String]) -> Result {
    if !args.is_empty() {
        return Err(Error::Usage("tidy takes no arguments".into()));
    }
    let tree = Tree::read(shell::root())?;
    let crates = crates::read(&tree.root)?;

    let mut problems = crates::check_layers(&crates);
    problems.extend(crates::check_docs(&tree, &crates));
    problems.extend(reasons::check(&crates));
    problems.extend(unsafe_code::check(&tree));
    problems.extend(words::check(&tree));
    problems.sort();

    for Problem { file, line, text } in &problems {
        eprintln!("tidy: {file}:{line}: {text}");
    }
    match problems.len() {
        0 => {
            println!("tidy: {} files, no problems", tree.files.len());
            Ok(())
        }
        1 => failed("tidy found 1 problem"),
        n => failed(format!("tidy found {n} problems")),
    }
}

/// The files of the project.
struct Tree {
    root: PathBuf,
    /// Relative to the root, sorted.
    files: Vec<String>,
}

impl Tree {
    fn read(root: PathBuf) -> Result<Self> {
        // New files count before they are added to git, so that a fault shows before the commit.
        let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let output = Command::new("git")
            .args(list)
            .current_dir(&root)
            .output()
            .map_err(|error| Error::Failed(format!("tidy cannot start git: {error}")))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return failed(format!("tidy cannot list the files by git: {}", why.trim()));
        }
        let mut files: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .split_terminator('\0')
            // A removed file is listed until the removal is added to git. A link's target is
            // either listed itself or not part of the project.
            .filter(|file| fs::symlink_metadata(root.join(file)).is_ok_and(|meta| meta.is_file()))
            .map(String::from)
            .collect();
        files.sort();
        files.dedup();
        if files.is_empty() {
            return failed("git lists no files, so tidy would check nothing");
        }
        Ok(Self { root, files })
    }

    fn rust_files(&self) -> impl Iterator<Item = &str> {
        self.files
            .iter()
            .map(String::as_str)
            .filter(|file| Path::new(file).extension().is_some_and(|extension| extension == "rs"))
    }

    /// The bytes of `file`, or the problem of not being able to read it.
    fn bytes(&self, file: &str) -> std::result::Result<Vec<u8>, Problem> {
        fs::read(self.root.join(file))
            .map_err(|error| Problem::new(file, 1, format!("cannot be read: {error}")))
    }

    fn text(&self, file: &str) -> std::result::Result<String, Problem> {
        Ok(String::from_utf8_lossy(&self.bytes(file)?).into_owned())
    }
}

/// The number of the line that the byte at `offset` is in.
fn line_of(text: &[u8], offset: usize) -> usize {
    1 + text[..offset].iter().filter(|byte| **byte == b'\n').count()
}
