//! Every dependency of a published crate says why it is there.

use super::Problem;
use super::crates::Crate;

/// A dependency as it stands in a Cargo.toml.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) number: usize,
    /// Whether a comment stands above it or at its end.
    pub(super) reason: bool,
}

pub(super) fn check(crates: &[Crate]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for one in crates.iter().filter(|one| one.published) {
        for line in one.lines.iter().filter(|line| !line.reason && !is_own(&line.key)) {
            let text = format!("`{}` has no reason, say why in a comment above it", line.key);
            problems.push(Problem::new(&one.manifest, line.number, text));
        }
        // The lines are found by a small reader of TOML. What it cannot see, cargo does.
        for dependency in &one.dependencies {
            if !one.lines.iter().any(|line| line.key == dependency.key) {
                let key = &dependency.key;
                let text = format!("`{key}` is not on a line of its own in a dependency table");
                problems.push(Problem::new(&one.manifest, 1, text));
            }
        }
    }
    problems
}

/// Our own crates need no reason: the layers give it.
fn is_own(key: &str) -> bool {
    key == "multiproc" || key.starts_with("multiproc-")
}

/// The lines of the dependency tables in the Cargo.toml `text`.
pub(super) fn dependency_lines(text: &str) -> Vec<Line> {
    let mut found: Vec<Line> = Vec::new();
    // Where in `found` the current dependency table starts, if the current table is one.
    let mut table = None;
    let mut comment_above = false;
    // How many brackets of a value are still open where the line starts.
    let mut open = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let Parts { code, comment, opened, closed } = Parts::of(line);
        let reason = comment || comment_above;
        comment_above = comment && code.is_empty();
        let key = |key: &str| Line { key: key.into(), number, reason };
        if open > 0 {
            // A value that takes several lines: the end of the last one counts, too.
            if let Some(last) = found.last_mut().filter(|_| table.is_some()) {
                last.reason |= comment;
            }
        } else if let Some(header) = code.strip_prefix('[') {
            let path = key_path(header.trim_end_matches(']'));
            table = match path.as_slice() {
                [kind] | ["target", _, kind] if is_kind(kind) => Some(found.len()),
                [kind, name] | ["target", _, kind, name] if is_kind(kind) => {
                    found.push(key(name));
                    None
                }
                _ => None,
            };
            continue;
        } else if let Some(start) = table.filter(|_| !code.is_empty()) {
            let name = key_path(code.split('=').next().unwrap_or(code))[0];
            // `a.version = ..` and `a.features = ..` are two lines of one dependency.
            match found[start..].iter_mut().find(|line| line.key == name) {
                Some(line) => line.reason |= reason,
                None => found.push(key(name)),
            }
        }
        open = (open + opened).saturating_sub(closed);
    }
    found
}

fn is_kind(name: &str) -> bool {
    ["dependencies", "dev-dependencies", "build-dependencies"].contains(&name)
}

/// A line of TOML. Strings of several lines are not understood; no dependency has one.
struct Parts<'a> {
    code: &'a str,
    /// Whether it ends in a comment that says something.
    comment: bool,
    opened: usize,
    closed: usize,
}

impl<'a> Parts<'a> {
    fn of(line: &'a str) -> Self {
        let mut parts = Parts { code: line.trim(), comment: false, opened: 0, closed: 0 };
        for (at, c) in outside_quotes(line) {
            match c {
                '[' | '{' => parts.opened += 1,
                ']' | '}' => parts.closed += 1,
                '#' => {
                    parts.code = line[..at].trim();
                    parts.comment = !line[at..].trim_matches(['#', ' ', '\t']).is_empty();
                    break;
                }
                _ => {}
            }
        }
        parts
    }
}

/// The parts of a key such as `target.'cfg(unix)'.dependencies`.
fn key_path(text: &str) -> Vec<&str> {
    let mut path = Vec::new();
    let mut start = 0;
    for (at, _) in outside_quotes(text).filter(|(_, c)| *c == '.') {
        path.push(&text[start..at]);
        start = at + 1;
    }
    path.push(&text[start..]);
    path.into_iter().map(|part| part.trim().trim_matches(['"', '\''])).collect()
}

