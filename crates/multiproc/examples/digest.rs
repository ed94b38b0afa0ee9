//! Computes the BLAKE3 digests of files in several processes, and prints them as `b3sum` does.
//!
//! ```text
//! cargo run --release --example digest -- [--workers N] [--kill] [--no-progress] PATH…
//! ```
//!
//! Folders are searched recursively. One queue carries the files to the workers, another one
//! carries the digests back. If a worker is killed, it is replaced, and its file is redelivered. To
//! try this, `--kill` kills a random worker every 200 ms. The output is the same.
//!
//! The workers are called `digest-work-1`, `digest-work-2` and so on, so `pgrep digest-work` finds
//! them.
//!
//! The exit status is 0; 1 if a digest is missing; 2 if the arguments are wrong.

use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, mem, thread};

use indicatif::{ProgressBar, ProgressStyle};
use multiproc::pipe::Bytes;
use multiproc::{
    Consumer, JoinableQueue, Process, Producer, Shutdown, SpawnError, TaskConsumer, TaskProducer,
    queue,
};

const USAGE: &str = "usage: digest [--workers N] [--kill] [--no-progress] PATH…";

const HELP: &str = "\
Prints the BLAKE3 digests of files, in the format of b3sum. Folders are searched recursively.

options:
  --workers N    compute in N processes (default: one for each CPU)
  --kill         kill a random worker every 200 ms and replace it; the output is the same
  --no-progress  show no progress bar
  --help         print this text

exit status: 0; 1 if a digest is missing; 2 if the arguments are wrong";

/// The capacity of both queues.
const WAITING: usize = 256;

/// The interval at which dead workers are replaced.
const PATIENCE: Duration = Duration::from_millis(50);

/// The interval at which a worker is killed, with `--kill`.
const KILL: Duration = Duration::from_millis(200);

/// A file is given up after it was delivered to this number of workers that died. (With `--kill`,
/// the file is not at fault.)
const ATTEMPTS: u32 = 3;

/// The number of a file, and its path, which need not be UTF-8.
type Task = (usize, Bytes);

/// The number of a file, and its outcome.
type Answer = (usize, Outcome);

/// The number of bytes and the digest, or why the file could not be read.
type Outcome = Result<(u64, [u8; 32]), String>;

