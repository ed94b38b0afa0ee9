//! Compares starting a process that does nothing and waiting for its end with
//! `std::process::Command` on the same executable. Then measures the cost of resident memory and of
//! arguments, and the delay until an end is noticed.

use std::env;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::Criterion;
use multiproc::pipe::{Bytes, Connection, duplex};
use multiproc::{Lock, Process, Queue};
use multiproc_benches::machine;
use rustix::event::{PollFd, PollFlags, poll};

/// The environment variable that makes this program end at once.
const DO_NOTHING: &str = "MULTIPROC_BENCH_DO_NOTHING";

fn spawn_and_join() {
    Process::spawn(|()| (), ()).unwrap().join().unwrap();
}

fn command_and_wait() {
    let mut command = Command::new("/proc/self/exe");
    let status = command.env(DO_NOTHING, "1").stdin(Stdio::null()).status().unwrap();
    assert!(status.success());
}

fn time(action: impl FnOnce()) -> Duration {
    let start = Instant::now();
    action();
    start.elapsed()
}

/// Prints the times of an action and of its reference, taken in turn, so that a disturbance affects
/// both.
fn print_ratio(
    name: &str,
    rounds: usize,
    mut this: impl FnMut() -> Duration,
    mut reference: impl FnMut() -> Duration,
    bound: f64,
) {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds + 10 {
        let pair = [this(), reference()];
        // The first rounds are for warming up.
        if round >= 10 {
            times.iter_mut().zip(pair).for_each(|(times, time)| times.push(time));
        }
    }
    let [this, reference] = times.map(|mut times| {
        times.sort();
        1e6 * times[times.len() / 2].as_secs_f64()
    });
    println!("| {name} | {this:.0} | {reference:.0} | {:.2} | {bound} |", this / reference);
}

type Handles = (Vec<Queue<u32>>, Vec<Lock>, Vec<Connection<(), ()>>);

/// Returns arguments of ten handles and 1 MiB.
fn large_arguments() -> (Handles, Bytes) {
    let queues = (0..4).map(|_| Queue::bounded(10).unwrap()).collect();
    let locks = (0..3).map(|_| Lock::new().unwrap()).collect();
    let ends = (0..3).map(|_| duplex().unwrap().0).collect();
    ((queues, locks, ends), Bytes(vec![1; 1 << 20]))
}

fn with_large_arguments() -> Duration {
    let arguments = large_arguments();
    time(|| {
        let take = |(_handles, bytes): (Handles, Bytes)| assert_eq!(bytes.0.len(), 1 << 20);
        Process::spawn(take, arguments).unwrap().join().unwrap();
    })
}

/// Starts a process that waits to be killed.
fn waiting() -> (Process, Connection<(), ()>) {
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let wait = |parent: Connection<(), ()>| {
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let child = Process::spawn(wait, theirs).unwrap();
    ours.recv().unwrap();
    (child, ours)
}

fn kill_and_join() -> Duration {
    let (child, _end) = waiting();
    time(|| {
        child.kill().unwrap();
        child.join().unwrap_err();
    })
}

fn kill_and_poll() -> Duration {
    let (child, _end) = waiting();
    time(|| {
        child.kill().unwrap();
        poll(&mut [PollFd::new(&child.as_fd(), PollFlags::IN)], None).unwrap();
    })
}

/// A process that starts others on request.
struct Parent {
    connection: Connection<(), Duration>,
}

impl Parent {
    /// Starts one with `bytes` bytes of resident memory.
    fn start(bytes: usize) -> Self {
        let (connection, theirs) = duplex().unwrap();
        let serve = |(bytes, parent): (usize, Connection<Duration, ()>)| {
            let resident = black_box(vec![1u8; bytes]);
            while parent.recv().is_ok() {
                parent.send(time(spawn_and_join)).unwrap();
            }
            drop(black_box(resident));
        };
        drop(Process::spawn(serve, (bytes, theirs)).unwrap());
        Self { connection }
    }

    fn spawn_and_join(&self) -> Duration {
        self.connection.send(()).unwrap();
        self.connection.recv().unwrap()
    }
}

fn ratios() {
    println!("\n| work (reference) | µs | reference, µs | ratio | limit |\n|---|---|---|---|---|");
    let spawn = || time(spawn_and_join);
    print_ratio(
        "spawn and join (std::process::Command)",
        1000,
        spawn,
        || time(command_and_wait),
        1.15,
    );
    let [large, little] = [1 << 30, 1 << 20].map(Parent::start);
    print_ratio(
        "spawn and join, 1 GiB resident (1 MiB resident)",
        1000,
        || large.spawn_and_join(),
        || little.spawn_and_join(),
        1.1,
    );
    print_ratio(
        "spawn and join, 10 handles and 1 MiB (no arguments)",
        500,
        with_large_arguments,
        spawn,
        2.5,
    );
    print_ratio("SIGKILL until join returns (bare poll)", 1000, kill_and_join, kill_and_poll, 1.3);
}

fn main() {
    if env::var_os(DO_NOTHING).is_some() {
        return;
    }
    let _runtime = multiproc::init();
    // As in criterion: `cargo bench` passes --bench, `cargo test` does not.
    let has = |wanted: &str| env::args().any(|arg| arg == wanted);
    let is_bench = has("--bench") && !has("--test") && !has("--list");
    if is_bench {
        machine::print();
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("spawn/do nothing");
    group.bench_function("multiproc, spawn and join", |b| b.iter(spawn_and_join));
    group.bench_function("std::process::Command, spawn and wait", |b| b.iter(command_and_wait));
    group.finish();
    criterion.final_summary();
    if is_bench {
        ratios();
    }
}
