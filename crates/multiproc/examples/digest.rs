//! The BLAKE3 digests of files, computed by several processes, printed as `b3sum` does.
//!
//! ```text
//! cargo run --release --example digest -- [--workers N] [--no-progress] PATH…
//! ```
//!
//! Folders are walked. One queue takes the files to the workers, another one the digests back. If a
//! worker is killed, the file that it had is lost, and not the run.
//!
//! The exit status is 0, or 1 if a digest is missing, or 2 if the arguments make no sense.

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
use std::{env, thread};

use indicatif::{ProgressBar, ProgressStyle};
use multiproc::pipe::Bytes;
use multiproc::queue::GetTimeoutError;
use multiproc::{Process, Queue};

const USAGE: &str = "usage: digest [--workers N] [--no-progress] PATH…";

/// How many tasks, and how many answers, may wait.
const WAITING: usize = 256;

/// How long there is no answer before we look whether anybody is left to give one.
const PATIENCE: Duration = Duration::from_millis(100);

/// The number of a file, and its path, which need not be UTF-8. `None` is the end, for one worker.
type Task = Option<(usize, Bytes)>;

/// The number of a file, and what became of it.
type Answer = (usize, Outcome);

/// How many bytes were read and their digest, or why they were not.
type Outcome = Result<(u64, [u8; 32]), String>;

fn main() -> ExitCode {
    let _runtime = multiproc::init();
    let options = match Options::parse(env::args_os().skip(1)) {
        Ok(options) => options,
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
    progress: bool,
    paths: Vec<PathBuf>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut workers = multiproc::cpu_count();
        let mut progress = true;
        let mut paths = Vec::new();
        while let Some(arg) = args.next() {
            match arg.as_bytes() {
                b"--workers" => {
                    let number = args.next().and_then(|number| number.to_str()?.parse().ok());
                    workers =
                        number.map(NonZero::get).ok_or("--workers takes a number from 1 on")?;
                }
                b"--no-progress" => progress = false,
                b"--" => paths.extend(args.by_ref().map(PathBuf::from)),
                [b'-', _, ..] => return Err(format!("there is no option {}", arg.display())),
                _ => paths.push(arg.into()),
            }
        }
        if paths.is_empty() {
            return Err("no path is given".to_owned());
        }
        Ok(Self { workers, progress, paths })
    }
}

/// Does it all, and gives the number of digests that are missing.
fn run(options: Options) -> Result<usize, Box<dyn Error>> {
    let start = Instant::now();
    let (files, mut missing) = walk(options.paths);
    let files = Arc::new(files);

    let tasks = Queue::bounded(WAITING)?;
    let answers = Queue::bounded(WAITING)?;
    // Daemons: they end with this process, however it ends.
    let workers = (0..options.workers.min(files.len()))
        .map(|_| Process::builder().daemon(true).spawn(work, (tasks.clone(), answers.clone())))
        .collect::<Result<Vec<_>, _>>()?;

    // A thread puts while this one gets. If one did first all of this and then all of that, both
    // queues would become full, and everybody would wait for everybody.
    let (fed, ends) = (Arc::clone(&files), workers.len());
    thread::spawn(move || feed(&fed, ends, &tasks));
    let bar = if options.progress { progress_bar(&files) } else { ProgressBar::hidden() };
    let outcomes = collect(&files, &workers, &answers, &bar)?;
    bar.finish_and_clear();

    let mut lost = 0;
    for worker in workers {
        let pid = worker.pid();
        if let Err(error) = worker.join() {
            eprintln!("digest: worker {pid}: {error}");
            lost += 1;
        }
    }
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
            None => eprintln!("digest: lost with its worker: {}", file.path.display()),
        }
        missing += 1;
    }
    match print(&digests) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(missing),
        printed => printed?,
    }
    eprintln!(
        "files: {}, bytes: {bytes}, bytes per second: {:.0}, workers lost: {lost}",
        digests.len(),
        bytes as f64 / seconds,
    );
    Ok(missing)
}

struct Found {
    path: PathBuf,
    size: u64,
}

/// The regular files at and below `paths`, sorted, and how many paths cannot be looked at.
fn walk(paths: Vec<PathBuf>) -> (Vec<Found>, usize) {
    let mut files = Vec::new();
    let mut faults = 0;
    // A link is followed if it is given, and not if it is found in a folder.
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
    // By bytes. Paths themselves compare name by name, where `a/b` comes before `a-b`.
    files.sort_unstable_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
    (files, faults)
}

fn complain(path: &Path, why: impl Display) {
    eprintln!("digest: {}: {why}", path.display());
}

fn feed(files: &[Found], ends: usize, tasks: &Queue<Task>) {
    let paths = files.iter().map(|file| Bytes(file.path.as_os_str().as_bytes().to_vec()));
    for task in paths.enumerate().map(Some).chain((0..ends).map(|_| None)) {
        tasks.put(task).expect("a path fits into the queue");
    }
}

/// What a worker does.
fn work((tasks, answers): (Queue<Task>, Queue<Answer>)) {
    while let Some((number, Bytes(path))) = tasks.get().expect("tasks are tasks") {
        let outcome = digest(Path::new(OsStr::from_bytes(&path)));
        let outcome = outcome.map_err(|error| error.to_string());
        answers.put((number, outcome)).expect("an answer fits into the queue");
    }
}

fn digest(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok((hasher.count(), hasher.finalize().into()))
}

/// Gets an answer for each file, or as many as there will be. The others died with their workers.
fn collect(
    files: &[Found],
    workers: &[Process],
    answers: &Queue<Answer>,
    bar: &ProgressBar,
) -> Result<Vec<Option<Outcome>>, GetTimeoutError> {
    let mut outcomes = vec![None; files.len()];
    let mut missing = files.len();
    let mut all_ended = false;
    while missing > 0 {
        match answers.get_timeout(PATIENCE) {
            Ok((number, outcome)) => {
                outcomes[number] = Some(outcome);
                missing -= 1;
                bar.inc(files[number].size);
            }
            Err(error) if !error.is_timeout() => return Err(error),
            // They had ended before we waited once more, so nothing else can come.
            Err(_) if all_ended => break,
            Err(_) => all_ended = workers.iter().all(|worker| !worker.is_alive()),
        }
    }
    Ok(outcomes)
}

/// Shown on standard error, if that is a terminal.
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
        // The reader is told to undo it by a backslash in front of the line.
        let mark = if escaped == name { "" } else { "\\" };
        writeln!(out, "{mark}{}  {escaped}", blake3::Hash::from(digest))?;
    }
    out.flush()
}