fn main() -> ExitCode {
    let _runtime = multiproc::init();
    let options = match Options::parse(env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}\n\n{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("digest: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("digest: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    workers: usize,
    kill: bool,
    progress: bool,
    paths: Vec<PathBuf>,
}

impl Options {
    /// Returns `None` if the arguments ask for help.
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let mut workers = multiproc::cpu_count();
        let (mut kill, mut progress) = (false, true);
        let mut paths = Vec::new();
        while let Some(arg) = args.next() {
            match arg.as_bytes() {
                b"--workers" => {
                    let number = args.next().and_then(|number| number.to_str()?.parse().ok());
                    workers =
                        number.map(NonZero::get).ok_or("--workers takes a number from 1 on")?;
                }
                b"--kill" => kill = true,
                b"--no-progress" => progress = false,
                b"--help" | b"-h" => return Ok(None),
                b"--" => paths.extend(args.by_ref().map(PathBuf::from)),
                [b'-', _, ..] => return Err(format!("there is no option {}", arg.display())),
                _ => paths.push(arg.into()),
            }
        }
        if paths.is_empty() {
            return Err("no path is given".to_owned());
        }
        Ok(Some(Self { workers, kill, progress, paths }))
    }
}

/// Runs the program, and returns the number of missing digests.
fn run(options: Options) -> Result<usize, Box<dyn Error>> {
    let start = Instant::now();
    let (files, mut missing) = walk(options.paths);
    let files = Arc::new(files);

    let attempts = if options.kill { u32::MAX } else { ATTEMPTS };
    let tasks = JoinableQueue::builder().capacity(WAITING).max_attempts(attempts);
    let (tasks, worker_tasks) = tasks.build_tasks()?;
    let (worker_answers, answers) = queue::channel(WAITING)?;
    let mut pool = Pool {
        workers: Vec::new(),
        answers,
        worker_ends: (worker_tasks, worker_answers),
        lost: 0,
        killed: 0,
        next_kill: options.kill.then(|| Instant::now() + KILL),
    };
    for place in 0..options.workers.min(files.len()) {
        pool.workers.push(pool.start(place)?);
    }

    // A thread puts while this one gets. If one thread first put everything, both queues would
    // become full, and all processes would wait for each other.
    let (fed, feeder) = (Arc::clone(&files), tasks.clone());
    thread::spawn(move || feed(&fed, &feeder));
    let bar = if options.progress { progress_bar(&files) } else { ProgressBar::hidden() };
    let outcomes = pool.collect(&files, &bar)?;
    bar.finish_and_clear();
    // A worker may still have a task that was redelivered although its answer had arrived.
    tasks.shutdown(Shutdown::Now);
    pool.answers.shutdown(Shutdown::Now);
    pool.workers.iter().try_for_each(|worker| worker.kill())?;
    let seconds = start.elapsed().as_secs_f64();

    let mut digests = Vec::new();
    let mut bytes = 0;
    for (file, outcome) in files.iter().zip(outcomes) {
        match outcome {
            Some(Ok((size, digest))) => {
                digests.push((digest, &*file.path));
                bytes += size;
                continue;
            }
            Some(Err(why)) => complain(&file.path, why),
            None => complain(&file.path, format_args!("{attempts} workers have not outlived it")),
        }
        missing += 1;
    }
    if options.kill && pool.killed == 0 {
        let first = KILL.as_secs_f64();
        eprintln!(
            "digest: --kill: no worker was killed, because the run took {seconds:.2} s and the \
             first kill comes after {first} s: give it more or larger files"
        );
    }
    match print(&digests) {
        // The reader of the output has closed it.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(missing),
        printed => printed?,
    }
    eprintln!(
        "files: {}, bytes: {bytes}, bytes per second: {:.0}, workers lost: {}, \
         tasks delivered again: {}",
        digests.len(),
        bytes as f64 / seconds,
        pool.lost,
        tasks.redelivered(),
    );
    Ok(missing)
}

struct Found {
    path: PathBuf,
    size: u64,
}

/// Returns the regular files in `paths` and below, sorted, and the number of paths that cannot be
/// read.
fn walk(paths: Vec<PathBuf>) -> (Vec<Found>, usize) {
    let mut files = Vec::new();
    let mut faults = 0;
    // A symbolic link is followed if it was passed as an argument, but not inside a folder.
    let given = |path: PathBuf| match fs::metadata(&path) {
        Ok(data) if !data.is_file() && !data.is_dir() => {
            (path, Err(io::Error::other("neither a regular file nor a folder")))
        }
        data => (path, data),
    };
    let mut left: Vec<(PathBuf, io::Result<Metadata>)> = paths.into_iter().map(given).collect();
    while let Some((path, data)) = left.pop() {
        match data {
            Ok(data) if data.is_file() => files.push(Found { path, size: data.len() }),
            Ok(data) if data.is_dir() => match fs::read_dir(&path) {
                Ok(entries) => left.extend(entries.map(|entry| match entry {
                    Ok(entry) => (entry.path(), entry.metadata()),
                    Err(error) => (path.clone(), Err(error)),
                })),
                Err(error) => left.push((path, Err(error))),
            },
            Ok(_) => {}
            Err(error) => {
                complain(&path, error);
                faults += 1;
            }
        }
    }
    // By bytes. The order of `Path` is by component, so `a/b` would come before `a-b`.
    files.sort_unstable_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
    (files, faults)
}

fn complain(path: &Path, why: impl Display) {
    eprintln!("digest: {}: {why}", path.display());
}

fn feed(files: &[Found], tasks: &TaskProducer<Task>) {
    let paths = files.iter().map(|file| Bytes(file.path.as_os_str().as_bytes().to_vec()));
    for task in paths.enumerate() {
        tasks.put(task).expect("a path fits into the queue");
    }
}

/// The function of a worker.
fn work(tasks: TaskConsumer<Task>, answers: Producer<Answer>) {
    for task in tasks {
        let task = task.expect("tasks are tasks");
        let (number, Bytes(path)) = &*task;
        let outcome = digest(Path::new(OsStr::from_bytes(path)));
        let answer = (*number, outcome.map_err(|error| error.to_string()));
        // It fails if all answers have already arrived.
        let _ = task.finish_with(&answers, answer);
    }
}

fn digest(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok((hasher.count(), hasher.finalize().into()))
}

/// The workers, and the queues between them and this process.
struct Pool {
    workers: Vec<Process>,
    answers: Consumer<Answer>,
    /// The ends of both queues for a new worker.
    worker_ends: (TaskConsumer<Task>, Producer<Answer>),
    /// The number of workers that ended before their time, including `killed`.
    lost: usize,
    /// The number of workers that this process has killed.
    killed: usize,
    next_kill: Option<Instant>,
}

impl Pool {
    /// A daemon, so that it is terminated at the end of `main`. The kernel keeps 15 bytes of the
    /// name.
    fn start(&self, place: usize) -> Result<Process, SpawnError> {
        let name = format!("digest-work-{}", place + 1);
        Process::builder().name(name).daemon(true).spawn(work, self.worker_ends.clone())
    }

    /// Gets an answer for each file, except those that were given up.
    fn collect(
        &mut self,
        files: &[Found],
        bar: &ProgressBar,
    ) -> Result<Vec<Option<Outcome>>, Box<dyn Error>> {
        let mut outcomes = vec![None; files.len()];
        let mut missing: BTreeSet<usize> = (0..files.len()).collect();
        let mut next_look = Instant::now();
        // The queue may hold the answer of a task that was given up.
        while !missing.is_empty() || !self.answers.is_empty() {
            match self.answers.get_deadline(next_look) {
                // A worker that is killed after it put the answer and before it completed the task
                // causes a second answer.
                Ok((number, _)) if outcomes[number].is_some() => {}
                Ok((number, outcome)) => {
                    outcomes[number] = Some(outcome);
                    missing.remove(&number);
                    bar.inc(files[number].size);
                }
                Err(error) if error.is_timeout() => {}
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= next_look {
                next_look = Instant::now() + PATIENCE;
                self.check_workers()?;
                for letter in self.worker_ends.0.dead_letters()? {
                    if let Some((number, _)) = letter.take() {
                        missing.remove(&number);
                    }
                }
            }
        }
        Ok(outcomes)
    }

    /// Replaces dead workers, and kills one if it is time to.
    fn check_workers(&mut self) -> Result<(), Box<dyn Error>> {
        for place in 0..self.workers.len() {
            if !self.workers[place].is_alive() {
                let dead = self.replace(place)?;
                let pid = dead.pid();
                if let Err(error) = dead.join() {
                    eprintln!("digest: worker {pid}: {error}");
                }
            }
        }
        if self.next_kill.is_some_and(|next| Instant::now() >= next) {
            self.next_kill = Some(Instant::now() + KILL);
            let place = fastrand::usize(..self.workers.len());
            self.workers[place].kill()?;
            self.killed += 1;
            self.replace(place)?.wait();
        }
        Ok(())
    }

    fn replace(&mut self, place: usize) -> Result<Process, SpawnError> {
        self.lost += 1;
        let worker = self.start(place)?;
        Ok(mem::replace(&mut self.workers[place], worker))
    }
}

/// A progress bar on standard error, if that is a terminal.
fn progress_bar(files: &[Found]) -> ProgressBar {
    let style = "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).expect("a template");
    ProgressBar::new(files.iter().map(|file| file.size).sum()).with_style(style)
}

fn print(digests: &[([u8; 32], &Path)]) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for &(digest, path) in digests {
        let name = path.to_string_lossy();
        let escaped = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        // A backslash at the start of the line announces escaped characters.
        let mark = if escaped == name { "" } else { "\\" };
        writeln!(out, "{mark}{}  {escaped}", blake3::Hash::from(digest))?;
    }
    out.flush()
}
