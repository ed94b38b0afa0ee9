//! The settings of a process, and what it knows about itself and its parent.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use multiproc_pipe::{Connection, duplex};
use multiproc_process::{
    ExitStatus, JoinError, Process, RemoteError, Resource, SpawnError, cpu_count, current_process,
    parent_process,
};
use multiproc_testkit::{Census, alone, until, watchdog};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource as Limited, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, CpuSet, sched_getaffinity, sched_setaffinity, set_capabilities,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

multiproc_process::enable_in_tests!();

fn variable(name: String) -> Option<String> {
    env::var(name).ok()
}

#[test]
fn environment_is_inherited_and_changed() {
    let _dog = watchdog();
    let get = |builder: multiproc_process::Builder, name: &str| {
        builder.spawn(variable, name.to_owned()).unwrap().join().unwrap()
    };
    assert!(env::var("PATH").is_ok());
    assert_eq!(get(Process::builder(), "PATH"), env::var("PATH").ok());
    assert_eq!(get(Process::builder().env("A", "1"), "A").unwrap(), "1");
    assert_eq!(get(Process::builder().envs([("A", "1"), ("B", "2")]), "B").unwrap(), "2");
    assert_eq!(get(Process::builder().env_remove("PATH"), "PATH"), None);
    // It starts with an empty environment.
    let all = |()| env::vars().collect::<Vec<_>>();
    let cleared =
        Process::builder().env("A", "1").env_clear().env("B", "2").spawn(all, ()).unwrap();
    assert_eq!(cleared.join().unwrap(), [("B".to_owned(), "2".to_owned())]);
    // The marker of a child cannot be set.
    let set = Process::builder().env("MULTIPROC_CHILD", "1");
    assert_eq!(get(set, "MULTIPROC_CHILD"), None);

    let wrong = Process::builder().env("A", "nul\0").spawn(all, ()).unwrap_err();
    assert!(wrong.to_string().contains("nul byte"), "{wrong}");
}

#[test]
fn directory_is_inherited_or_set() {
    let _dog = watchdog();
    let here = |()| env::current_dir().unwrap();
    let child = Process::spawn(here, ()).unwrap();
    assert_eq!(child.join().unwrap(), env::current_dir().unwrap());
    let child = Process::builder().current_dir("/proc").spawn(here, ()).unwrap();
    assert_eq!(child.join().unwrap(), PathBuf::from("/proc"));
    alone(|()| {
        let before = Census::take();
        let error = Process::builder().current_dir("/no/such").spawn(|()| (), ()).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
        assert_eq!(Census::take(), before);
    });
}

fn speaks(_: ()) {
    println!("out");
    eprintln!("err");
    print!("not flushed by a line end");
}

#[test]
fn output_goes_to_the_given_stdio() {
    alone(|()| {
        let before = Census::take();
        let builder = || Process::builder().stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = builder().spawn(speaks, ()).unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        child.take_stdout().unwrap().read_to_string(&mut out).unwrap();
        child.take_stderr().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((&*out, &*err), ("out\nnot flushed by a line end", "err\n"));
        assert!(child.take_stdout().is_none() && child.take_stderr().is_none());
        child.join().unwrap();

        // A file, one for both.
        let mut file = tempfile();
        let copy = file.try_clone().unwrap();
        let child = Process::builder().stdout(file.try_clone().unwrap()).stderr(copy);
        child.spawn(speaks, ()).unwrap().join().unwrap();
        let mut text = String::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "out\nerr\nnot flushed by a line end");

        // Discarded; and the null device is not a file that grows.
        let child = Process::builder().stdout(Stdio::null()).stderr(Stdio::null());
        let look = |()| {
            println!("nobody sees it");
            fs::read_link("/proc/self/fd/1").unwrap()
        };
        let mut child = child.spawn(look, ()).unwrap();
        assert!(child.take_stdout().is_none());
        assert_eq!(child.join().unwrap(), PathBuf::from("/dev/null"));

        // Without a reader, a write is an error, as everywhere in Rust, and not the end by SIGPIPE.
        let write = |()| std::io::stdout().write_all(&[b'x'; 1 << 20]).unwrap_err().to_string();
        let mut child = Process::builder().stdout(Stdio::piped()).spawn(write, ()).unwrap();
        drop(child.take_stdout());
        assert!(child.join().unwrap().contains("Broken pipe"));
        drop(file);
        assert_eq!(Census::take(), before);
    });
}