/// The characters of `text` that are in no string, and where they are.
fn outside_quotes(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    let mut escaped = false;
    text.char_indices().filter(move |(_, c)| match quote {
        None => {
            quote = Some(*c).filter(|c| ['"', '\''].contains(c));
            quote.is_none()
        }
        Some(open) => {
            // Only "" strings have escapes.
            if !escaped && *c == open {
                quote = None;
            }
            escaped = !escaped && open == '"' && *c == '\\';
            false
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints each dependency as `key:line` and a `!` if it has no reason.
    fn lines(text: &str) -> String {
        let print = |line: &Line| {
            format!("{}:{}{}", line.key, line.number, if line.reason { "" } else { "!" })
        };
        dependency_lines(text).iter().map(print).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_comment_above_or_behind_is_a_reason() {
        assert_eq!(lines("[dependencies]\n# Futexes.\nrustix = \"1\""), "rustix:3");
        assert_eq!(lines("[dependencies]\nrustix = \"1\" # Futexes."), "rustix:2");
        assert_eq!(lines("[dependencies]\nrustix.workspace = true # Futexes."), "rustix:2");
    }

    #[test]
    fn other_comments_are_no_reason() {
        assert_eq!(lines("[dependencies]\nrustix = \"1\""), "rustix:2!");
        assert_eq!(lines("[dependencies]\nrustix = \"1\" #\n"), "rustix:2!");
        assert_eq!(lines("[dependencies]\n# Gap.\n\nrustix = \"1\""), "rustix:4!");
        assert_eq!(lines("# Table.\n[dependencies]\nrustix = \"1\""), "rustix:3!");
        assert_eq!(lines("[dependencies]\nrustix = \"# text\""), "rustix:2!");
        assert_eq!(lines("[dependencies]\n# First.\na = \"1\"\nb = \"1\""), "a:3 b:4!");
        assert_eq!(lines("[dependencies]\na = \"1\" # First.\nb = \"1\""), "a:2 b:3!");
    }

    #[test]
    fn every_kind_of_table_counts() {
        assert_eq!(lines("[dev-dependencies]\na = \"1\""), "a:2!");
        assert_eq!(lines("[build-dependencies]\na = \"1\""), "a:2!");
        assert_eq!(lines("[target.'cfg(a.b)'.dependencies]\na = \"1\""), "a:2!");
        assert_eq!(lines("[target.\"cfg(loom)\".dev-dependencies] # x\na = \"1\""), "a:2!");
        assert_eq!(lines("[dependencies.a]\nversion = \"1\" # x\nb = 1"), "a:1!");
        assert_eq!(lines("# Why.\n[target.x.dependencies.a]\nversion = \"1\""), "a:2");
    }

    #[test]
    fn other_tables_do_not() {
        let text = "[package]\nname = \"a\"\n[features]\nx = [\n\"y\",\n]\n[[bench]]\nname = \"b\"";
        assert_eq!(lines(text), "");
        assert_eq!(lines("[package.metadata.dependencies]\na = \"1\""), "");
    }

    #[test]
    fn a_value_can_take_several_lines() {
        let text = "[dependencies]\na = { version = \"1\", features = [\n  \"[x\",\n  \"y\",\n] }";
        assert_eq!(lines(&format!("{text}\nb = \"1\"")), "a:2! b:6!");
        assert_eq!(lines(&format!("{text} # Why.\nb = \"1\"")), "a:2 b:6!");
    }

    #[test]
    fn dotted_keys_are_one_dependency() {
        let text = "[dependencies]\n# Why.\na.version = \"1\"\na.features = []\n";
        assert_eq!(lines(text), "a:3");
        assert_eq!(lines(&format!("{text}[dev-dependencies]\na = \"1\"")), "a:3 a:6!");
    }

    #[test]
    fn own_crates_are_exempt() {
        assert!(is_own("multiproc") && is_own("multiproc-sync"));
        assert!(!is_own("multiprocessing") && !is_own("serde"));
    }
}
