//! Processes: what they return, how they end, and what is left of them.

use std::io::Read;
use std::time::{Duration, Instant};

use multiproc_pipe::{Bytes, Connection, Descriptor, Receiver, Sender, duplex, simplex};
use multiproc_process::{Child, ExitStatus, JoinError, Process, SpawnError, active_children};
use multiproc_queue::Queue;
use multiproc_testkit::{Census, alone, is_asleep, is_running, until, watchdog};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

multiproc_process::enable_in_tests!();

/// Waits for a message, or for the end of the connection.
fn waits(parent: Connection<(), ()>) {
    let _ = parent.send(());
    let _ = parent.recv();
}

/// Returns a process that waits.
fn waiting(daemon: bool) -> (Process, Connection<(), ()>) {
    let (ours, theirs) = duplex().unwrap();
    let child = Process::builder().daemon(daemon).spawn(waits, theirs).unwrap();
    ours.recv().unwrap();
    (child, ours)
}

/// Waits until a process has ended, without collecting it.
fn wait_for_end(child: &Child) {
    assert_eq!(poll(&mut [PollFd::new(child, PollFlags::IN)], None).unwrap(), 1);
}

#[test]
fn arguments_and_result_are_sent() {
    fn repeat((text, times): (String, usize)) -> Vec<String> {
        vec![text; times]
    }
    let child = Process::spawn(repeat, ("ab".to_owned(), 3)).unwrap();
    assert_eq!(child.join().unwrap(), ["ab", "ab", "ab"]);

    let child = Process::spawn(|n: u64| (n, std::process::id()), u64::MAX).unwrap();
    let pid = child.pid();
    assert_ne!(pid, std::process::id());
    assert_eq!(child.join().unwrap(), (u64::MAX, pid));
}

/// The type of the result does not matter: a handle does not hold a result.
#[test]
fn handles_can_be_shared_between_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Process<std::rc::Rc<()>>>();
    check::<Child>();
    check::<multiproc_process::Scope>();
    check::<multiproc_process::ParentProcess>();
    check::<multiproc_process::JoinTimeoutError<std::rc::Rc<()>>>();
    check::<SpawnError>();
}

#[test]
fn merged_functions_are_spawned_correctly() {
    // The same machine code: their addresses may be equal.
    fn one(n: u32) -> u32 {
        n + 1
    }
    fn other(n: u32) -> u32 {
        n + 1
    }
    let children = [Process::spawn(one, 1).unwrap(), Process::spawn(other, 2).unwrap()];
    assert_eq!(children.map(|child| child.join().unwrap()), [2, 3]);
}

#[test]
fn megabytes_are_sent_both_ways() {
    let _dog = watchdog();
    let bytes = Bytes((0..10_000_000u32).map(|n| n.to_le_bytes()[1]).collect());
    let back = |mut bytes: Bytes| {
        bytes.0.reverse();
        bytes
    };
    let child = Process::spawn(back, bytes.clone()).unwrap();
    // The result does not fit into any buffer, so waiting must receive it.
    assert!(child.wait().success());
    assert!(child.join().unwrap().0.iter().eq(bytes.0.iter().rev()));

    // A child whose result is discarded ends as well.
    let child = Process::spawn(back, bytes).unwrap();
    let pid = child.pid();
    drop(child);
    until(|| active_children().iter().all(|child| child.pid() != pid));
}

#[test]
fn handles_are_sent_both_ways() {
    let _dog = watchdog();
    type Handles = (Receiver<u32>, Sender<u32>, Queue<u32>, Descriptor);
    let (numbers, send) = simplex::<u32>().unwrap();
    let (receive, results) = simplex::<u32>().unwrap();
    let queue = Queue::bounded(5).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let work = |(numbers, results, queue, file): Handles| {
        results.send(numbers.recv().unwrap() + 1).unwrap();
        queue.put(7).unwrap();
        std::fs::File::from(file).set_len(0).unwrap_err(); // it is a pipe
        numbers
    };
    let file = Descriptor(writer.into());
    let child = Process::spawn(work, (numbers, results, queue.clone(), file)).unwrap();
    send.send(1).unwrap();
    send.send(2).unwrap();
    assert_eq!(receive.recv().unwrap(), 2);
    assert_eq!(queue.get().unwrap(), 7);
    let numbers = child.join().unwrap();
    assert_eq!(numbers.recv().unwrap(), 2, "what it had read ahead came back with it");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap(); // the writer was closed with the child
}

