//! Text that must not be in the project.

use super::{Problem, Tree, line_of};

/// Must not be in Rust files, comments included, and what to do instead. Each is spelled in two
/// pieces so that this file passes, too.
const UNFINISHED: &[(&str, &str)] = &[
    (concat!("todo", "!("), "finish it"),
    (concat!("unimplemented", "!("), "finish it"),
    (concat!("dbg", "!("), "remove it"),
    (concat!("#[", "ignore"), "make the test run or remove it"),
];

/// Paths of one person's machine, in pieces as above.
const PRIVATE: &[&str] = &[concat!("/ho", "me/"), concat!("/ro", "ot/")];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in &tree.files {
        match tree.bytes(file) {
            Ok(bytes) => problems.extend(private_paths(&bytes).map(|(line, path)| {
                let text = format!("a path beginning {path}, use a relative one");
                Problem::new(file, line, text)
            })),
            Err(problem) => problems.push(problem),
        }
    }
    for file in tree.rust_files() {
        // A file that cannot be read is reported above.
        let text = tree.text(file).unwrap_or_default();
        problems.extend(unfinished(&text).map(|(line, word, what)| {
            let text = format!("`{word}` does not belong here, {what}");
            Problem::new(file, line, text)
        }));
    }
    problems
}

fn unfinished(text: &str) -> impl Iterator<Item = (usize, &'static str, &'static str)> {
    UNFINISHED.iter().flat_map(move |(word, what)| {
        text.match_indices(word).map(move |(at, _)| (line_of(text.as_bytes(), at), *word, *what))
    })
}

/// The lines with a path that begins with one of `PRIVATE`. The same letters in the middle of a
/// longer path or address are fine.
fn private_paths(bytes: &[u8]) -> impl Iterator<Item = (usize, &'static str)> {
    PRIVATE.iter().flat_map(move |path| {
        bytes.windows(path.len()).enumerate().filter_map(move |(at, window)| {
            let before = at.checked_sub(1).map(|before| bytes[before]);
            let inside =
                before.is_some_and(|b| b.is_ascii_alphanumeric() || b"._-~)}".contains(&b));
            (window == path.as_bytes() && !inside).then(|| (line_of(bytes, at), *path))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_code_is_found() {
        for (word, what) in UNFINISHED {
            let text = format!("fn a() {{\n    {word}\n}}");
            assert_eq!(unfinished(&text).collect::<Vec<_>>(), [(2, *word, *what)]);
        }
        assert_eq!(unfinished("/// ```ignore\nfn todo() { ignore!() }").count(), 0);
    }

    #[test]
    fn private_paths_are_found() {
        for path in PRIVATE {
            let lines = |text: &str| {
                let text = text.replace("PATH", path);
                private_paths(text.as_bytes()).map(|(line, _)| line).collect::<Vec<_>>()
            };
            assert_eq!(lines("PATHme\n\"PATHme\" file://PATHme"), [1, 2, 2]);
            assert_eq!(lines("see\n(PATHme)"), [2]);
            assert_eq!(lines("https://example.comPATHme ..PATHme {dir}PATHme aPATHme"), [0; 0]);
        }
        assert_eq!(private_paths(b"\xff/homes/me").count(), 0);
    }
}
