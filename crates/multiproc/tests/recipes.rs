//! The recipes of `docs/guide/recipes.md`: the page holds exactly the examples `recipe_*` and
//! `tests/recipe_tests.rs`, and each of them works.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use multiproc_testkit::{example, watchdog};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

const PAGE: &str = include_str!("../../../docs/guide/recipes.md");

/// Returns the code blocks of the page that follow a line which names their file.
fn blocks() -> BTreeMap<String, String> {
    let mut blocks = BTreeMap::new();
    let mut rest = PAGE;
    while let Some((before, block)) = rest.split_once("```rust\n") {
        let (code, after) = block.split_once("```\n").expect("each block has an end");
        let link =
            before.rsplit_once("](../../crates/multiproc/").expect("each block has a file").1;
        let (file, _) = link.split_once(')').expect("each link has an end");
        assert!(blocks.insert(file.to_owned(), code.to_owned()).is_none(), "{file} is there twice");
        rest = after;
    }
    blocks
}

#[test]
fn page_holds_exactly_the_recipes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut blocks = blocks();
    let examples = fs::read_dir(root.join("examples")).unwrap();
    let examples = examples.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let recipes: Vec<_> = examples
        .filter(|name| name.starts_with("recipe_"))
        .map(|name| format!("examples/{name}"))
        .chain(["tests/recipe_tests.rs".to_owned()])
        .collect();
    assert!(recipes.len() >= 12, "{recipes:?}");
    for file in recipes {
        let code = fs::read_to_string(root.join(&file)).unwrap();
        let block = blocks.remove(&file).unwrap_or_else(|| panic!("{file} is not on the page"));
        assert!(block == code, "the page differs from {file}: copy the file there");
    }
    assert!(blocks.is_empty(), "no such recipes: {:?}", blocks.keys());
}

/// A running recipe, which leads a process group.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(name: &str, args: &[&str]) -> Self {
        let mut command = Command::new(example(name));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    /// Returns what it prints until it ends, with exit code 0.
    fn finish(mut self) -> String {
        let mut out = String::new();
        self.out.read_to_string(&mut out).unwrap();
        assert!(self.child.wait().unwrap().success(), "it printed:\n{out}");
        out
    }
}

fn output_of(name: &str) -> String {
    let _dog = watchdog();
    Running::start(name, &[]).finish()
}

#[test]
fn word_count() {
    let out = output_of("recipe_word_count");
    assert_eq!(out.lines().count(), 12);
    assert!(out.ends_with("  3000 the\n"), "{out}");
}

#[test]
fn pool() {
    assert_eq!(output_of("recipe_pool"), "200 results, total 33044\n");
}

#[test]
fn crawler() {
    assert_eq!(output_of("recipe_crawler"), "85 pages\n");
}

#[test]
fn pipeline() {
    assert_eq!(output_of("recipe_pipeline"), "4000 words, 10000 letters\n");
}

#[test]
fn request_response() {
    let expected = "ada: ADA\ngrace: no answer\nedsger: EDSGER\n";
    assert_eq!(output_of("recipe_request_response"), expected);
}

#[test]
fn large_data() {
    assert_eq!(output_of("recipe_large_data"), "16777216 bytes, sum 2139095040\n");
}

#[test]
fn frames() {
    let out = output_of("recipe_frames");
    let counts = out.trim_end().strip_prefix("frames captured: 100, sent: ").unwrap();
    let (sent, viewed) = counts.split_once(", viewed: ").unwrap();
    assert_eq!(sent, viewed);
    assert_ne!(sent, "0");
}

#[test]
fn tokio() {
    assert_eq!(output_of("recipe_tokio"), "sum of squares: 338350\nworker: 100 jobs\n");
}

#[test]
fn limits() {
    let expected = "\
        memory: signal 6\n\
        processor time: signal 24\n\
        wall time: signal 9\n";
    assert_eq!(output_of("recipe_limits"), expected);
}

#[test]
fn one_layer() {
    assert_eq!(output_of("recipe_one_layer"), "the child added 100 numbers: 5050\n");
}

#[test]
fn select() {
    let out = output_of("recipe_select");
    let expected =
        "worker-2 is about to crash\nworker-0: 100 results\nworker-1: 100 results\nworker-2: ";
    let rest = out.strip_prefix(expected).unwrap_or_else(|| panic!("{out}"));
    assert!(rest.ends_with("\nworker-3: 100 results\ntotal 22250\n"), "{out}");
}

#[cfg(feature = "manager")]
#[test]
fn manager() {
    let _dog = watchdog();
    let address = format!("@multiproc-recipe-{}", std::process::id());
    let mut server = Running::start("recipe_manager", &["serve", &address]);
    assert_eq!(server.line(), "ready\n");
    let client = Running::start("recipe_manager", &["ask", &address, "7", "12"]);
    assert_eq!(client.finish(), "7 squared is 49\n12 squared is 144\n");
    assert_eq!(server.finish(), "answered 2\n");
}

/// Returns how many tasks were put and how many were done.
fn shut_down_by(send: impl FnOnce(Pid)) -> (u64, u64) {
    let _dog = watchdog();
    let mut recipe = Running::start("recipe_shutdown", &[]);
    assert!(recipe.line().starts_with("running"));
    send(Pid::from_child(&recipe.child));
    let out = recipe.finish();
    let (put, done) = out.trim_end().strip_prefix("put ").unwrap().split_once(", done ").unwrap();
    (put.parse().unwrap(), done.parse().unwrap())
}

#[test]
fn shutdown_by_sigterm() {
    let (put, done) = shut_down_by(|pid| kill_process(pid, Signal::TERM).unwrap());
    assert_eq!(put, done);
}

#[test]
fn shutdown_by_ctrl_c() {
    // The whole group gets it, workers included. One that has not registered its handler yet dies:
    // so it is not asserted who does which task, but that the program ends.
    let (put, done) = shut_down_by(|pid| kill_process_group(pid, Signal::INT).unwrap());
    assert!(done <= put);
}
