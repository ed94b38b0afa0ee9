//! Kills each process of a program, one per run, at a random moment.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
};

/// The variable that marks the processes of a run, orphans included: children inherit it.
const MARKER: &str = "MULTIPROC_KILL_TEST_RUN";

/// How long a program may run after one of its processes was killed, beyond its normal time.
const GRACE: Duration = Duration::from_secs(2);

/// The interval at which the processes of a run are listed.
const TICK: Duration = Duration::from_millis(1);

/// A run without a kill that takes longer has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

/// The number of rounds unless `MULTIPROC_KILL_ROUNDS` is set.
const ROUNDS: u32 = 1;

/// Kills each process of a program at a random moment, and checks that the program ends and leaves
/// nothing behind.
///
/// The program is first run undisturbed, which shows how many processes it has, when each begins,
/// and how long each lives. A round then runs it once for each process, the first one included, and
/// kills that process with SIGKILL at a random moment of its life. After each kill:
///
/// - All processes of the program end. They have 2 s and as long as an undisturbed run takes from
///   that moment on. Time during which the machine stalls does not count.
/// - The program succeeds with the right output, or it fails with a message on standard error. It
///   is not ended by a signal, except for the process that was killed.
/// - No process, no file in its working directory or TMPDIR, no entry in `/dev/shm`, no System V
///   object and no socket is left. A memfd lives as long as a process or a message in a socket
///   holds it, so no memory is left either.
///
/// A failure prints the seed. `MULTIPROC_SEED` repeats it; the moment at which the kill hits still
/// depends on the machine. `MULTIPROC_KILL_ROUNDS` sets the number of rounds.
///
/// ```no_run
/// use multiproc_testkit::{KillTest, example};
///
/// KillTest::new(example("queue"), &[]).run(|_, out| assert!(out.ends_with("queue\n")));
/// ```
#[derive(Debug)]
#[must_use = "call `run`"]
pub struct KillTest {
    /// Each is started after the one before has printed something.
    programs: Vec<(PathBuf, Vec<String>)>,
    terminate_after: Option<Duration>,
}

impl KillTest {
    /// Prepares a test of a program that runs with these arguments.
    pub fn new(program: PathBuf, args: &[&str]) -> Self {
        Self { programs: Vec::new(), terminate_after: None }.and(program, args)
    }

    /// Adds a program that is started when the one before has printed its first output. The
    /// processes of all programs are killed.
    pub fn and(mut self, program: PathBuf, args: &[&str]) -> Self {
        self.programs.push((program, args.iter().map(|&arg| arg.to_owned()).collect()));
        self
    }

    /// Sends SIGTERM to the first program this long after its first output: for a program that runs
    /// until then.
    pub fn terminate_after(mut self, time: Duration) -> Self {
        self.terminate_after = Some(time);
        self
    }

    /// Runs the test. `check` gets the number of a program that has succeeded, from 0, and its
    /// standard output.
    ///
    /// # Panics
    ///
    /// If one of the conditions does not hold.
    pub fn run(&self, check: impl Fn(usize, &str)) {
        let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect("a number"));
        let rounds = number("MULTIPROC_KILL_ROUNDS").unwrap_or(u64::from(ROUNDS));
        let seed = number("MULTIPROC_SEED").unwrap_or_else(|| fastrand::u64(..));
        let mut random = fastrand::Rng::with_seed(seed);
        let name = self.programs[0].0.file_name().expect("a file").display().to_string();

