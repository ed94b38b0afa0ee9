//! Programs for the tests, with a `main` of their own. The first argument selects one. Each prints
//! its results to standard output, one per line.

// For a bare fork.
#![allow(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, fs, process, thread};

use multiproc_pipe::{Connection, Descriptor, duplex};
use multiproc_process::{JoinError, Process, Runtime, SpawnError, active_children};
use multiproc_testkit::{blocked_signals, until};
use rustix::process::{Signal, getpid, kill_process};

fn main() {
    let program = env::args_os().nth(1).expect("the name of a program");
    if program == "has_privileges" || program == "drops_privileges" {
        come_to_main();
    }
    if program == "starts_slowly" && env::var_os("SLOW").is_some() {
        thread::sleep(std::time::Duration::from_millis(200));
    }
    if program == "starts_threads" {
        // As an attribute like `#[tokio::main]` does.
        thread::spawn(|| -> () { park() });
    }
    let runtime = multiproc_process::init();
    match program.to_str() {
        Some("arguments") => arguments(),
        Some("names") => names(),
        Some("ends") => start_one_of_each(),
        Some("panics") => {
            start_one_of_each();
            panic!("main panics");
        }
        Some("exits") => {
            start_one_of_each();
            process::exit(3);
        }
        Some("runs") => {
            start_one_of_each();
            park()
        }
        Some("family") => be_family(runtime),
        Some("spawns") => spawn_on_and_on(),
        Some("starts_slowly") => start_slowly(),
        Some("waits") => {
            drop(Process::builder().name("reader").spawn(reads_input, input()).unwrap())
        }
        Some("child_waits") => {
            let wait = |input| drop(Process::spawn(reads_input, input).unwrap());
            Process::builder().name("middle").spawn(wait, input()).unwrap().join().unwrap();
        }
        Some("finishes") => finish(runtime),
        Some("executes") => {
            start_one_of_each();
            wait_for_input();
            panic!("{}", Command::new("sleep").arg("1000").exec());
        }
        Some("forks") => {
            start_one_of_each();
            fork();
            park()
        }
        Some("is_copied") => be_copied(runtime),
        Some("inits_twice") => twice(runtime),
        Some("has_privileges" | "starts_threads" | "is_plain") => try_to_spawn(),
        Some("drops_privileges") => {
            drop_privileges();
            try_to_spawn();
        }
        Some("blocks_signals") => block_signals(),
        Some("has_two_copies") => two_copies(),
        _ => panic!("there is no program {}", program.display()),
    }
}