#[test]
fn panic_is_reported_with_message_and_location() {
    let _dog = watchdog();
    let fail = |n: u32| -> u32 { panic!("no more than {n}") };
    let child = Process::spawn(fail, 5).unwrap();
    assert_eq!(child.wait(), ExitStatus::Exited(101));
    let error = child.join().unwrap_err();
    let JoinError::Panicked { message, location, .. } = &error else { panic!("{error}") };
    assert_eq!(message, "no more than 5");
    assert!(location.contains("tests/process.rs:"), "{location}");
    assert!(error.to_string().contains("no more than 5"), "{error}");

    // A panic that was caught is not reported.
    let child = Process::spawn(|()| std::panic::catch_unwind(|| panic!("caught")).is_err(), ());
    assert!(child.unwrap().join().unwrap());
}

#[test]
fn exit_codes_and_signals_are_reported() {
    let _dog = watchdog();
    let child = Process::spawn(|code: i32| -> () { std::process::exit(code) }, 7).unwrap();
    assert_eq!(child.wait().code(), Some(7));
    assert_eq!(child.join().unwrap_err(), JoinError::Exited(7));
    let child = Process::spawn(|()| -> () { std::process::exit(0) }, ()).unwrap();
    assert_eq!(child.join().unwrap_err(), JoinError::Exited(0), "there is no result");
    let child = Process::spawn(|()| -> () { std::process::abort() }, ()).unwrap();
    assert_eq!(child.wait().signal(), Some(6));
    assert!(matches!(child.join(), Err(JoinError::Signaled(6, _))));

    for (end, signal, name) in [
        (Child::kill as fn(&Child) -> _, 9, "SIGKILL (9)"),
        (Child::terminate, 15, "SIGTERM (15)"),
        (Child::interrupt, 2, "SIGINT (2)"),
    ] {
        let (child, _parent) = waiting(false);
        assert!(child.is_alive() && child.exit_status().is_none());
        assert_eq!(child.wait_timeout(Duration::from_millis(10)), None);
        end(&child).unwrap();
        assert_eq!(child.wait().signal(), Some(signal));
        assert!(!child.is_alive());
        end(&child).expect("one that has ended is no error");
        let error = child.join().unwrap_err();
        assert_eq!(error, JoinError::Signaled(signal, false));
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn unserialisable_arguments_start_no_process() {
    alone(|()| {
        #[derive(Deserialize)]
        struct Never;
        impl Serialize for Never {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("not today"))
            }
        }
        let before = Census::take();
        let error = Process::spawn(|_: Never| (), Never).unwrap_err();
        assert!(matches!(error, SpawnError::Encode(_)));
        assert!(error.to_string().contains("not today"), "{error}");
        assert_eq!(Census::take(), before);

        let child = Process::spawn(|()| Never, ()).unwrap();
        let Err(error) = child.join() else { panic!("it cannot have come") };
        assert!(matches!(error, JoinError::ResultLost(_)));
        assert!(error.to_string().contains("not today"), "{error}");
    });
}

#[test]
fn undecodable_type_starts_no_process() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u32),
        Text(String),
    }
    alone(|()| {
        let before = Census::take();
        let errors = [
            Process::spawn(|_: (u32, Either)| (), (1, Either::Number(7))).map(drop),
            Process::spawn(|()| Some(Either::Text(String::new())), ()).map(drop),
        ];
        for error in errors.map(Result::unwrap_err) {
            let SpawnError::Encode(error) = error else { panic!("{error}") };
            assert!(error.reason().contains("`untagged`"), "{error}");
            assert!(error.type_name().contains("Either"), "{error}");
        }
        assert_eq!(Census::take(), before);
    });
}