/// Returns the first line of the child's standard input.
fn first_line(_: ()) -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line
}

#[test]
fn input_comes_from_the_given_stdio() {
    alone(|()| {
        let before = Census::take();
        // A pipe, and its end.
        let count = |()| std::io::stdin().lines().map(Result::unwrap).collect::<Vec<_>>();
        let mut child = Process::builder().stdin(Stdio::piped()).spawn(count, ()).unwrap();
        let mut input = child.take_stdin().unwrap();
        assert!(child.take_stdin().is_none());
        input.write_all(b"one\ntwo").unwrap();
        assert_eq!(child.wait_timeout(Duration::from_millis(20)), None, "it waits for the end");
        drop(input);
        assert_eq!(child.join().unwrap(), ["one", "two"]);
        // `join` closes it.
        let child = Process::builder().stdin(Stdio::piped()).spawn(count, ()).unwrap();
        assert!(child.join().unwrap().is_empty());

        // A file. Output is redirected independently.
        let mut file = tempfile();
        file.write_all(b"from a file\n").unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let speak = |()| println!("{}", first_line(()).trim_end());
        let builder = Process::builder().stdin(file).stdout(Stdio::piped());
        let mut child = builder.spawn(speak, ()).unwrap();
        let mut text = String::new();
        child.take_stdout().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "from a file\n");
        child.join().unwrap();

        // The null device, set and by default.
        let look = |()| fs::read_link("/proc/self/fd/0").unwrap();
        let child = Process::builder().stdin(Stdio::null()).spawn(look, ()).unwrap();
        assert_eq!(child.join().unwrap(), PathBuf::from("/dev/null"));
        let child = Process::spawn(look, ()).unwrap();
        assert_eq!(child.join().unwrap(), PathBuf::from("/dev/null"));

        // That of this process.
        let (reader, mut writer) = std::io::pipe().unwrap();
        let inherit = |()| {
            let child = Process::builder().stdin(Stdio::inherit());
            child.spawn(first_line, ()).unwrap().join().unwrap()
        };
        let child = Process::builder().stdin(reader).spawn(inherit, ()).unwrap();
        writer.write_all(b"inherited\n").unwrap();
        assert_eq!(child.join().unwrap(), "inherited\n");
        drop(writer);
        assert_eq!(Census::take(), before);
    });
}

/// The child is started in another way, but it is the same child.
#[test]
fn child_with_input_has_no_other_descriptors() {
    let _dog = watchdog();
    let count = |parent: Connection<usize, ()>| {
        parent.send(fs::read_dir("/proc/self/fd").unwrap().count() - 1).unwrap();
        parent.recv().unwrap_err();
    };
    let counts = [false, true].map(|has_input| {
        let (ours, theirs) = duplex::<(), usize>().unwrap();
        let builder = Process::builder();
        let builder = if has_input { builder.stdin(Stdio::null()) } else { builder };
        let child = builder.spawn(count, theirs).unwrap();
        let number = ours.recv().unwrap();
        drop(ours);
        child.join().unwrap();
        number
    });
    assert_eq!(counts[0], counts[1]);
}

fn limits(_: ()) -> [(Option<u64>, Option<u64>); 3] {
    [Limited::Nofile, Limited::Core, Limited::Cpu]
        .map(getrlimit)
        .map(|limit| (limit.current, limit.maximum))
}

#[test]
fn limits_are_set_in_the_child_and_inherited() {
    let _dog = watchdog();
    let ours = getrlimit(Limited::Nofile);
    let nest = |()| (limits(()), Process::spawn(limits, ()).unwrap().join().unwrap());
    let builder = Process::builder()
        .rlimit(Resource::OpenFiles, 10, 20)
        .rlimit(Resource::OpenFiles, 50, 60)
        .rlimit(Resource::CoreSize, 0, 0)
        .rlimit(Resource::CpuTime, 1000, 1001);
    let (child, grandchild) = builder.spawn(nest, ()).unwrap().join().unwrap();
    let expected = [(Some(50), Some(60)), (Some(0), Some(0)), (Some(1000), Some(1001))];
    // The last one that was set is in force.
    assert_eq!((child, grandchild), (expected, expected));
    assert_eq!(getrlimit(Limited::Nofile), ours, "those of this process are unchanged");
}

