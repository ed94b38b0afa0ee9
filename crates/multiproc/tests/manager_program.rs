//! The program `multiproc-manager`, and separately started programs that use it.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use multiproc::{Manager, ManagerError, Producer};
use multiproc_testkit::{Watchdog, example, until, watchdog};
use rustix::process::{Pid, Signal, kill_process};

/// A program that is killed if the test fails.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    _dog: Watchdog,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is built");
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, lines, _dog: watchdog() }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("it prints a line").unwrap()
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Closes the input. Returns the exit code, and the rest of the output.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        drop(self.input.take());
        let rest = self.lines.by_ref().map(Result::unwrap).collect();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_multiproc-manager"))
}

fn serve(address: &str) -> Running {
    let mut server = Running::start(program().args(["serve", address]));
    assert_eq!(server.line(), format!("listening at {address}"));
    server
}

fn address() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("@multiproc-program-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let _dog = watchdog();
    let Output { status, stdout, stderr } = program().args(args).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn wrong_arguments_print_the_usage() {
    for (args, said) in [
        (&["serve"][..], "expected a command and an address"),
        (&["list", "@a", "@b"], "got 3 words"),
        (&["paint", "@a"], "there is no command \"paint\""),
        (&["list", "@a", "--jsn"], "no option --jsn"),
        (&["list", "@a", "--max-clients", "1"], "list has no option but --json"),
        (&["serve", "@a", "--json"], "serve has no option --json"),
        (&["serve", "@a", "--max-clients", "many"], "--max-clients needs a number, got \"many\""),
        (&["serve", "@a", "--allow-user"], "--allow-user needs a number"),
    ] {
        let (code, out, err) = run(args);
        assert_eq!((code, &*out), (Some(2), ""), "{args:?}");
        assert!(err.contains(said) && err.contains("usage:"), "{args:?}: {err}");
    }
    let (code, out, _) = run(&["--help"]);
    assert!(code == Some(0) && out.contains("usage:"));
    let (code, out, _) = run(&[]);
    assert!(code == Some(2) && out.contains("usage:"));
}

#[test]
fn missing_manager_is_an_error() {
    for command in ["list", "watch"] {
        let (code, out, err) = run(&[command, &address()]);
        assert_eq!((code, &*out), (Some(1), ""));
        assert!(err.contains("no manager listens at the address; check"), "{err}");
        assert!(!err.contains("open"), "nothing was opened: {err}");
        assert!(err.contains("\n  reason: no process listens at this abstract name"), "{err}");
    }
    let missing = env::temp_dir().join(format!("multiproc-no-manager-{}", process::id()));
    let (code, _, err) = run(&["list", missing.to_str().unwrap()]);
    assert!(code == Some(1) && err.contains("\n  reason: the path does not exist"), "{err}");
    let (code, _, err) = run(&["serve", "/proc/version"]);
    assert!(code == Some(1) && err.contains("no socket"), "{err}");
    let address = address();
    let _server = serve(&address);
    let (code, _, err) = run(&["serve", &address]);
    assert!(code == Some(1) && err.contains("already"), "{err}");
}

#[test]
fn server_ends_in_order_by_signals_and_shutdown() {
    let folder = env::temp_dir().join(format!("multiproc-program-{}", process::id()));
    fs::create_dir(&folder).unwrap();
    let path = folder.join("socket");
    let path = path.to_str().unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let server = serve(path);
        let manager = Manager::connect(path).unwrap();
        let queue = manager.queue::<u8>("jobs", 1).unwrap();
        server.signal(signal);
        assert_eq!(server.end(), (Some(0), vec![]));
        assert!(!fs::exists(path).unwrap());
        assert!(manager.list().unwrap_err().is_manager_gone());
        queue.put(1).unwrap();
    }
    let server = serve(path);
    Manager::connect(path).unwrap().shutdown().unwrap();
    assert_eq!(server.end().0, Some(0));

    let server = serve(path);
    server.signal(Signal::KILL);
    assert_eq!(server.end().0, None);
    assert!(fs::exists(path).unwrap());
    // The file that it left does not matter.
    let server = serve(path);
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    fs::remove_dir(&folder).unwrap();
}

/// A program that was started in a shell outlives it.
#[test]
fn server_outlives_the_process_that_started_it() {
    let address = address();
    let mut shell = Running::start(Command::new("sh").args([
        "-c",
        "\"$0\" serve \"$1\" & wait",
        env!("CARGO_BIN_EXE_multiproc-manager"),
        &address,
    ]));
    assert_eq!(shell.line(), format!("listening at {address}"));
    shell.signal(Signal::KILL);
    shell.child.wait().unwrap();
    let manager = Manager::connect(&*address).unwrap();
    // Longer than a process may take to notice the death of its parent.
    thread::sleep(Duration::from_millis(1500));
    manager.lock("lock").unwrap();
    manager.shutdown().unwrap();
}