/// Kills its process while it is sent or received, as its fields demand.
struct Deadly {
    when_sent: bool,
}

impl Deadly {
    fn die() -> ! {
        kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
        unreachable!("the signal is there before the call returns")
    }
}

impl Serialize for Deadly {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.when_sent {
            Self::die();
        }
        ().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Deadly {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer)?;
        Self::die()
    }
}

#[test]
fn child_killed_during_start_is_reported() {
    let _dog = watchdog();
    let killed = JoinError::Signaled(9, false);
    let child = Process::spawn(|_: Deadly| (), Deadly { when_sent: false }).unwrap();
    assert_eq!(child.join().unwrap_err(), killed, "while it took its arguments");
    let child = Process::spawn(|()| Deadly { when_sent: true }, ()).unwrap();
    let Err(error) = child.join() else { panic!("it cannot have come") };
    assert_eq!(error, killed, "while it made a message of its result");

    // While it sends: half of the result arrives, and the other half never does.
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let large = |parent: Connection<(), ()>| {
        parent.send(()).unwrap();
        Bytes(vec![1; 10_000_000])
    };
    let child = Process::spawn(large, theirs).unwrap();
    ours.recv().unwrap();
    until(|| is_asleep(child.pid()));
    child.kill().unwrap();
    assert_eq!(child.join().unwrap_err(), killed, "while it sent its result");
}

#[test]
fn spawn_without_descriptors_fails_and_leaks_nothing() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    alone(|()| {
        let limits = getrlimit(Resource::Nofile);
        let before = Census::take();
        let (mut failed, mut started) = (0, 0);
        // At each limit, another step of the start fails.
        for more in 0..20 {
            let current = Some(before.descriptors as u64 + more);
            let file = Descriptor::from(std::fs::File::open("/dev/null").unwrap());
            setrlimit(Resource::Nofile, Rlimit { current, ..limits }).unwrap();
            let result = Process::spawn(|file: Descriptor| drop(file), file);
            setrlimit(Resource::Nofile, limits).unwrap();
            match result {
                Ok(child) => {
                    started += 1;
                    // The child has the low limit as well, and may fail where its parent did not.
                    let _ = child.join();
                }
                Err(error) => {
                    failed += 1;
                    assert!(!error.to_string().contains("multiproc::"), "{error}");
                }
            }
            assert_eq!(Census::take(), before);
        }
        assert!(failed > 2 && started > 2, "{failed} failed, {started} started");
    });
}

#[test]
fn default_names_are_counted() {
    alone(|()| {
        let nested = |()| {
            let child = Process::spawn(|()| (), ()).unwrap();
            let name = child.name().to_owned();
            child.join().unwrap();
            name
        };
        // This process is a child itself, the first of the test program or a later one.
        let first = Process::spawn(nested, ()).unwrap();
        assert!(first.name().starts_with("Process-") && first.name().ends_with(":1"));
        let name = first.name().to_owned();
        assert_eq!(first.join().unwrap(), format!("{name}:1"));
        let named = Process::builder().name("worker").spawn(nested, ()).unwrap();
        assert_eq!(named.name(), "worker");
        assert!(format!("{named:?}").contains("name: \"worker\""));
        assert_eq!(named.join().unwrap(), "worker:1");
    });
}

#[test]
fn active_children_lists_living_children() {
    alone(|()| {
        assert!(active_children().is_empty());
        let (first, parent_of_first) = waiting(false);
        let (second, _parent) = waiting(true);
        let children = active_children();
        assert_eq!(
            children.iter().map(|c| c.pid()).collect::<Vec<_>>(),
            [first.pid(), second.pid()]
        );
        assert!(!children[0].is_daemon() && children[1].is_daemon());
        drop(parent_of_first);
        first.join().unwrap();
        assert_eq!(active_children().len(), 1);
        second.kill().unwrap();
        second.wait();
        assert!(active_children().is_empty());
    });
}

