//! Unsafe code stays in few files, and each has a reason.

use super::{Problem, Tree, mask};

/// The files under `crates/*/src` that may contain unsafe code, and why they need it.
const ALLOWED: &[(&str, &str)] = &[
    ("crates/multiproc-shm/src/checked.rs", "dup3 onto a descriptor that is shared"),
    ("crates/multiproc-shm/src/ofd_lock.rs", "OFD locks are not in rustix"),
    ("crates/multiproc-shm/src/mapping.rs", "maps memory, and copies out of it"),
    ("crates/multiproc-shm/src/sealed.rs", "refers to memory that cannot change"),
    ("crates/multiproc-shm/src/segment.rs", "refers to memory that nobody else can write"),
    ("crates/multiproc-shm/src/region/fork.rs", "registers handlers of fork(2)"),
    ("crates/multiproc-shm/src/region/mod.rs", "maps and views shared memory"),
    ("crates/multiproc-shm/src/bytes.rs", "copies bytes in and out of shared memory"),
    ("crates/multiproc-shm/src/primitives/model.rs", "loom's cells give raw pointers"),
    ("crates/multiproc-shm/src/sigpipe.rs", "the disposition and the mask of SIGPIPE"),
    ("crates/multiproc-process/src/bulk.rs", "maps memory for large arguments"),
    ("crates/multiproc-process/src/bootstrap.rs", "calls the spawned function"),
    ("crates/multiproc-process/src/executable.rs", "asks the loader where the executable lies"),
    ("crates/multiproc-process/src/inherited.rs", "closes descriptors by number"),
    ("crates/multiproc-process/src/init.rs", "constructor of `enable_in_tests!`, SIGPIPE"),
    ("crates/multiproc-process/src/newborn.rs", "constructor, environment marker, calls of libc"),
    ("crates/multiproc-process/src/thread.rs", "blocked signals"),
];

/// These need no unsafe code at all, and the compiler holds them to that.
const FORBIDS: &[&str] =
    &["crates/multiproc-message/src/lib.rs", "crates/multiproc-pipe/src/lib.rs"];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.rust_files().filter(|file| is_library_code(file)) {
        let lines = match tree.text(file) {
            Ok(text) => unsafe_lines(&text),
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let allowed = ALLOWED.iter().find(|(name, _)| *name == file);
        match (allowed, lines.as_slice()) {
            (None, lines) => problems.extend(lines.iter().map(|line| {
                let text = "unsafe code, move it to a file that ALLOWED in \
                            xtask/src/tidy/unsafe_code.rs lists, or add this one with a reason";
                Problem::new(file, *line, text)
            })),
            (Some((_, reason)), []) => {
                let text = format!("no unsafe code ({reason}) any more, remove it from ALLOWED");
                problems.push(Problem::new(file, 1, text));
            }
            (Some(_), _) => {}
        }
    }
    for (file, _) in ALLOWED {
        if !tree.files.iter().any(|name| name == file) {
            problems.push(Problem::new(file, 1, "does not exist, remove it from ALLOWED"));
        }
    }
    for file in FORBIDS {
        match tree.text(file) {
            Ok(text) if !forbids_unsafe(&text) => {
                problems.push(Problem::new(file, 1, "add `#![forbid(unsafe_code)]`"));
            }
            Ok(_) => {}
            Err(problem) => problems.push(problem),
        }
    }
    problems
}

/// Whether `file` is `crates/*/src/..`.
fn is_library_code(file: &str) -> bool {
    let mut parts = file.split('/');
    parts.next() == Some("crates") && parts.nth(1) == Some("src")
}

/// `unsafe_code` and `unsafe_op_in_unsafe_fn` are other words, and so don't count.
fn unsafe_lines(source: &str) -> Vec<usize> {
    mask::lines_with_word(&mask::code_only(source), "unsafe")
}

fn forbids_unsafe(source: &str) -> bool {
    mask::code_only(source).contains("#![forbid(unsafe_code)]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_counts() {
        assert_eq!(unsafe_lines("//! unsafe\n\nunsafe fn a() {}\n"), [3]);
        assert_eq!(unsafe_lines("#![deny(unsafe_code)]\nlet a = \"unsafe\";"), [0; 0]);
    }

    #[test]
    fn forbidding_is_an_attribute() {
        assert!(forbids_unsafe("//! A pipe.\n\n#![forbid(unsafe_code)]\n"));
        assert!(!forbids_unsafe("//! #![forbid(unsafe_code)]\n"));
        assert!(!forbids_unsafe("#![deny(unsafe_code)]\n"));
    }

    #[test]
    fn library_code_is_in_src() {
        assert!(is_library_code("crates/multiproc/src/a/b.rs"));
        assert!(!is_library_code("crates/multiproc/tests/a.rs"));
        assert!(!is_library_code("xtask/src/main.rs"));
    }
}
