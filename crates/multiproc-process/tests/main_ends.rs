//! What happens to the children when `main` ends.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Lines, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use multiproc_testkit::{example, is_running, until, watchdog};
use rustix::process::{Pid, Signal, kill_process};

/// One of the programs in `tests/programs`, which has started one child of each kind.
struct Program {
    process: Child,
    /// The child that is not a daemon ends when this is closed.
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    /// An ordinary one, a stopped one, one that has a daemon of its own, and that daemon.
    daemons: [u32; 4],
    other: u32,
}

impl Program {
    fn start(name: &str) -> Self {
        let mut command = Command::new(example("programs"));
        command.arg(name).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut program = Self { process, input, output, daemons: [0; 4], other: 0 };
        program.daemons = std::array::from_fn(|_| program.pid());
        program.other = program.pid();
        program
    }

    fn line(&mut self) -> String {
        self.output.next().expect("it says more").unwrap()
    }

    fn pid(&mut self) -> u32 {
        self.line().parse().unwrap()
    }

    /// Waits for all daemons to end while the other child lives.
    fn daemons_end(&self) {
        for pid in self.daemons {
            until(|| !is_running(pid));
        }
        assert!(is_running(self.other), "it outlives its parent");
    }

    /// Ends the other child.
    fn other_ends(&mut self) {
        self.input = None;
        assert_eq!(self.line(), "the other one has ended by itself");
        let other = self.other;
        until(|| !is_running(other));
    }
}

/// Kills what a failed test has left.
impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for pid in self.daemons.into_iter().chain([self.other]).filter(|_| std::thread::panicking())
        {
            kill(pid);
        }
    }
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Continues a stopped process, which then ends.
fn let_go_on(pid: u32) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::CONT).unwrap();
}

#[test]
fn guard_ends_daemons_and_waits_for_others() {
    let _dog = watchdog();
    let mut program = Program::start("ends");
    program.daemons_end();
    assert_eq!(program.process.try_wait().unwrap(), None, "it waits for the other one");
    program.other_ends();
    assert!(program.process.wait().unwrap().success());
}

#[test]
fn guard_ends_daemons_when_main_panics() {
    let _dog = watchdog();
    let mut program = Program::start("panics");
    program.daemons_end();
    assert_eq!(program.process.wait().unwrap().code(), Some(101));
    assert!(is_running(program.other), "it outlives its parent");
    program.other_ends();
}

/// A program that ends without its guard, or is killed, leaves its daemons, and they end.
#[test]
fn daemons_end_after_any_end_of_their_parent() {
    let _dog = watchdog();
    for (name, signal) in [
        ("exits", None),
        ("runs", Some(Signal::KILL)),
        ("runs", Some(Signal::TERM)),
        ("runs", Some(Signal::ABORT)),
    ] {
        let mut program = Program::start(name);
        // A stopped process does not end, because none of its threads runs.
        let_go_on(program.daemons[1]);
        until(|| !is_running(program.daemons[1]));
        if let Some(signal) = signal {
            assert!(is_running(program.daemons[0]) && is_running(program.daemons[3]));
            kill_process(Pid::from_child(&program.process), signal).unwrap();
        }
        let status = program.process.wait().unwrap();
        let end = Instant::now();
        assert_eq!(status.code().is_some(), signal.is_none(), "{status}");
        program.daemons_end();
        // Two generations, at most one second each.
        assert!(end.elapsed() < Duration::from_secs(2), "{name}: {:?}", end.elapsed());
        program.other_ends();
    }
}

#[test]
fn daemons_end_when_their_parent_executes_another_program() {
    let _dog = watchdog();
    let mut program = Program::start("executes");
    let_go_on(program.daemons[1]);
    program.input = None;
    for pid in program.daemons {
        until(|| !is_running(pid));
    }
    assert_eq!(program.process.try_wait().unwrap(), None, "it sleeps");
}

/// A bare fork of the parent holds all descriptors of the parent.
#[test]
fn daemons_end_while_a_forked_copy_holds_their_lifeline() {
    let _dog = watchdog();
    let mut program = Program::start("forks");
    let copy = program.pid();
    let_go_on(program.daemons[1]);
    program.process.kill().unwrap();
    program.process.wait().unwrap();
    program.daemons_end();
    assert!(is_running(copy), "it lives, so the lifeline is open");
    program.input = None;
    let other = program.other;
    until(|| !is_running(other));
    kill(copy);
}

/// The children of a program are unaffected when a forked copy of it ends.
#[test]
fn forked_copy_leaves_the_children_of_the_original_alone() {
    let _dog = watchdog();
    let output = Command::new(example("programs")).arg("is_copied").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let expected = "copy 0 1 8\noriginal [true, true, true] (7, 7) 1\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn second_init_panics() {
    let _dog = watchdog();
    let output = Command::new(example("programs")).arg("inits_twice").output().unwrap();
    assert_eq!(output.status.code(), Some(101));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("init() was called twice"), "{text}");
    assert!(text.contains("tests/programs/program.rs:"), "the place of the second call: {text}");
}

#[test]
fn child_has_the_command_line_of_its_parent() {
    let _dog = watchdog();
    let odd = OsString::from_vec(b"\xff\xfe odd".to_vec());
    let mut command = Command::new(example("programs"));
    command.arg0("no such path").args(["arguments", "", "--", "*"]).arg(odd);
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    process.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(process.wait().unwrap().success());
    let expected: [&[u8]; 6] = [b"no such path", b"arguments", b"", b"--", b"*", b"\xff\xfe odd"];
    let expected =
        expected.map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn child_is_named_in_ps() {
    let _dog = watchdog();
    let output = Command::new(example("programs")).arg("names").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "Process-1\na long name ind\n");
}