fn park() -> ! {
    loop {
        thread::park();
    }
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

fn wait_for_input() {
    let _ = io::stdin().read(&mut [0]);
}

/// Prints the arguments that a child has, as hexadecimal numbers.
fn arguments() {
    let look = |()| {
        for argument in env::args_os() {
            say(&argument.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
    };
    Process::spawn(look, ()).unwrap().join().unwrap();
}

/// Prints the name of a child, as the kernel reports it.
fn names() {
    let look = |()| say(fs::read_to_string("/proc/self/comm").unwrap().trim_end());
    Process::spawn(look, ()).unwrap().join().unwrap();
    Process::builder().name("a long name indeed").spawn(look, ()).unwrap().join().unwrap();
}

/// Starts from a thread that ends: a daemon; a stopped daemon, which does not react to SIGTERM; a
/// daemon with a daemon of its own; and a process that is not a daemon, outlives this one, and
/// lives as long as this program's standard input is open. Prints their pids.
fn start_one_of_each() {
    let start = || {
        let plain = Process::builder().daemon(true).spawn(|()| -> () { park() }, ()).unwrap();
        say(&plain.pid().to_string());

        let stop = |()| kill_process(getpid(), Signal::STOP).unwrap();
        let stopped = Process::builder().daemon(true).spawn(stop, ()).unwrap();
        let stat = format!("/proc/{}/stat", stopped.pid());
        until(|| fs::read_to_string(&stat).unwrap().contains(") T "));
        say(&stopped.pid().to_string());

        let (ours, theirs) = duplex::<(), u32>().unwrap();
        let nest = |parent: Connection<u32, ()>| -> () {
            let park = |()| -> () { park() };
            let inner = Process::builder().daemon(true).spawn(park, ()).unwrap();
            parent.send(inner.pid()).unwrap();
            self::park()
        };
        let outer = Process::builder().daemon(true).spawn(nest, theirs).unwrap();
        let inner = ours.recv().unwrap();
        say(&outer.pid().to_string());
        say(&inner.to_string());

        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let wait = |(input, parent): (Descriptor, Connection<(), ()>)| {
            parent.send(()).unwrap();
            reads_input(input);
            say("the other one has ended by itself");
        };
        let other = Process::builder().outlive_parent(true);
        let other = other.spawn(wait, (input(), theirs)).unwrap();
        ours.recv().unwrap();
        assert_eq!(active_children().len(), 4);
        say(&other.pid().to_string());
    };
    thread::spawn(start).join().unwrap();
}

/// Returns a duplicate of the standard input, to be sent to a child.
fn input() -> Descriptor {
    Descriptor(io::stdin().as_fd().try_clone_to_owned().unwrap())
}

/// Runs as long as the program's standard input is open.
fn reads_input(input: Descriptor) {
    let _ = fs::File::from(input).read(&mut [0]);
}

/// Starts children that never end by themselves, from a thread that ends: one with a child of its
/// own, one that blocks SIGTERM, one that is decoding its arguments, and one that outlives this
/// process. Prints the pids of all, the last one last, and ends as the second argument tells.
fn be_family(runtime: Runtime) {
    let start = || {
        let (ours, theirs) = duplex::<(), u32>().unwrap();
        let nest = |parent: Connection<u32, ()>| -> () {
            parent.send(Process::spawn(|()| -> () { park() }, ()).unwrap().pid()).unwrap();
            park()
        };
        let outer = Process::spawn(nest, theirs).unwrap();
        let inner = ours.recv().unwrap();

        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let block = |parent: Connection<(), ()>| -> () {
            block_all_signals();
            parent.send(()).unwrap();
            park()
        };
        let deaf = Process::spawn(block, theirs).unwrap();
        ours.recv().unwrap();

        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let decoding = Process::spawn(|(_, Endless)| (), (theirs, Endless)).unwrap();
        drop(ours);

        let outlives = Process::builder().outlive_parent(true);
        let outlives = outlives.spawn(|()| -> () { park() }, ()).unwrap();
        let pids = [outer.pid(), inner, deaf.pid(), decoding.pid(), outlives.pid()];
        say(&pids.map(|pid| pid.to_string()).join(" "));
    };
    thread::spawn(start).join().unwrap();
    match env::args().nth(2).as_deref() {
        Some("panics") => panic!("main panics"),
        Some("exits") => process::exit(3),
        Some("aborts") => process::abort(),
        Some("executes") => panic!("{}", Command::new("sleep").arg("1000").exec()),
        Some("forgets") => std::mem::forget(runtime),
        _ => park(),
    }
}

/// An argument that is never decoded.
#[derive(serde::Serialize)]
struct Endless;

impl<'de> serde::Deserialize<'de> for Endless {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        park()
    }
}

/// Starts children without end, one after the other: with few and with many arguments, with
/// children of their own. A few of them run at a time.
fn spawn_on_and_on() {
    let nest = |_: Vec<u8>| -> () {
        let _children: Vec<_> =
            (0..2).map(|_| Process::spawn(|()| -> () { park() }, ()).unwrap()).collect();
        park()
    };
    say("ready");
    let mut children = std::collections::VecDeque::new();
    for length in [10, 10_000_000].into_iter().cycle() {
        children.push_back(Process::spawn(nest, vec![1; length]).unwrap());
        if children.len() > 3 {
            let oldest = children.pop_front().unwrap();
            oldest.kill().unwrap();
            oldest.wait();
        }
    }
}

/// Starts a child that takes its time before it calls `init`.
fn start_slowly() {
    let run = |()| -> () {
        say("it has run");
        park()
    };
    let child = Process::builder().env("SLOW", "1").spawn(run, ()).unwrap();
    say(&child.pid().to_string());
    park()
}

/// Starts children of which some fail. Prints the failures that were not handled.
fn finish(runtime: Runtime) {
    let start = |name: &str, code: i32| {
        let exit = |code: i32| -> () { process::exit(code) };
        Process::builder().name(name).spawn(exit, code).unwrap()
    };
    drop(start("succeeds", 0));
    // Collected long before the end.
    let early = start("early", 3);
    let pid = early.pid();
    drop(early);
    until(|| fs::metadata(format!("/proc/{pid}")).is_err());
    assert!(start("joined", 4).join().is_err());
    assert_eq!(start("waited for", 5).wait().code(), Some(5));
    let unjoined = start("unjoined", 6);
    let killed = Process::builder().name("killed").spawn(|()| -> () { park() }, ()).unwrap();
    killed.kill().unwrap();
    let daemon = Process::builder().name("daemon").daemon(true);
    drop(daemon.spawn(|()| -> () { park() }, ()).unwrap());
    let slow = |()| -> () {
        thread::sleep(std::time::Duration::from_millis(20));
        kill_process(getpid(), Signal::ABORT).unwrap();
    };
    drop(Process::builder().name("slow").spawn(slow, ()).unwrap());

    let failure = runtime.finish().unwrap_err();
    for process in failure.processes() {
        say(&format!("{}: {}", process.name(), process.status()));
    }
    assert!(active_children().is_empty());
    drop((unjoined, killed));
}

/// Makes a bare copy of this process, which has all its descriptors. Prints its pid.
fn fork() {
    // SAFETY: the child calls nothing but `pause`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        loop {
            // SAFETY: it has no preconditions.
            unsafe { libc::pause() };
        }
    }
    say(&pid.to_string());
}