#[test]
fn child_has_only_the_descriptors_of_its_arguments() {
    alone(|()| {
        let _file = std::fs::File::open("/dev/null").unwrap();
        let (_ours, theirs) = duplex::<(), ()>().unwrap();
        let look = |given: Option<Connection<(), ()>>| {
            let mut input = String::new();
            std::io::stdin().read_to_string(&mut input).unwrap(); // is at its end
            let mark = std::env::vars_os().any(|(name, _)| name == "MULTIPROC_CHILD");
            drop(given);
            (Census::take().descriptors, mark)
        };
        // This process has in addition the socket to its own parent, the file and the two ends.
        let mine = Census::take().descriptors;
        let (bare, mark) = Process::spawn(look, None).unwrap().join().unwrap();
        assert_eq!(bare, mine - 3);
        assert!(!mark, "processes that it starts by other means do not know");
        let given = Process::spawn(look, Some(theirs)).unwrap().join().unwrap();
        assert_eq!(given.0, bare, "the handle it was given is closed when it is dropped");
    });
}

#[test]
fn siblings_do_not_hold_each_others_connections() {
    let _dog = watchdog();
    let mut children = Vec::new();
    for _ in 0..5 {
        children.push(waiting(false));
    }
    let counts: Vec<_> = children
        .iter()
        .map(|(child, _)| std::fs::read_dir(format!("/proc/{}/fd", child.pid())).unwrap().count())
        .collect();
    assert!(counts.iter().all(|&count| count == counts[0]), "{counts:?}");
    // The first connection ends although the other children live.
    let (first, parent) = children.remove(0);
    first.kill().unwrap();
    assert!(parent.recv().unwrap_err().is_disconnected());
    for (child, parent) in children {
        drop(parent);
        child.join().unwrap();
    }
}

#[test]
fn ended_children_leave_nothing_behind() {
    alone(|()| {
        let before = Census::take();
        for n in 0..100 {
            assert_eq!(Process::spawn(|n: u32| n, n).unwrap().join().unwrap(), n);
            drop(Process::spawn(|()| (), ()).unwrap()); // never joined
        }
        until(|| active_children().is_empty());
        assert_eq!(Census::take(), before);
    });
}

/// Without any other call of the library.
#[test]
fn detached_child_leaves_no_zombie() {
    alone(|()| {
        let before = Census::take();
        let is_known = |pid: u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
        // It ends after the handle was dropped,
        let (child, parent) = waiting(false);
        let pid = child.pid();
        drop(child);
        assert!(is_running(pid));
        drop(parent);
        until(|| !is_known(pid));
        // or is killed,
        let (child, end) = waiting(false);
        let pid = child.pid();
        let same = active_children().pop().unwrap();
        drop(child);
        same.kill().unwrap();
        until(|| !is_known(pid));
        assert_eq!(same.exit_status().unwrap().signal(), Some(9), "its other handles know");
        drop(same);
        // or had ended before.
        let (child, parent) = waiting(false);
        let pid = child.pid();
        drop(parent);
        wait_for_end(&child);
        assert!(is_known(pid), "it is a zombie");
        drop(child);
        assert!(!is_known(pid));
        drop(end);
        until(|| Census::take() == before);
        assert!(active_children().is_empty());
    });
}

#[test]
fn debug_shows_the_status_without_collecting_it() {
    // Another test that starts a process would collect it.
    alone(|()| {
        let (child, parent) = waiting(false);
        assert!(format!("{child:?}").ends_with("status: None }"), "{child:?}");
        child.kill().unwrap();
        wait_for_end(&child);
        for _ in 0..2 {
            assert!(format!("{child:?}").contains("signal: 9"), "{child:?}");
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid()));
        assert!(stat.expect("it is not collected").contains(") Z "));
        child.join().unwrap_err();
        drop(parent);
    });
}