/// A limit on threads does not prevent the watch of the parent.
#[test]
fn limit_takes_effect_in_the_function() {
    let _dog = watchdog();
    let spend = |()| -> () {
        let mut number = 0_u64;
        loop {
            number = std::hint::black_box(number.wrapping_add(1));
        }
    };
    let builder =
        Process::builder().rlimit(Resource::CpuTime, 1, 1).rlimit(Resource::CoreSize, 0, 0);
    let child = builder.rlimit(Resource::Processes, 0, 0).spawn(spend, ()).unwrap();
    assert!(matches!(child.wait(), ExitStatus::Signaled { signal: 9 | 24, .. }), "{child:?}");
}

#[test]
fn wrong_limits_are_errors_of_spawn() {
    let _dog = watchdog();
    let error = Process::builder().rlimit(Resource::Data, 2, 1).spawn(|()| (), ()).unwrap_err();
    let SpawnError::Io(error) = error else { panic!("{error}") };
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    // An ordinary user may not raise a hard limit. (In a child, since this changes the process.)
    alone(|()| {
        let lower = Rlimit { current: Some(100), maximum: Some(200) };
        setrlimit(Limited::Nofile, lower).unwrap();
        let spawn = || {
            let builder = Process::builder().rlimit(Resource::OpenFiles, 100, 300);
            builder.spawn(|()| (), ()).map(|child| child.join())
        };
        if rustix::process::geteuid().is_root() {
            let none = CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted: CapabilitySet::empty(),
                inheritable: CapabilitySet::empty(),
            };
            set_capabilities(None, none).unwrap();
        }
        let error = spawn().unwrap_err();
        let SpawnError::Io(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("200"), "{error}");
    });
}

#[test]
fn initialisers_run_in_order_before_the_function() {
    static STEPS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    fn step(name: &str) {
        STEPS.lock().unwrap().push(name.to_owned());
    }
    struct Noted;
    impl Serialize for Noted {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_unit()
        }
    }
    impl<'de> Deserialize<'de> for Noted {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            step("arguments");
            <()>::deserialize(deserializer).map(|()| Self)
        }
    }
    let _dog = watchdog();
    let builder = Process::builder()
        .name("named")
        .on_start(|| step(current_process().name()))
        .on_start(|| -> std::io::Result<()> {
            step("fallible");
            Ok(())
        });
    let finish = |_: Noted| {
        step("function");
        STEPS.lock().unwrap().clone()
    };
    let child = builder.spawn(finish, Noted).unwrap();
    assert_eq!(child.join().unwrap(), ["named", "fallible", "arguments", "function"]);
}

#[test]
fn failed_initialiser_is_reported_and_prevents_the_function() {
    let _dog = watchdog();
    let run = |()| println!("it has run");
    let check = |builder: multiproc_process::Builder| {
        let mut child = builder.stdout(Stdio::piped()).spawn(run, ()).unwrap();
        let mut text = String::new();
        child.take_stdout().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
        let status = child.wait();
        (status, child.join().unwrap_err())
    };
    let fail = || -> Result<(), RemoteError> {
        Err(RemoteError::from("no socket").context("cannot start logging"))
    };
    let never = || -> () { panic!("the previous one has failed") };
    let (status, error) = check(Process::builder().on_start(fail).on_start(never));
    let JoinError::Failed(error) = error else { panic!("{error}") };
    let chain: Vec<_> = error.chain().map(ToString::to_string).collect();
    assert_eq!(chain, ["cannot start logging", "no socket"]);
    assert_eq!(status, ExitStatus::Exited(102));

    let (status, error) = check(Process::builder().on_start(|| -> () { panic!("no ink") }));
    let JoinError::Panicked { message, location, .. } = error else { panic!("{error}") };
    assert_eq!(message, "no ink");
    assert!(location.contains("tests/builder.rs:"), "{location}");
    assert_eq!(status, ExitStatus::Exited(101));
}

#[test]
fn process_group_is_inherited_or_set() {
    let _dog = watchdog();
    let group = |()| rustix::process::getpgrp().as_raw_pid();
    let ours = group(());
    assert_eq!(Process::spawn(group, ()).unwrap().join().unwrap(), ours);
    let child = Process::builder().process_group(0).spawn(group, ()).unwrap();
    let pid = child.pid();
    assert_eq!(child.join().unwrap().unsigned_abs(), pid);
    // A group that does not exist.
    let error = Process::builder().process_group(i32::MAX).spawn(group, ()).unwrap_err();
    assert!(matches!(error, SpawnError::Io(_)), "{error}");
}