        // The first run may have to read the program from the disk.
        let plain = [self.undisturbed(&check), self.undisturbed(&check)];
        let plain = plain.into_iter().max_by_key(|plain| plain.lives.len()).expect("two runs");
        let mut tally = Tally::default();
        for round in 0..rounds {
            for victim in 0..plain.lives.len() {
                let context = format!("{name}: MULTIPROC_SEED={seed}, round {round}");
                let moment = plain.lives[victim].mul_f64(random.f64());
                // A run may be shorter than the undisturbed one, so that the moment never comes.
                for halvings in 0..4 {
                    let moment = moment / 2_u32.pow(halvings);
                    if self.kill_one(victim, moment, &plain, &check, &context, &mut tally) {
                        break;
                    }
                }
            }
        }
        println!("{name}: {} processes, {rounds} rounds: {tally}", plain.lives.len());
        assert!(tally.kills > 0 || rounds == 0, "{name}: no process was killed");
    }

    fn undisturbed(&self, check: &impl Fn(usize, &str)) -> Plain {
        let mut run = Run::start(self);
        let end = run.begun + TOO_LONG;
        while !run.step() {
            run.must(Instant::now() < end, "the undisturbed run hangs");
        }
        run.check_end(None, end, check);
        let lives = run.seen.iter().map(|seen| seen.last.duration_since(seen.first)).collect();
        Plain { lives, duration: run.begun.elapsed() }
    }

    /// Returns `false` if the process had ended before it could be killed.
    fn kill_one(
        &self,
        victim: usize,
        moment: Duration,
        plain: &Plain,
        check: &impl Fn(usize, &str),
        context: &str,
        tally: &mut Tally,
    ) -> bool {
        let mut run = Run::start(self);
        run.context = format!("{context}, process {victim} after {moment:?}");
        let give_up = run.begun + TOO_LONG;
        while run.seen.get(victim).is_none_or(|seen| seen.first.elapsed() < moment) {
            if run.step() {
                tally.missed += 1;
                run.check_end(None, give_up, check);
                return false;
            }
            run.must(Instant::now() < give_up, "it hangs without a kill");
        }
        run.note_sockets();
        let Some(comm) = run.seen[victim].kill() else {
            tally.missed += 1;
            while !run.step() {
                run.must(Instant::now() < give_up, "it hangs without a kill");
            }
            run.check_end(None, give_up, check);
            return false;
        };
        let killed = Instant::now();
        run.context += &format!(" ({comm})");
        let normal_rest = plain.duration.saturating_sub(run.begun.elapsed());
        let mut deadline = killed + GRACE + normal_rest;
        loop {
            let before = Instant::now();
            if run.step() {
                break;
            }
            // A stalled machine is not the program's fault.
            deadline += before.elapsed().saturating_sub(50 * TICK);
            run.must(Instant::now() < deadline, "the program hangs after the kill");
        }
        run.check_end(Some(victim), deadline, check);
        tally.kills += 1;
        let time = killed.elapsed().saturating_sub(normal_rest);
        if time > tally.slowest {
            (tally.slowest, tally.slowest_victim) = (time, victim);
        }
        let killed = run.seen[victim].pid;
        let others = run.roots.iter().filter(|(child, _)| child.id().cast_signed() != killed);
        let mut others = others.filter_map(|(_, status)| *status);
        tally.results += u32::from(others.all(|status| status.success()));
        true
    }
}

/// What an undisturbed run shows.
struct Plain {
    /// The life of each process, in the order in which they appeared.
    lives: Vec<Duration>,
    duration: Duration,
}

#[derive(Default)]
struct Tally {
    kills: u32,
    /// Processes that had ended before they could be killed.
    missed: u32,
    /// Runs that succeeded although a process was killed.
    results: u32,
    slowest: Duration,
    /// The process whose death led to the slowest end.
    slowest_victim: usize,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kills, missed, results, slowest, slowest_victim } = self;
        let errors = kills - results;
        write!(
            f,
            "{kills} kills ({missed} others came too late), {results} results, {errors} errors, \
             slowest end {slowest:.2?} beyond the normal time (process {slowest_victim})"
        )
    }
}

/// A process that was seen during a run.
struct Seen {
    pid: i32,
    /// Refers to this process also after its number was given to another.
    pidfd: Option<OwnedFd>,
    first: Instant,
    last: Instant,
}

impl Seen {
    /// Kills the process, and returns its name. `None` if it had ended.
    fn kill(&self) -> Option<String> {
        let comm = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        pidfd_send_signal(self.pidfd.as_ref()?, Signal::KILL).ok()?;
        Some(comm.trim_end().to_owned())
    }
}

