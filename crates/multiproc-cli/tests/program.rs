//! The program `multiproc`, as a shell starts it.

use std::io::{BufRead, BufReader};
use std::process::{self, Child, Command, Stdio};

use multiproc_manager::Manager;
use multiproc_testkit::watchdog;

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_multiproc"));
    command.args(arguments);
    command
}

/// The exit code, standard output and standard error.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let _dog = watchdog();
    let output = program(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Killed at the end of the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn help_prints_the_usage_and_succeeds() {
    for arguments in [&["help"][..], &["--help"], &["-h"], &["manager", "--help"]] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, &*err), (Some(0), ""), "{arguments:?}");
        assert!(out.contains("multiproc manager"), "{out}");
    }
}

#[test]
fn wrong_arguments_print_the_usage_and_fail_with_code_2() {
    for (arguments, reason) in [
        (&["paint"][..], "multiproc: there is no command \"paint\"\n"),
        (&["manager", "paint", "@a"], "multiproc manager: there is no command \"paint\"\n"),
        (&["manager", "list"], "multiproc manager: expected a command and an address"),
    ] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, &*out), (Some(2), ""), "{arguments:?}");
        assert!(err.starts_with(reason) && err.contains("usage:"), "{err}");
    }
    assert_eq!(run(&[]).0, Some(2));
}

#[test]
fn manager_serves_and_lists() {
    let _dog = watchdog();
    let address = format!("@multiproc-cli-{}", process::id());
    let (code, out, err) = run(&["manager", "list", &address]);
    assert_eq!((code, &*out), (Some(1), ""));
    let reason = "\n  reason: no process listens at this abstract name; start a manager there";
    assert!(err.starts_with(&format!("multiproc manager: {address}: no manager")), "{err}");
    assert!(err.contains(reason), "{err}");

    let mut serve = program(&["manager", "serve", &address]);
    let Server(server) = &mut Server(serve.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, format!("listening at {address}\n"));

    let manager = Manager::connect(&*address).unwrap();
    let _jobs = manager.queue::<u8>("jobs", 5).unwrap();
    let (code, out, _) = run(&["manager", "list", &address, "--json"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("{\"name\":\"jobs\",\"kind\":\"queue\",\"item_type\":\"u8\""), "{out}");
    manager.shutdown().unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(0));
}
