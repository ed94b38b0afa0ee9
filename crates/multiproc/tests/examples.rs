//! Runs the examples as programs, and checks their output.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use std::{env, process, thread};

use multiproc_testkit::{Watchdog, example, until, watchdog};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// An example that takes longer is killed, which fails its test.
const TOO_LONG: Duration = Duration::from_secs(60);

/// A running example. It leads a process group, so that it can be killed with all its children.
struct Running {
    child: Option<Child>,
    group: Pid,
    _finished: mpsc::Sender<()>,
    _dog: Watchdog,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0).spawn();
        let child = child.unwrap();
        let group = Pid::from_child(&child);
        let (finished, is_finished) = mpsc::channel();
        thread::spawn(move || {
            if is_finished.recv_timeout(TOO_LONG) == Err(RecvTimeoutError::Timeout) {
                let _ = kill_process_group(group, Signal::KILL);
            }
        });
        Self { child: Some(child), group, _finished: finished, _dog: watchdog() }
    }

    fn finish(mut self) -> Output {
        self.child.take().unwrap().wait_with_output().unwrap()
    }
}

/// The test has failed.
impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = child.wait();
        }
    }
}

/// How an example ended, and its output.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn run(command: &mut Command) -> Ended {
    Running::start(command.stdout(Stdio::piped())).finish().into()
}

/// Returns the output of an example that succeeds and prints no error.
fn output_of(name: &str, args: &[&str]) -> String {
    let Ended { code, out, err } = run(Command::new(example(name)).args(args));
    assert_eq!((code, &*err), (Some(0), ""), "it printed:\n{out}");
    out
}

#[test]
fn queue() {
    let mut expected = String::new();
    for i in 0..5 {
        writeln!(expected, "put {i} into queue").unwrap();
    }
    for i in 0..5 {
        writeln!(expected, "get {i} from queue").unwrap();
    }
    assert_eq!(output_of("queue", &[]), expected);
}

#[test]
fn pipe_simplex() {
    let out = output_of("pipe_simplex", &[]);
    let (ends, turns) = out.split_once('\n').unwrap();

    let ends = ends.strip_prefix("(ReadOnly connection ").unwrap().strip_suffix(')').unwrap();
    let (reader, writer) = ends.split_once(", WriteOnly connection ").unwrap();
    let (reader, writer): (u32, u32) = (reader.parse().unwrap(), writer.parse().unwrap());
    assert_ne!(reader, writer);

    let mut expected = String::new();
    for i in 0..5 {
        writeln!(expected, "send {i} to pipe\nrecv {i} from pipe").unwrap();
    }
    assert_eq!(turns, expected);
}

#[test]
fn pipe_duplex() {
    let mut expected = String::new();
    for i in 0..5 {
        writeln!(expected, "left: send {i}\nright: recv {i}").unwrap();
        writeln!(expected, "right: send answer {i}\nleft: recv answer {i}").unwrap();
    }
    assert_eq!(output_of("pipe_duplex", &[]), expected);
}

#[test]
fn full_queue() {
    let expected = "\
        put 0\n\
        put 1\n\
        put 2\n\
        try_put 3: the queue is full\n\
        put 3: waits for room\n\
        another process gets\n\
        put 3: done\n\
        the other process got 0\n\
        left: 1, 2, 3\n";
    assert_eq!(output_of("full_queue", &[]), expected);
}