/// Each of the two programs defines the type of the items for itself.
#[test]
fn programs_share_a_type_by_its_name() {
    /// `Order` of the example `manager_type`.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename = "shop.Order")]
    struct Bestellung {
        number: u64,
        text: String,
    }

    let address = address();
    let _server = serve(&address);
    let mut other = Running::start(Command::new(example("manager_type")).arg(&address));
    assert_eq!(other.line(), "ready");
    let manager = Manager::connect(&*address).unwrap();
    let orders = manager.open::<Producer<Bestellung>>("orders").unwrap();
    orders.put(Bestellung { number: 7, text: "tea".to_owned() }).unwrap();
    assert_eq!(other.line(), "order 7: tea");
    let (_, out, _) = run(&["list", &address]);
    assert!(out.lines().any(|line| line.starts_with("orders") && line.ends_with("shop.Order")));

    // The same name with other fields, and another name.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename = "shop.Order")]
    struct Newer {
        number: u64,
    }
    let error = manager.open::<Producer<Newer>>("orders").unwrap_err();
    let ManagerError::TypeMismatch { asked, is, .. } = error else { panic!("{error}") };
    assert_eq!((&*asked, &*is), ("shop.Order", "shop.Order"));
    let error = manager.open::<Producer<String>>("orders").unwrap_err();
    assert!(matches!(error, ManagerError::TypeMismatch { is, .. } if is == "shop.Order"));

    // Its death leaves the queue, and its name.
    other.signal(Signal::KILL);
    other.child.wait().unwrap();
    until(|| manager.list().unwrap().iter().all(|info| info.members <= 1));
    orders.put(Bestellung { number: 8, text: "milk".to_owned() }).unwrap();
    let mut other = Running::start(Command::new(example("manager_type")).arg(&address));
    assert_eq!((other.line(), other.line()), ("ready".into(), "order 8: milk".into()));
}

#[test]
fn limits_can_be_set() {
    let address = address();
    let mut server = Running::start(program().args([
        "serve",
        &address,
        "--max-objects",
        "1",
        "--max-clients",
        "1",
    ]));
    server.line();
    let manager = Manager::connect(&*address).unwrap();
    manager.lock("a").unwrap();
    assert!(matches!(manager.lock("b"), Err(ManagerError::TooManyObjects(1))));
    assert!(matches!(Manager::connect(&*address), Err(ManagerError::TooManyClients(1))));
}