#[test]
fn sigint_is_ignored_from_the_start() {
    let _dog = watchdog();
    let wait = |end: Connection<(), ()>| drop(end.recv());
    for _ in 0..20 {
        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let child = Process::builder().ignore_sigint(true).spawn(wait, theirs).unwrap();
        // Before and after the child has reached its function.
        for _ in 0..3 {
            child.interrupt().unwrap();
            std::thread::sleep(Duration::from_micros(300));
        }
        drop(ours);
        assert_eq!(child.join(), Ok(()));
    }
    let (_ours, theirs) = duplex::<(), ()>().unwrap();
    let child = Process::spawn(wait, theirs).unwrap();
    child.interrupt().unwrap();
    assert!(matches!(child.wait(), ExitStatus::Signaled { signal: 2, .. }), "{child:?}");
    // The thread that started them has no signal blocked.
    assert_eq!(Process::spawn(|()| (), ()).unwrap().join(), Ok(()));
}

fn tempfile() -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    rustix::fs::memfd_create("multiproc-test", flags).unwrap().into()
}

/// The output of a child ends when the child ends, although siblings live.
#[test]
fn pipe_of_a_child_is_not_held_by_siblings() {
    let _dog = watchdog();
    let start = || {
        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let child = Process::builder().stdout(Stdio::piped());
        let child = child.spawn(|end: Connection<(), ()>| drop(end.recv()), theirs).unwrap();
        (child, ours)
    };
    let mut children: Vec<_> = (0..5).map(|_| start()).collect();
    let (mut first, _) = children.remove(0);
    first.kill().unwrap();
    assert_eq!(first.take_stdout().unwrap().read(&mut [0]).unwrap(), 0);
    for (child, end) in children {
        drop(end);
        child.join().unwrap();
    }
}

fn command_name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim_end().to_owned()
}

#[test]
fn process_name_is_visible_to_itself_and_ps() {
    let _dog = watchdog();
    assert_eq!((current_process().name(), current_process().is_daemon()), ("MainProcess", false));
    assert_eq!(current_process().pid(), std::process::id());

    let (ours, theirs) = duplex::<(), (String, u32, bool)>().unwrap();
    let tell = |parent: Connection<(String, u32, bool), ()>| {
        let current = current_process();
        parent.send((current.name().to_owned(), current.pid(), current.is_daemon())).unwrap();
        parent.recv().unwrap();
        std::thread::current().name().map(ToOwned::to_owned)
    };
    let builder = Process::builder().name("a long name indeed").daemon(true);
    let child = builder.spawn(tell, theirs).unwrap();
    assert_eq!(ours.recv().unwrap(), ("a long name indeed".to_owned(), child.pid(), true));
    assert_eq!(command_name(child.pid()), "a long name ind");
    if let Ok(ps) = Command::new("ps").args(["-o", "comm=", &child.pid().to_string()]).output() {
        assert_eq!(String::from_utf8_lossy(&ps.stdout).trim_end(), "a long name ind");
    }
    ours.send(()).unwrap();
    assert_eq!(child.join().unwrap().as_deref(), Some("main"));

    // The default name shows the position in the family.
    let tell = |()| {
        let child = Process::spawn(
            |()| (command_name(std::process::id()), current_process().name().to_owned()),
            (),
        );
        (current_process().name().to_owned(), child.unwrap().join().unwrap())
    };
    let (name, (comm, nested)) = Process::spawn(tell, ()).unwrap().join().unwrap();
    assert!(name.starts_with("Process-"), "{name}");
    assert_eq!(nested, format!("{name}:1"));
    assert_eq!(comm, nested[..nested.len().min(15)]);
}

#[test]
fn panic_is_printed_with_the_process_name() {
    let _dog = watchdog();
    let fail = |()| -> () { panic!("no more ink") };
    let mut child =
        Process::builder().name("printer").stderr(Stdio::piped()).spawn(fail, ()).unwrap();
    let mut text = String::new();
    child.take_stderr().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.starts_with(&format!("process 'printer' ({}):\n", child.pid())), "{text}");
    assert!(text.contains("thread 'main'") && text.contains("no more ink"), "{text}");
    assert!(text.contains("tests/builder.rs:"), "{text}");
    child.join().unwrap_err();

    // A closed pipe does not change how the process ends.
    let mut child = Process::builder().stderr(Stdio::piped()).spawn(fail, ()).unwrap();
    drop(child.take_stderr());
    let error = child.join().unwrap_err();
    assert!(error.to_string().contains("no more ink"), "{error}");
}

