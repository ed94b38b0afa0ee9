//! The pages under `docs/`: lines fit, links lead to files and headings that exist, and the tests
//! that a page names exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Adds the files below `folder` whose name ends with `end`.
fn find(folder: &Path, end: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            find(&entry.path(), end, files);
        } else if entry.file_name().to_str().is_some_and(|name| name.ends_with(end)) {
            files.push(entry.path());
        }
    }
}

fn pages() -> Vec<PathBuf> {
    let root = root();
    let mut pages: Vec<_> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
        .iter()
        .map(|page| root.join(page))
        .collect();
    find(&root.join("docs"), ".md", &mut pages);
    pages
}

/// Returns the lines of a page that are not in code blocks.
fn lines(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let mut is_code = false;
    text.lines()
        .filter(|line| {
            let is_fence = line.starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        })
        .map(str::to_owned)
        .collect()
}

/// Returns the fragment by which a heading is linked to: lower case, with dashes for spaces.
fn fragment(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn has_heading(page: &Path, wanted: &str) -> bool {
    let lines = lines(page);
    let mut headings = lines.iter().filter(|line| line.starts_with('#'));
    headings.any(|line| fragment(line.trim_start_matches('#').trim()) == wanted)
}

#[test]
fn lines_of_pages_fit_into_120_columns() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            let columns = line.chars().count();
            assert!(columns <= 120, "{}:{number} has {columns} columns", page.display());
        }
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    let mut number = 0;
    for page in pages() {
        let text = lines(&page).join("\n");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for (target, _) in targets.filter(|(target, _)| !target.contains("://")) {
            number += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            if !file.exists() || !(heading.is_empty() || has_heading(&file, heading)) {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(number > 0, "no links were found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn tests_named_by_crash_semantics_exist() {
    let root = root();
    let mut sources = Vec::new();
    find(&root.join("crates"), ".rs", &mut sources);
    let mut functions = BTreeSet::new();
    for source in sources {
        let text = fs::read_to_string(source).unwrap();
        let names = text.split("fn ").skip(1).filter_map(|rest| rest.split_once('('));
        functions.extend(names.map(|(name, _)| name.to_owned()));
    }

    let text = lines(&root.join("docs/guide/crash-semantics.md")).join("\n");
    // From "*Tests.*" to the end of the paragraph: what is in backticks and has an underscore.
    let paragraphs: Vec<_> =
        text.split("*Tests.*").skip(1).map(|rest| rest.split("\n\n").next().unwrap()).collect();
    // One for each guarantee but the one that is measured, and for children, daemons, the manager.
    assert!(paragraphs.len() >= 12, "{} paragraphs of tests", paragraphs.len());
    for paragraph in paragraphs {
        let words = paragraph.split('`').skip(1).step_by(2);
        let names: Vec<_> =
            words.filter(|word| word.contains('_') && !word.contains('.')).collect();
        assert!(!names.is_empty(), "names no test: {paragraph}");
        for name in names {
            assert!(functions.contains(name), "there is no test `{name}`: {paragraph}");
        }
    }
}