/// A client that cannot be accepted for lack of descriptors waits for its turn.
#[test]
fn without_descriptors_clients_wait() {
    let address = address();
    let limited = "ulimit -n 24 && exec \"$0\" serve \"$1\"";
    let mut server = Running::start(Command::new("sh").args([
        "-c",
        limited,
        env!("CARGO_BIN_EXE_multiproc-manager"),
        &address,
    ]));
    server.line();
    let name = SocketAddr::from_abstract_name(address.strip_prefix('@').unwrap()).unwrap();
    let mut waiting: Vec<UnixStream> = (0..60)
        .map(|_| {
            let mut client = UnixStream::connect_addr(&name).unwrap();
            client.write_all(b"\x0c\0\0\0\0\0\0\0\0\0\0\0mp-mngr\0\x04\0\0\0").unwrap();
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect();
    let mut welcomed = Vec::new();
    // Accepted clients stay, until no more are accepted.
    let mut quiet = Instant::now();
    until(|| {
        let before = waiting.len();
        let (came, still): (Vec<_>, Vec<_>) =
            waiting.drain(..).partition(|mut client| client.read(&mut [0; 64]).is_ok());
        welcomed.extend(came);
        waiting = still;
        if waiting.len() < before {
            quiet = Instant::now();
        }
        quiet.elapsed() > Duration::from_millis(500)
    });
    assert!(welcomed.len() >= 5 && waiting.len() >= 30, "{} of 60", welcomed.len());
    // Clients that cannot be accepted do not keep it busy.
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", server.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    thread::sleep(Duration::from_millis(500));
    assert!(ticks() <= before + 5);
    // An object needs descriptors as well. The request fails, and nothing else.
    let mut one = welcomed.pop().unwrap();
    one.set_nonblocking(false).unwrap();
    one.write_all(b"\x0a\0\0\0\0\0\0\0\0\0\0\0\0\x01x\0\0\0\0\0\0\x01").unwrap();
    let mut answer = [0; 13];
    one.read_exact(&mut answer).unwrap();
    assert_eq!(answer[12], 3);
    drop((one, welcomed));
    until(|| {
        waiting.retain_mut(|client| client.read(&mut [0; 64]).is_err());
        waiting.is_empty()
    });
    assert!(Manager::connect(&*address).unwrap().list().unwrap().is_empty());
}

#[test]
fn list_prints_the_objects() {
    let address = address();
    let _server = serve(&address);
    assert_eq!(run(&["list", &address, "--json"]), (Some(0), String::new(), String::new()));

    let manager = Manager::connect(&*address).unwrap();
    let jobs = manager.queue::<(u8, String)>("the \"jobs\"", 5).unwrap();
    let lock = manager.lock("lock").unwrap();
    jobs.put((1, String::new())).unwrap();
    jobs.put((2, String::new())).unwrap();
    jobs.get().unwrap();
    let _guard = lock.lock().unwrap();

    let (code, out, _) = run(&["list", &address]);
    assert_eq!(code, Some(0));
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = out.lines();
    assert_eq!(
        words(lines.next().unwrap()).join(" "),
        "NAME KIND LENGTH CAPACITY PUT GOT MEMBERS WAITS ITEMS"
    );
    assert_eq!(words(lines.next().unwrap())[2..8], ["queue", "1", "5", "2", "1", "1"]);
    let holder = process::id().to_string();
    assert_eq!(words(lines.next().unwrap())[..8], ["lock", "lock", "1", "-", "-", "-", "1", "for"]);
    assert!(out.contains(&holder) && out.contains("(u8, alloc::string::String)"));

    let (_, out, _) = run(&["list", &address, "--json"]);
    assert_eq!(
        out.lines().next().unwrap(),
        "{\"name\":\"the \\\"jobs\\\"\",\"kind\":\"queue\",\"item_type\":\"(u8, alloc::string::String)\",\
         \"capacity\":5,\"length\":1,\"members\":1,\"holder\":null,\"waiting\":false,\
         \"waiting_to_put\":false,\"put\":2,\"got\":1,\"put_per_second\":null,\"got_per_second\":null,\
         \"max_bytes\":8589934592,\"max_attempts\":null}"
    );
}

#[test]
fn watch_prints_every_second() {
    let address = address();
    let server = serve(&address);
    let manager = Manager::connect(&*address).unwrap();
    let jobs = manager.queue::<u32>("jobs", 10).unwrap();
    let mut watch = Running::start(program().args(["watch", &address, "--json"]));
    let rate = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("\"{name}\":")).unwrap();
        rest.split([',', '}']).next().unwrap().parse::<f64>().ok()
    };
    let first = watch.line();
    assert_eq!((rate(&first, "put_per_second"), rate(&first, "length")), (None, Some(0.0)));
    for number in 0..7 {
        jobs.put(number).unwrap();
    }
    jobs.get().unwrap();
    // They were put between two samples. One of these lines shows the rate.
    let mut lines = std::iter::repeat_with(|| watch.line());
    let line =
        lines.find(|line| rate(line, "put_per_second").is_some_and(|rate| rate > 0.0)).unwrap();
    assert!(rate(&line, "put_per_second").unwrap() <= 8.0, "{line}");
    watch.signal(Signal::INT);
    assert_eq!(watch.end().0, Some(0));

    // Without a terminal it prints plain lines. It fails when the manager ends.
    let mut watch = Running::start(program().args(["watch", &address]).stderr(Stdio::null()));
    let header = watch.line();
    assert!(header.starts_with("NAME") && header.contains("IN/S"), "{header}");
    assert!(watch.line().starts_with("jobs"));
    drop(server);
    let (code, rest) = watch.end();
    assert_eq!(code, Some(1));
    assert!(rest.iter().all(|line| !line.contains('\u{1b}')));
}

/// Two programs, neither of which has started the other.
#[test]
fn chat() {
    let address = address();
    let server = serve(&address);
    let join = |name: &str| Running::start(Command::new(example("chat")).args([&*address, name]));
    let manager = Manager::connect(&*address).unwrap();
    let is_there = |name: &str| {
        let name = format!("chat {name}");
        manager.list().unwrap().iter().any(|info| info.name == name && info.members > 0)
    };
    let mut ada = join("Ada");
    until(|| is_there("Ada"));
    let mut bob = join("Bob");
    assert_eq!(ada.line(), "Bob: is here");
    ada.type_line("hello, Bob");
    assert_eq!(bob.line(), "Ada: hello, Bob");
    bob.type_line("Grüße");
    assert_eq!(ada.line(), "Bob: Grüße");

    // A killed member affects no other.
    let cyd = join("Cyd");
    assert_eq!((ada.line(), bob.line()), ("Cyd: is here".into(), "Cyd: is here".into()));
    drop(cyd);
    ada.type_line("who is there?");
    assert_eq!(bob.line(), "Ada: who is there?");

    assert_eq!(bob.end(), (Some(0), vec![]));
    assert_eq!(ada.line(), "Bob: has left");
    assert_eq!(ada.end(), (Some(0), vec![]));
    assert!(!is_there("Ada") && !is_there("Bob"));
    drop(server);
    let output = Command::new(example("chat")).args([&*address, "Eve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no manager listens"));
}