#[test]
fn child_knows_its_parent() {
    let _dog = watchdog();
    assert!(parent_process().is_none(), "the test program was not started by this library");
    let look = |()| {
        let parent = parent_process().unwrap();
        assert!(parent.is_alive() && !parent.wait_timeout(Duration::from_millis(5)));
        (parent.pid(), parent.name().to_owned())
    };
    let child = Process::spawn(look, ()).unwrap();
    assert_eq!(child.join().unwrap(), (std::process::id(), "MainProcess".to_owned()));

    let nested = |look: bool| {
        assert!(look);
        let look = |()| parent_process().map(|parent| (parent.pid(), parent.name().to_owned()));
        Process::spawn(look, ()).unwrap().join().unwrap()
    };
    let child = Process::builder().name("middle").spawn(nested, true).unwrap();
    let pid = child.pid();
    assert_eq!(child.join().unwrap(), Some((pid, "middle".to_owned())));
}

#[test]
fn killed_parent_is_seen_by_its_child() {
    let _dog = watchdog();
    // The grandchild outlives its parent, and reports what it has seen.
    let watch = |tell: Connection<bool, ()>| {
        let parent = parent_process().unwrap();
        tell.send(parent.is_alive()).unwrap();
        assert_eq!(poll(&mut [PollFd::new(&parent.as_fd(), PollFlags::IN)], None).unwrap(), 1);
        parent.wait();
        assert!(parent.wait_timeout(Duration::MAX));
        tell.send(parent.is_alive()).unwrap();
    };
    let (ours, theirs) = duplex::<(), bool>().unwrap();
    let start = move |theirs: Connection<bool, ()>| -> () {
        // From a thread that ends long before its process does.
        let outlives = Process::builder().outlive_parent(true);
        let start = move || drop(outlives.spawn(watch, theirs).unwrap());
        std::thread::spawn(start).join().unwrap();
        loop {
            std::thread::park();
        }
    };
    let parent = Process::spawn(start, theirs).unwrap();
    assert!(ours.recv().unwrap(), "it lives");
    parent.kill().unwrap();
    assert!(!ours.recv().unwrap(), "it is dead");
    assert!(ours.recv().unwrap_err().is_disconnected());
    parent.join().unwrap_err();
}

#[test]
fn cpu_count_follows_the_affinity_mask() {
    alone(|()| {
        let all = sched_getaffinity(None).unwrap();
        assert!((1..=all.count() as usize).contains(&cpu_count()));
        let first = (0..CpuSet::MAX_CPU).find(|&cpu| all.is_set(cpu)).unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        sched_setaffinity(None, &one).unwrap();
        assert_eq!(cpu_count(), 1);
        // A child has the affinity mask of its parent.
        let child = Process::spawn(|()| cpu_count(), ()).unwrap();
        assert_eq!(child.join().unwrap(), 1);
    });
}

/// In a cgroup whose quota is the time of one CPU.
#[test]
fn cpu_count_follows_the_cgroup_quota() {
    alone(|()| {
        let before = cpu_count();
        let Some(group) = Group::with_one_cpu() else {
            eprintln!("skipped: this process may not make cgroups with a quota");
            return;
        };
        if before == 1 {
            eprintln!("skipped: there is one CPU anyway");
            return;
        }
        assert_eq!(cpu_count(), 1);
        drop(group);
        until(|| cpu_count() == before);
    });
}

/// A cgroup that this process has entered. Dropping it leaves and removes it.
struct Group {
    parent: PathBuf,
    path: PathBuf,
}

impl Group {
    fn with_one_cpu() -> Option<Self> {
        let name = format!("multiproc-test-{}", std::process::id());
        // Version 1 has a hierarchy for the CPU, version 2 one for all.
        for (root, controller, quota) in
            [("/sys/fs/cgroup/cpu", "cpu", "cpu.cfs_quota_us"), ("/sys/fs/cgroup", "", "cpu.max")]
        {
            let list = fs::read_to_string("/proc/self/cgroup").ok()?;
            let own = list.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let controllers = parts.nth(1)?;
                controllers.split(',').any(|name| name == controller).then(|| parts.next())?
            });
            let Some(own) = own else { continue };
            let parent = PathBuf::from(format!("{root}{own}"));
            let group = Self { path: parent.join(&name), parent };
            if fs::create_dir(&group.path).is_err() {
                continue;
            }
            if fs::write(group.path.join(quota), "100000").is_ok()
                && fs::write(group.path.join("cgroup.procs"), "0").is_ok()
            {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.parent.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&self.path);
    }
}