#[test]
fn producer_consumer() {
    let out = output_of("producer_consumer", &[]);
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("active children: Manager-1, producer, consumer"));
    for _ in 0..6 {
        let number: u8 = lines.next().unwrap().strip_prefix("add data ").unwrap().parse().unwrap();
        assert_eq!(lines.next(), Some(&*format!("minus data {number}")));
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn manager_queue() {
    let expected = "size 2\nfull true\n1\nempty false\nget 2\nthe queue is empty\n";
    assert_eq!(output_of("manager_queue", &[]), expected);
}

#[test]
fn pool() {
    let mut expected = String::new();
    for n in 1..=20 {
        let sum: u32 = (1..=n).filter(|i| n % i == 0).sum();
        writeln!(expected, "the divisors of {n} add up to {sum}").unwrap();
    }
    assert_eq!(output_of("pool", &[]), expected);
}

#[test]
fn bounded_queue() {
    for (args, items) in
        [(&[][..], 50), (&["1"], 1), (&["2"], 2), (&["9"], 9), (&["10"], 10), (&["203"], 203)]
    {
        let out = output_of("bounded_queue", args);
        assert_eq!(out.lines().count(), items, "{out}");
        let mut readers = BTreeSet::new();
        let mut writers = BTreeSet::new();
        for line in out.lines() {
            let parts = line.split_once("(get): process number ").and_then(|(reader, item)| {
                let (writer, time) = item.split_once(" : time: ")?;
                let time: f64 = time.parse().ok()?;
                Some((reader.parse::<u32>().ok()?, writer.parse::<u32>().ok()?, time))
            });
            let (reader, writer, time) = parts.unwrap_or_else(|| panic!("{line}"));
            assert!(time > 0.0, "{line}");
            readers.insert(reader);
            writers.insert(writer);
        }
        // The first ten items go to ten readers, and each of ten writers has its share.
        assert_eq!((readers.len(), writers.len()), (items.min(10), items.min(10)), "{out}");
        assert!(readers.is_disjoint(&writers), "{out}");
    }
}

#[test]
fn bounded_queue_refuses_other_arguments() {
    for args in [&["0"][..], &["ten"], &["-1"], &[""], &["1", "2"]] {
        let Ended { code, out, err } = run(Command::new(example("bounded_queue")).args(args));
        assert_eq!((code, &*out), (Some(2), ""), "{args:?}: {err}");
        assert!(err.starts_with("bounded_queue: ") && err.contains(args[args.len() - 1]), "{err}");
    }
}

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // As the kernel names it, in case of a symbolic link on the way.
        let parent = env::temp_dir().canonicalize().unwrap();
        let path = parent.join(format!("multiproc-examples-{}-{count}", process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn folder(&self, name: &str) {
        fs::create_dir(self.0.join(name)).unwrap();
    }

    /// Writes a file, and returns the start of its line.
    fn file(&self, name: impl AsRef<Path>, content: &[u8]) -> String {
        fs::write(self.0.join(name), content).unwrap();
        format!("{}  ", blake3::hash(content))
    }

    /// Returns the example `digest`, to be run in this folder.
    fn digest(&self, args: &[&str]) -> Command {
        let mut command = Command::new(example("digest"));
        command.current_dir(&self.0).args(args);
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the summary, which is the last line. Returns the numbers of files, bytes and lost
/// workers.
fn take_summary(err: &mut String) -> (u64, u64, u64) {
    let (files, bytes, lost, _) = take_whole_summary(err);
    (files, bytes, lost)
}

/// The same, and the number of redelivered tasks.
fn take_whole_summary(err: &mut String) -> (u64, u64, u64, u64) {
    const LABELS: [&str; 5] = [
        "files: ",
        ", bytes: ",
        ", bytes per second: ",
        ", workers lost: ",
        ", tasks delivered again: ",
    ];
    let start = err.rfind("files: ").unwrap_or_else(|| panic!("no summary: {err}"));
    let summary = err.split_off(start);
    let mut numbers = LABELS.into_iter().scan(&*summary, |left, label| {
        *left = left.strip_prefix(label)?;
        let end = left.find([',', '\n']).unwrap();
        let number: u64 = left[..end].parse().unwrap();
        *left = &left[end..];
        Some(number)
    });
    let mut next = || numbers.next().unwrap_or_else(|| panic!("{summary}"));
    let (files, bytes, _, lost, again) = (next(), next(), next(), next(), next());
    (files, bytes, lost, again)
}

#[test]
fn digest_searches_folders_and_prints_as_b3sum() {
    let here = Folder::new();
    here.folder("data");
    here.folder("data/a");
    here.folder("data/a/deep");
    here.folder("data/none");
    let large: Vec<u8> = (0..3u32 << 20).map(|i| i.wrapping_mul(i).to_le_bytes()[1]).collect();

    // Sorted by the bytes of the paths: `-` comes before `/`.
    let mut lines = String::new();
    lines += &(here.file("data/a-b", b"hyphen") + "data/a-b\n");
    lines += &(here.file("data/a/deep/empty", b"") + "data/a/deep/empty\n");
    lines += &(here.file("data/a/large", &large) + "data/a/large\n");
    lines += "\\";
    lines += &(here.file("data/b\n\r\\n", b"escaped") + "data/b\\n\\r\\\\n\n");
    let name = OsStr::from_bytes(b"data/c\xff\xfe-d");
    lines += &(here.file(name, b"no UTF-8") + "data/c\u{fffd}\u{fffd}-d\n");
    lines += &(here.file("data/d ü", b"UTF-8") + "data/d ü\n");
    let bytes = (3 << 20) + 6 + 7 + 8 + 5;

    // Special files in a folder are skipped. Reading any of these would not end.
    mknodat(CWD, here.0.join("data/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    symlink("..", here.0.join("data/loop")).unwrap();
    symlink("fifo", here.0.join("data/link")).unwrap();

    for args in [&["data"][..], &["--workers", "1", "data"], &["data/", "--workers", "4"]] {
        let Ended { code, out, mut err } = run(&mut here.digest(args));
        assert_eq!(out, lines, "{args:?}: {err}");
        assert_eq!(take_summary(&mut err), (6, bytes, 0));
        assert_eq!((code, &*err), (Some(0), ""));
    }
}

#[test]
fn digest_handles_more_files_than_the_queues_hold() {
    let here = Folder::new();
    here.folder("data");
    // More than both queues hold, in number and in bytes.
    let mut folder = "data".to_owned();
    for _ in 0..5 {
        folder += "/";
        folder += &"x".repeat(200);
        here.folder(&folder);
    }
    let mut lines = String::new();
    for i in 100..700 {
        let name = format!("{folder}/{i}");
        lines += &here.file(&name, name.as_bytes());
        lines += &(name + "\n");
    }
    for workers in ["1", "4"] {
        let Ended { code, out, err } = run(&mut here.digest(&["--workers", workers, "data"]));
        assert_eq!((code, out == lines), (Some(0), true), "{err}\n{out}");
    }
}

#[test]
fn digest_accepts_links_duplicates_and_option_like_names() {
    let here = Folder::new();
    let b = here.file("b", b"b");
    let option = here.file("--workers", b"option");
    symlink("b", here.0.join("a")).unwrap();
    // A link that is given as an argument is followed; a file that is given twice is printed twice.
    let Ended { code, out, err } =
        run(&mut here.digest(&["b", "--no-progress", "--", "b", "a", "--workers"]));
    assert_eq!(out, format!("{option}--workers\n{b}a\n{b}b\n{b}b\n"), "{err}");
    assert_eq!(code, Some(0));
}

#[test]
fn digest_reports_unreadable_files_and_does_the_rest() {
    let here = Folder::new();
    let (first, last) = (here.file("first", b"first"), here.file("last", b"last"));
    mknodat(CWD, here.0.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let Ended { code, out, mut err } =
        run(&mut here.digest(&["first", "missing", "fifo", "last", "first/below"]));
    assert_eq!(out, format!("{first}first\n{last}last\n"), "{err}");
    assert_eq!(take_summary(&mut err), (2, 9, 0));
    let complaints: BTreeSet<_> = err.lines().collect();
    let expected = BTreeSet::from([
        "digest: missing: No such file or directory (os error 2)",
        "digest: fifo: neither a regular file nor a folder",
        "digest: first/below: Not a directory (os error 20)",
    ]);
    assert_eq!((code, complaints), (Some(1), expected));
}

#[test]
fn digest_reports_forbidden_files() {
    let here = Folder::new();
    let last = here.file("last", b"last");
    here.file("forbidden", b"forbidden");
    let forbidden = here.0.join("forbidden");
    fs::set_permissions(&forbidden, Permissions::from_mode(0o000)).unwrap();
    if File::open(&forbidden).is_ok() {
        eprintln!("skipped: this process may read everything");
        return;
    }
    let Ended { code, out, mut err } = run(&mut here.digest(&["forbidden", "last"]));
    assert_eq!(out, format!("{last}last\n"), "{err}");
    assert_eq!(take_summary(&mut err), (1, 4, 0));
    let expected = "digest: forbidden: Permission denied (os error 13)\n";
    assert_eq!((code, &*err), (Some(1), expected));
}

#[test]
fn digest_refuses_other_arguments() {
    let here = Folder::new();
    let usage = "usage: digest [--workers N] [--kill] [--no-progress] PATH…";
    for (args, why) in [
        (&[][..], "no path is given"),
        (&["--"], "no path is given"),
        (&["--workers", "0", "."], "--workers takes a number from 1 on"),
        (&["--workers", "two", "."], "--workers takes a number from 1 on"),
        (&["--workers"], "--workers takes a number from 1 on"),
        (&["--quick", "."], "there is no option --quick"),
    ] {
        let Ended { code, out, err } = run(&mut here.digest(args));
        assert_eq!((code, &*out), (Some(2), ""));
        assert_eq!(err, format!("digest: {why}\n{usage}\n"));
    }
    let no_number = [OsString::from("--workers"), OsString::from_vec(vec![0xff]), ".".into()];
    assert_eq!(run(here.digest(&[]).args(no_number)).code, Some(2));
}

#[test]
fn digest_prints_its_options_when_asked() {
    let here = Folder::new();
    for args in [&["--help"][..], &["-h"], &["--workers", "2", "--help", "missing"]] {
        let Ended { code, out, err } = run(&mut here.digest(args));
        assert_eq!((code, &*err), (Some(0), ""), "{args:?}");
        assert!(out.starts_with("usage: digest "), "{out}");
        for option in ["--workers", "--kill", "--no-progress", "--help"] {
            assert!(out.lines().any(|line| line.trim_start().starts_with(option)), "{option}");
        }
    }
    // After `--` it is a file.
    let help = here.file("--help", b"help");
    let Ended { code, out, .. } = run(&mut here.digest(&["--", "--help"]));
    assert_eq!((code, out), (Some(0), help + "--help\n"));
}

#[test]
fn digest_workers_have_names_that_ps_and_pgrep_show() {
    let here = Folder::new();
    // Holes of a tebibyte keep both workers busy.
    for name in ["1", "2"] {
        File::create(here.0.join(name)).unwrap().set_len(1 << 40).unwrap();
    }
    let mut command = here.digest(&["--workers", "2", "1", "2"]);
    let mut running = Running::start(command.stdout(Stdio::piped()));
    let digest = running.child.as_mut().unwrap();
    let expected = ["digest-work-1", "digest-work-2"].map(str::to_owned);
    until(|| {
        assert_eq!(digest.try_wait().unwrap(), None, "it ended early");
        // What ps shows by default, and what pgrep searches. It is set when the child calls `init`.
        let mut names: Vec<_> = children(digest.id())
            .into_iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok())
            .map(|name| name.trim_end().to_owned())
            .collect();
        names.sort_unstable();
        names == expected
    });
}

#[test]
fn digest_with_kill_reports_that_no_worker_was_killed() {
    let here = Folder::new();
    let line = here.file("a", b"a") + "a\n";
    // On a machine that stalls, a worker may be killed before it has done its only file.
    let Ended { out, mut err, .. } = loop {
        let ended = run(&mut here.digest(&["--kill", "a"]));
        if take_summary(&mut ended.err.clone()).2 == 0 {
            break ended;
        }
    };
    assert_eq!((out, take_summary(&mut err)), (line, (1, 1, 0)));
    let note = err.strip_prefix("digest: --kill: no worker was killed").expect(&err);
    assert_eq!(note.lines().count(), 1, "{note}");
}

#[test]
fn digest_ends_quietly_when_its_output_is_closed() {
    let here = Folder::new();
    here.file("a", b"a");
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let ended: Ended = Running::start(here.digest(&["a"]).stdout(writer)).finish().into();
    assert_eq!((ended.code, &*ended.err), (Some(0), ""));
}

/// A hole of a tebibyte takes no disk space and minutes to read. So its reader can be found and
/// killed.
#[test]
fn digest_survives_killed_workers() {
    for workers in ["1", "2"] {
        let here = Folder::new();
        let first = here.file("1", b"first") + "1\n";
        let hole = here.0.join("2");
        File::create(&hole).unwrap().set_len(1 << 40).unwrap();
        let last = here.file("3", b"last") + "3\n";

        let mut command = here.digest(&["--workers", workers, "1", "2", "3"]);
        let mut running = Running::start(command.stdout(Stdio::piped()));
        let digest = running.child.as_mut().unwrap();
        let mut killed = Vec::new();
        // It is redelivered twice, and then given up.
        for _ in 0..3 {
            until(|| {
                assert_eq!(digest.try_wait().unwrap(), None, "it ended without a digest of 2");
                let reader = children(digest.id())
                    .into_iter()
                    .find(|pid| !killed.contains(pid) && has_open(*pid, &hole));
                killed.extend(reader);
                reader.is_some()
            });
            let worker = killed.last().copied().and_then(Pid::from_raw).unwrap();
            kill_process(worker, Signal::KILL).unwrap();
        }

        let Ended { code, out, mut err } = running.finish().into();
        assert_eq!(out, first + &last, "{err}");
        let (digests, _, lost, again) = take_whole_summary(&mut err);
        assert_eq!((code, digests, lost, again), (Some(1), 2, 3, 2), "{err}");
        let mut expected = String::new();
        for pid in killed {
            writeln!(expected, "digest: worker {pid}: the process was killed by SIGKILL (9)")
                .unwrap();
        }
        expected += "digest: 2: 3 workers have not outlived it\n";
        // With two workers, the second one may die before the death of the first one was noticed.
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(sorted(&err), sorted(&expected));
    }
}

/// Holes, twice as long in each round, until a run is long enough for some deaths.
#[test]
fn digest_with_kill_prints_the_same() {
    let _dog = watchdog();
    let here = Folder::new();
    here.folder("data");
    for i in 0..500u32 {
        here.file(format!("data/{i}"), &i.to_le_bytes().repeat(1000));
    }
    let holes: Vec<_> =
        (0..40).map(|i| File::create(here.0.join(format!("data/hole {i}"))).unwrap()).collect();
    let mut size = 16 << 20;
    loop {
        for (i, hole) in (0..).zip(&holes) {
            hole.set_len(size + i).unwrap();
        }
        let calm = run(&mut here.digest(&["--workers", "2", "data"]));
        assert_eq!((calm.code, calm.out.lines().count()), (Some(0), 540), "{}", calm.err);
        let Ended { code, out, mut err } =
            run(&mut here.digest(&["--workers", "2", "--kill", "data"]));
        let (files, _, lost, _) = take_whole_summary(&mut err);
        assert_eq!((code, files), (Some(0), 540), "{err}");
        assert!(out == calm.out);
        if lost > 0 {
            assert_eq!(err, "");
            return;
        }
        assert!(err.starts_with("digest: --kill: no worker was killed"), "{err}");
        size *= 2;
    }
}

#[test]
fn joinable_queue() {
    let out = output_of("joinable_queue", &[]);
    let lines: Vec<_> = out.lines().collect();
    let (end, lines) = lines.split_last().unwrap();
    assert_eq!(*end, "finished");
    for what in ["add data ", "minus data "] {
        let numbers: Vec<_> =
            lines.iter().filter_map(|line| line.strip_prefix(what)?.parse::<u32>().ok()).collect();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    }
    assert_eq!(lines.len(), 20);
    let place = |line: &str| lines.iter().position(|other| *other == line).unwrap();
    for i in 0..10 {
        assert!(place(&format!("add data {i}")) < place(&format!("minus data {i}")), "{out}");
    }
}

#[test]
fn crash_proof() {
    let out = output_of("crash_proof", &[]);
    let line = |start: &str| {
        out.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_else(|| panic!("{out}"))
    };
    assert!(line("workers killed: ").parse::<u32>().unwrap() > 0, "{out}");
    assert!(line("tasks: ").starts_with("4000, "));
    assert_eq!(line("tasks done: "), "4000, unfinished: 0");
    assert_eq!(line("primes: "), "148933");
}

/// Returns the children of all threads of a process.
fn children(pid: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists = tasks.filter_map(|task| {
        // A thread may have ended.
        fs::read_to_string(task.ok()?.path().join("children")).ok()
    });
    lists
        .flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Returns `true` if a process has a file open.
fn has_open(pid: i32, file: &Path) -> bool {
    // An unreadable entry belongs to a process that has ended, or to a closed descriptor.
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|open| open == file)
}