/// One run of the programs. The first one leads a process group.
struct Run<'a> {
    test: &'a KillTest,
    /// What sets this run apart from all others, in [`MARKER`].
    mark: String,
    /// The working directory of the programs, and where their output goes.
    folder: PathBuf,
    roots: Vec<(Child, Option<ExitStatus>)>,
    seen: Vec<Seen>,
    begun: Instant,
    terminate_at: Option<Instant>,
    /// The inode numbers of the sockets of the processes.
    sockets: BTreeSet<u64>,
    shared_before: BTreeSet<String>,
    context: String,
}

impl<'a> Run<'a> {
    fn start(test: &'a KillTest) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(format!("multiproc-kill-{mark}"));
        fs::create_dir_all(folder.join("work")).expect("cannot create a folder");
        let mut run = Self {
            test,
            mark,
            folder,
            roots: Vec::new(),
            seen: Vec::new(),
            begun: Instant::now(),
            terminate_at: None,
            sockets: BTreeSet::new(),
            shared_before: shared_objects(),
            context: "undisturbed".to_owned(),
        };
        run.start_next();
        run
    }

    fn start_next(&mut self) {
        let number = self.roots.len();
        let (program, args) = &self.test.programs[number];
        let file = |kind| File::create(self.output(number, kind)).expect("cannot create a file");
        let work = self.folder.join("work");
        let child = Command::new(program)
            .args(args)
            .env(MARKER, &self.mark)
            // Resolving the symbols of a large executable takes a second.
            .env_remove("RUST_BACKTRACE")
            .env("TMPDIR", &work)
            .current_dir(&work)
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .process_group(0)
            .spawn();
        self.roots.push((child.expect("cannot start the program"), None));
    }

    fn output(&self, number: usize, kind: &str) -> PathBuf {
        self.folder.join(format!("{number}.{kind}"))
    }