fn twice(_first: Runtime) {
    let _second = multiproc_process::init();
}

/// Starts a process with each of two copies of the library. `init` of this one is called first.
fn two_copies() {
    let _twin = multiproc_twin::init();
    let child = Process::spawn(|n: u32| n + 1, 1).unwrap();
    say(&child.join().unwrap().to_string());
    let child = multiproc_twin::Process::spawn(|n: u32| n + 2, 1).unwrap();
    say(&child.join().unwrap().to_string());
}

/// Counts how often `main` runs in nested processes, and stops a recursion.
fn come_to_main() {
    say("main");
    let depth = env::var("DEPTH").map_or(0, |depth| depth.parse().unwrap());
    if depth == 3 {
        process::exit(3);
    }
    // SAFETY: there is one thread, so no other one reads the environment.
    unsafe { env::set_var("DEPTH", (depth + 1).to_string()) };
}

fn try_to_spawn() {
    match Process::spawn(|n: u32| n + 1, 1) {
        Ok(child) => match child.join() {
            Ok(number) => say(&number.to_string()),
            Err(JoinError::Exited(code)) => say(&format!("exited {code}")),
            Err(error) => panic!("{error}"),
        },
        Err(error) => {
            eprintln!("{error}");
            say(match error {
                SpawnError::NotInExecutable => "not in the executable",
                SpawnError::Privileged => "privileged",
                _ => "failed",
            });
        }
    }
}

/// Becomes an ordinary user. If the program's file grants privileges, the next process started from
/// it has them.
fn drop_privileges() {
    const NOBODY: libc::uid_t = 65_534;
    // SAFETY: it has no preconditions.
    assert_eq!(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }, 0);
}

/// Prints the blocked signals of each thread of a daemon that was started by a thread which blocks
/// all.
fn block_signals() {
    block_all_signals();
    let look = |()| blocked_signals().into_iter().for_each(|line| say(&line));
    Process::builder().daemon(true).spawn(look, ()).unwrap().join().unwrap();
}

fn block_all_signals() {
    let mut all = std::mem::MaybeUninit::uninit();
    // SAFETY: it writes a set there.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: it reads the set, which has been written.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut()) };
}

/// Starts children and a manager, and is copied by a bare fork. The copy ends like a program,
/// dropping its handles and the guard. Prints whether the children of the original are affected.
fn be_copied(runtime: Runtime) {
    let wait = |end: Connection<(), ()>| {
        let _ = end.recv();
        7
    };
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let child = Process::spawn(wait, theirs).unwrap();
    let (daemons, theirs) = duplex::<(), ()>().unwrap();
    let daemon = Process::builder().daemon(true).spawn(wait, theirs).unwrap();
    let manager = multiproc::Manager::start().unwrap();
    let lock = manager.lock("lock").unwrap();
    // SAFETY: there is one thread, so the copy finds no lock held.
    let copy = unsafe { libc::fork() };
    if copy == 0 {
        let others = active_children().len();
        drop((child, daemon, manager, lock));
        // Its own child.
        let (waits, theirs) = duplex::<(), ()>().unwrap();
        let wait = |end: Connection<(), ()>| {
            let _ = end.recv();
            8
        };
        let own = Process::spawn(wait, theirs).unwrap();
        let known = active_children().len();
        drop(waits);
        let result = own.join().unwrap();
        drop(runtime);
        say(&format!("copy {others} {known} {result}"));
        process::exit(0);
    }
    // SAFETY: it has no preconditions.
    assert_eq!(unsafe { libc::waitpid(copy, std::ptr::null_mut(), 0) }, copy);
    let alive = [child.is_alive(), daemon.is_alive(), manager.process().unwrap().is_alive()];
    drop((ours, daemons));
    let results = (child.join().unwrap(), daemon.join().unwrap());
    say(&format!("original {alive:?} {results:?} {}", manager.list().unwrap().len()));
}