#[test]
fn children_end_with_their_parent_unless_they_outlive_it() {
    let _dog = watchdog();
    // The parent starts one of each kind from a thread that ends, sends their pids, and is killed.
    let (ours, theirs) = duplex::<(), [u32; 3]>().unwrap();
    let (keep_alive, at_end) = duplex::<(), ()>().unwrap();
    let parent = |(ours, at_end): (Connection<[u32; 3], ()>, Connection<(), ()>)| -> () {
        let start = move || {
            let children = [waiting(true), waiting(false)];
            let outlives = Process::builder().outlive_parent(true).spawn(waits, at_end).unwrap();
            let pids = [children[0].0.pid(), children[1].0.pid(), outlives.pid()];
            std::mem::forget(children);
            pids
        };
        ours.send(std::thread::spawn(start).join().unwrap()).unwrap();
        let _ = ours.recv();
    };
    let parent = Process::spawn(parent, (theirs, at_end)).unwrap();
    let [daemon, other, outlives] = ours.recv().unwrap();
    keep_alive.recv().unwrap();
    assert!(is_running(daemon) && is_running(other) && is_running(outlives));
    let start = Instant::now();
    parent.kill().unwrap();
    parent.wait();
    until(|| !is_running(daemon) && !is_running(other));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(is_running(outlives));
    drop(keep_alive);
    until(|| !is_running(outlives));
}

#[test]
fn panic_in_the_function_terminates_its_children() {
    let _dog = watchdog();
    let parent = |at_end: Connection<(), ()>| -> () {
        drop(Process::spawn(waits, at_end).unwrap());
        panic!("with a child that waits");
    };
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let parent = Process::spawn(parent, theirs).unwrap();
    let error = parent.join().unwrap_err();
    assert!(matches!(error, JoinError::Panicked { .. }), "{error}");
    // The child may have been terminated before it sent its message.
    let _ = ours.recv();
    assert!(ours.recv().unwrap_err().is_disconnected());
}

#[test]
fn child_ends_after_its_own_children() {
    let _dog = watchdog();
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let parent = |at_end: Connection<(), ()>| {
        drop(Process::spawn(waits, at_end).unwrap());
        let (daemon, connection) = waiting(true);
        std::mem::forget(connection);
        daemon.pid()
    };
    let parent = Process::spawn(parent, theirs).unwrap();
    ours.recv().unwrap();
    assert_eq!(parent.wait_timeout(Duration::from_millis(50)), None);
    drop(ours);
    let daemon = parent.join().unwrap();
    assert!(!is_running(daemon), "the daemon was ended first");
}

#[test]
fn status_collected_by_other_code_is_unknown() {
    alone(|()| {
        let (child, parent) = waiting(false);
        drop(parent);
        // A library might wait for any child like this.
        rustix::process::wait(rustix::process::WaitOptions::empty()).unwrap();
        assert!(!child.is_alive());
        assert_eq!(child.wait(), ExitStatus::Unknown);
        child.join().expect("the result has come all the same");

        let (child, _parent) = waiting(false);
        child.kill().unwrap();
        rustix::process::wait(rustix::process::WaitOptions::empty()).unwrap();
        assert_eq!(child.join().unwrap_err(), JoinError::Unknown);
    });
}

#[test]
fn stopped_child_is_alive() {
    let _dog = watchdog();
    let (child, parent) = waiting(false);
    let pid = Pid::from_raw(i32::try_from(child.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    assert_eq!(child.wait_timeout(Duration::from_millis(20)), None);
    assert!(child.is_alive());
    kill_process(pid, Signal::CONT).unwrap();
    drop(parent);
    child.join().unwrap();
}

#[test]
fn marker_set_by_hand_is_ignored() {
    let example = multiproc_testkit::example("programs");
    for mark in ["1", "", "4711"] {
        let output = std::process::Command::new(&example)
            .arg("names")
            .env("MULTIPROC_CHILD", mark)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("Process-1"));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("MULTIPROC_CHILD is for internal use"), "{text}");
    }
}