    fn read(&self, number: usize, kind: &str) -> String {
        let bytes = fs::read(self.output(number, kind)).expect("cannot read the output");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for one tick: looks for new processes, and starts and stops programs. Returns `true`
    /// when all programs have ended. Their children may still run.
    fn step(&mut self) -> bool {
        thread::sleep(TICK);
        let number = self.roots.len() - 1;
        let has_printed = fs::metadata(self.output(number, "out")).is_ok_and(|file| file.len() > 0);
        if has_printed && number + 1 < self.test.programs.len() {
            self.start_next();
        }
        if let Some(after) = self.test.terminate_after
            && has_printed
            && self.roots[0].1.is_none()
            && Instant::now() >= *self.terminate_at.get_or_insert_with(|| Instant::now() + after)
        {
            // Once: the next one is due in a year.
            self.terminate_at = Some(Instant::now() + Duration::from_secs(31_536_000));
            let _ = kill_process(Pid::from_child(&self.roots[0].0), Signal::TERM);
        }

        let mut alive = Vec::new();
        for (child, _) in self.roots.iter().filter(|(_, status)| status.is_none()) {
            add_tree(child.id().cast_signed(), &mut alive);
        }
        for pid in alive {
            let now = Instant::now();
            match self.seen.iter_mut().find(|seen| seen.pid == pid) {
                Some(seen) => seen.last = now,
                None => {
                    let pidfd = Pid::from_raw(pid)
                        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
                    self.seen.push(Seen { pid, pidfd, first: now, last: now });
                }
            }
        }
        for (child, status) in &mut self.roots {
            if status.is_none() {
                *status = child.try_wait().expect("cannot wait");
            }
        }
        // A program that ends before it prints keeps the next one from being started.
        self.roots.iter().all(|(_, status)| status.is_some())
    }

    /// Records the sockets that the processes of the run have open now.
    fn note_sockets(&mut self) {
        for pid in marked(&self.mark) {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
            self.sockets.extend(targets.filter_map(|target| {
                let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
                inode.parse::<u64>().ok()
            }));
        }
    }

    /// Checks everything that must hold after the programs have ended.
    fn check_end(&self, victim: Option<usize>, deadline: Instant, check: &impl Fn(usize, &str)) {
        while !marked(&self.mark).is_empty() {
            self.must(Instant::now() < deadline, "processes outlive the program");
            thread::sleep(TICK);
        }
        let killed = victim.map(|victim| self.seen[victim].pid);
        for (number, (child, status)) in self.roots.iter().enumerate() {
            let status = status.expect("all programs have ended");
            if status.success() {
                // Prints the report if the check fails.
                let shown = Shown(self);
                check(number, &self.read(number, "out"));
                std::mem::forget(shown);
            } else if Some(child.id().cast_signed()) != killed {
                let is_explained = status.code().is_some() && !self.read(number, "err").is_empty();
                self.must(is_explained, "it fails without a message");
            }
        }
        let files = fs::read_dir(self.folder.join("work")).expect("cannot read the folder");
        let files: Vec<_> = files.map(|file| file.expect("a file").file_name()).collect();
        self.must(files.is_empty(), "it leaves files");
        // What other programs of this machine create in the meantime has most likely gone again.
        while !shared_objects().is_subset(&self.shared_before) {
            self.must(Instant::now() < deadline, "it leaves named shared memory");
            thread::sleep(10 * TICK);
        }
        while !unix_sockets().is_disjoint(&self.sockets) {
            self.must(Instant::now() < deadline, "it leaves a socket");
            thread::sleep(10 * TICK);
        }
    }

    /// Fails with everything that is known about the run if a condition does not hold.
    #[track_caller]
    fn must(&self, condition: bool, what: &str) {
        assert!(condition, "{what}\n{}", self.report());
    }

    fn report(&self) -> String {
        let mut report = self.context.clone();
        for number in 0..self.roots.len() {
            let (child, status) = &self.roots[number];
            report += &format!("\nprogram {number} (pid {}): {status:?}", child.id());
            report += &format!("\n--- stdout:\n{}", self.read(number, "out"));
            report += &format!("\n--- stderr:\n{}", self.read(number, "err"));
        }
        for pid in marked(&self.mark) {
            let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let (comm, wchan) = (read("comm"), read("wchan"));
            report += &format!("\nstill running: {pid} {}, in {wchan}", comm.trim_end());
        }
        let files = fs::read_dir(self.folder.join("work")).into_iter().flatten().flatten();
        for file in files {
            report += &format!("\nfile: {}", file.file_name().display());
        }
        report
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        for (child, status) in &mut self.roots {
            if status.is_none() {
                let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            }
        }
        for pid in marked(&self.mark) {
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
        for (child, _) in &mut self.roots {
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Prints the report of a run when it is dropped by a panic.
struct Shown<'a, 'b>(&'a Run<'b>);

impl Drop for Shown<'_, '_> {
    fn drop(&mut self) {
        eprintln!("the output is wrong\n{}", self.0.report());
    }
}

/// Adds a process and its descendants, in the order in which they were started.
fn add_tree(pid: i32, pids: &mut Vec<i32>) {
    pids.push(pid);
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let mut children: Vec<i32> = lists
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect();
    children.sort_unstable();
    for child in children {
        add_tree(child, pids);
    }
}

/// Returns the processes whose environment has this mark. Zombies have none.
fn marked(mark: &str) -> Vec<i32> {
    let wanted = format!("{MARKER}={mark}");
    let processes = fs::read_dir("/proc").expect("cannot read /proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
    })
    .collect()
}

/// Returns the inode numbers of all Unix sockets of the machine.
fn unix_sockets() -> BTreeSet<u64> {
    let table = fs::read_to_string("/proc/net/unix").expect("cannot read /proc");
    table.lines().filter_map(|line| line.split_whitespace().nth(6)?.parse().ok()).collect()
}

/// Returns the names of shared memory and semaphores: POSIX and System V.
fn shared_objects() -> BTreeSet<String> {
    let posix = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let mut names: BTreeSet<_> = posix.map(|file| file.path().display().to_string()).collect();
    for kind in ["shm", "sem", "msg"] {
        let path = Path::new("/proc/sysvipc").join(kind);
        let table = fs::read_to_string(&path).or_else(|error| match error.kind() {
            // The kernel was built without System V objects.
            io::ErrorKind::NotFound => Ok(String::new()),
            _ => Err(error),
        });
        let table = table.expect("cannot read /proc/sysvipc");
        // The key and the identifier.
        let ids = table.lines().skip(1).map(|line| {
            let id: Vec<_> = line.split_whitespace().take(2).collect();
            format!("{kind} {}", id.join(" "))
        });
        names.extend(ids);
    }
    names
}
