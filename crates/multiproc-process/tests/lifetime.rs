//! The life of children ends with that of their parent, and the end of `main` waits for them.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use multiproc_testkit::{example, is_running, until, watchdog};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The bound that is promised.
const BOUND: Duration = Duration::from_secs(1);

/// One of the programs in `tests/programs`, as the leader of a process group. Dropping it kills
/// what is left of the group.
struct Program {
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(example("programs"));
        command.args(arguments).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, output }
    }

    fn line(&mut self) -> String {
        self.output.next().expect("it prints more").unwrap()
    }

    /// Returns the processes of the group that have not ended.
    fn living(&self) -> Vec<u32> {
        let group = self.process.id().to_string();
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let mut living: Vec<_> = processes
            .filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| {
                // "ID (NAME) STATE PARENT GROUP …", where the name may contain any characters.
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let mut fields = stat.rsplit(')').next().unwrap().split_whitespace();
                let is_zombie = fields.next() == Some("Z");
                fields.nth(1) == Some(&group) && !is_zombie
            })
            .collect();
        living.sort_unstable();
        living
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for the end of all processes of the group but `left`, and checks the bound.
    fn ends_except(&mut self, left: &[u32], what: &str) {
        self.process.wait().unwrap();
        let end = Instant::now();
        until(|| self.living() == left);
        assert!(end.elapsed() < BOUND, "{what}: {:?}", end.elapsed());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.process), Signal::KILL);
        let _ = self.process.wait();
    }
}

/// Starts the program that has a child of each kind. Returns it and the pid of the child that
/// outlives it.
fn family(end: &str) -> (Program, u32) {
    let mut program = Program::start(&["family", end]);
    let line = program.line();
    let pids: Vec<u32> = line.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 5);
    (program, pids[4])
}

/// All generations end, and a child that blocks SIGTERM and one that decodes its arguments, but not
/// a child that was started to outlive its parent.
#[test]
fn children_end_after_any_end_of_their_parent() {
    let _dog = watchdog();
    for signal in [Signal::KILL, Signal::TERM, Signal::ABORT] {
        let (mut program, outlives) = family("parks");
        assert_eq!(program.living().len(), 6, "the program and its descendants");
        program.signal(signal);
        program.ends_except(&[outlives], &format!("{signal:?}"));
    }
    for end in ["exits", "aborts", "forgets"] {
        let (mut program, outlives) = family(end);
        program.ends_except(&[outlives], end);
    }
}

#[test]
fn children_end_when_their_parent_executes_another_program() {
    let _dog = watchdog();
    let (program, outlives) = family("executes");
    let mut left = vec![program.process.id(), outlives];
    left.sort_unstable();
    until(|| program.living() == left);
}

/// The guard terminates them, before the program ends.
#[test]
fn children_are_terminated_when_main_panics() {
    let _dog = watchdog();
    let (mut program, outlives) = family("panics");
    assert_eq!(program.process.wait().unwrap().code(), Some(101));
    // The grandchild ends after its parent, and the guard does not wait for it.
    program.ends_except(&[outlives], "panics");
}

#[test]
fn child_ends_if_its_parent_is_killed_before_it_calls_init() {
    let _dog = watchdog();
    let mut program = Program::start(&["starts_slowly"]);
    let child: u32 = program.line().parse().unwrap();
    program.signal(Signal::KILL);
    program.process.wait().unwrap();
    until(|| !is_running(child));
    assert!(program.living().is_empty());
}

/// Whatever the parent and its children are doing.
#[test]
fn nothing_is_left_when_a_parent_is_killed_at_random_moments() {
    let _dog = watchdog();
    for round in 0..40 {
        let mut program = Program::start(&["spawns"]);
        assert_eq!(program.line(), "ready");
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..60_000)));
        let signal = if round % 2 == 0 { Signal::KILL } else { Signal::TERM };
        program.signal(signal);
        program.ends_except(&[], &format!("round {round}"));
    }
}

/// Reads the lines that a program prints on its standard error until one contains `text`.
fn lines_until(program: &mut Program, text: &str) -> String {
    let mut lines = BufReader::new(program.process.stderr.take().unwrap()).lines();
    let mut all = String::new();
    loop {
        let line = lines.next().expect("it prints more").unwrap();
        all = all + &line + "\n";
        if line.contains(text) {
            return all;
        }
    }
}

#[test]
fn guard_reports_after_a_second_which_children_it_waits_for() {
    let _dog = watchdog();
    let mut program = Program::start(&["waits"]);
    let start = Instant::now();
    let text = lines_until(&mut program, "the wait ends when");
    assert!(start.elapsed() > Duration::from_millis(900), "{:?}", start.elapsed());
    let living = program.living();
    let child = living.iter().find(|&&pid| pid != program.process.id()).unwrap();
    let named = format!("reader (pid {child}), function programs::reads_input");
    assert!(text.contains(&named), "{text}");
    assert!(text.contains("MainProcess (pid "), "{text}");
    assert_eq!(program.process.try_wait().unwrap(), None);
    drop(program.process.stdin.take());
    assert!(program.process.wait().unwrap().success());
}

#[test]
fn child_reports_which_of_its_children_it_waits_for() {
    let _dog = watchdog();
    let mut program = Program::start(&["child_waits"]);
    let text = lines_until(&mut program, "the wait ends when");
    assert!(text.contains("middle (pid ") && text.contains("middle:1 (pid "), "{text}");
    drop(program.process.stdin.take());
    assert!(program.process.wait().unwrap().success());
}

#[test]
fn guard_is_silent_if_children_end_within_a_second() {
    let _dog = watchdog();
    let mut program = Program::start(&["waits"]);
    drop(program.process.stdin.take());
    let mut text = String::new();
    program.process.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(program.process.wait().unwrap().success());
    assert_eq!(text, "");
}

#[test]
fn finish_lists_failures_that_were_not_handled() {
    let _dog = watchdog();
    let output = Command::new(example("programs")).arg("finishes").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    let expected = [
        "early: exited with code 3",
        "slow: killed by SIGABRT (6)",
        "unjoined: exited with code 6",
    ];
    assert_eq!(lines, expected);
}