/// Running `main` instead of a function would start the program again and again.
#[test]
fn marker_of_another_process_exits_before_main() {
    let _dog = watchdog();
    let (child, parent) = waiting(false);
    // As the child found it: a removed variable is still in its memory.
    let environment = std::fs::read(format!("/proc/{}/environ", child.pid())).unwrap();
    let mark = environment
        .split(|&byte| byte == 0)
        .find_map(|variable| str::from_utf8(variable).ok()?.strip_prefix("MULTIPROC_CHILD="))
        .unwrap();
    for stdin in [std::process::Stdio::null(), std::process::Stdio::piped()] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .arg("--list")
            .env("MULTIPROC_CHILD", mark)
            .stdin(stdin)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(102), "{output:?}");
        assert_eq!(output.stdout, b"", "it lists its tests");
        let text = str::from_utf8(&output.stderr).unwrap();
        assert!(text.contains("not the socket of its parent"), "{text}");
    }
    drop(parent);
    child.join().unwrap();
}

#[test]
fn process_can_be_polled() {
    let _dog = watchdog();
    let (child, parent) = waiting(false);
    let now = Timespec::default();
    assert_eq!(poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&now)).unwrap(), 0);
    drop(parent);
    assert_eq!(poll(&mut [PollFd::new(&child, PollFlags::IN)], None).unwrap(), 1);
    child.join().unwrap();
}

/// A grandchild that was started by other means lives on, and holds the child's output.
#[test]
fn join_does_not_wait_for_grandchildren() {
    let _dog = watchdog();
    let start = |()| std::process::Command::new("sleep").arg("1000").spawn().unwrap().id();
    let child = Process::builder().stdout(std::process::Stdio::piped()).spawn(start, ()).unwrap();
    let sleeper = child.join().unwrap();
    assert!(is_running(sleeper));
    let sleeper = Pid::from_raw(i32::try_from(sleeper).unwrap()).unwrap();
    kill_process(sleeper, Signal::KILL).unwrap();
}

#[test]
fn join_returns_while_the_queue_has_items() {
    let _dog = watchdog();
    let queue: Queue<Bytes> = Queue::bounded(100).unwrap();
    let put = |queue: Queue<Bytes>| {
        (0..20).for_each(|_| queue.put(Bytes(vec![7; 10_000])).unwrap());
    };
    Process::spawn(put, queue.clone()).unwrap().join().unwrap();
    assert_eq!(queue.len(), 20);
    assert!((0..20).all(|_| queue.get().unwrap().0.len() == 10_000));
}

/// Whether there is a core dump depends on the machine, so std is asked.
#[test]
fn core_dump_is_reported_as_by_std() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    use std::os::unix::process::ExitStatusExt;
    alone(|()| {
        let mut limits = getrlimit(Resource::Core);
        let folder = std::env::temp_dir().join(format!("multiproc-core-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut seen = Vec::new();
        for current in [Some(0), limits.maximum] {
            limits.current = current;
            setrlimit(Resource::Core, limits).unwrap();
            let mut shell = std::process::Command::new("sh");
            let status = shell.args(["-c", "kill -ABRT $$"]).current_dir(&folder).status().unwrap();
            let abort = |()| -> () { std::process::abort() };
            let child = Process::builder().current_dir(&folder).spawn(abort, ()).unwrap();
            assert_eq!(child.join().unwrap_err(), JoinError::Signaled(6, status.core_dumped()));
            seen.push(status.core_dumped());
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(!seen[0], "none was allowed");
        if !seen[1] {
            eprintln!("half of it skipped: there are no core dumps here");
        }
    });
}
