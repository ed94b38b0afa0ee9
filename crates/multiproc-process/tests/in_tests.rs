//! Processes inside a test program: its report and output are as if there were none.

use std::env;
use std::io::Read;
use std::process::{Command, Output};

use multiproc_process::{JoinError, Process};
use multiproc_testkit::watchdog;

multiproc_process::enable_in_tests!();

/// Runs one test of this program again, in a separate program with `INNER` set.
fn again(test: &str, options: &[&str]) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test]).args(options).env("INNER", "1").output().unwrap()
}

#[test]
fn output_of_a_child_is_shown_and_no_test_runs_twice() {
    let _dog = watchdog();
    if env::var_os("INNER").is_some() {
        println!("the test itself is captured");
        let speak = |()| {
            println!("the child is heard");
            eprintln!("on both channels");
        };
        let child = || Process::spawn(speak, ()).unwrap();
        for child in [child(), child()] {
            child.join().unwrap();
        }
        return;
    }
    let test = "output_of_a_child_is_shown_and_no_test_runs_twice";
    // As `cargo test` runs it, and as `cargo nextest run` does.
    for (options, captures) in [(&[][..], true), (&["--nocapture"], false)] {
        let output = again(test, options);
        assert!(output.status.success(), "{output:?}");
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(out.matches("the child is heard").count(), 2, "{out}");
        assert_eq!(err.matches("on both channels").count(), 2, "{err}");
        assert_eq!(out.contains("the test itself"), !captures, "{out}");
        assert_eq!(out.matches("running 1 test").count(), 1, "{out}");
        assert_eq!(out.matches("1 passed").count(), 1, "{out}");
    }
}

#[test]
fn panic_of_a_child_fails_its_test() {
    let _dog = watchdog();
    if env::var_os("INNER").is_some() {
        Process::spawn(|()| -> () { panic!("no luck") }, ()).unwrap().join().unwrap();
        return;
    }
    let output = again("panic_of_a_child_fails_its_test", &[]);
    assert_eq!(output.status.code(), Some(101));
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("no luck") && out.contains("1 failed"), "{out}");
}

/// A child that starts in a constructor, before std's startup code, behaves like an ordinary
/// program.
#[test]
fn child_in_a_test_program_behaves_like_a_program() {
    let _dog = watchdog();
    let look = |()| {
        assert_eq!(std::thread::current().name(), Some("main"));
        assert_eq!(std::io::stdin().read(&mut [0]).unwrap(), 0);
        // Deeper than the 2 MiB stack of a thread allows.
        fn deep(depth: u32) -> u32 {
            let pad = std::hint::black_box([depth; 1000]);
            if depth == 0 { 0 } else { deep(depth - 1).wrapping_add(std::hint::black_box(&pad)[7]) }
        }
        deep(800);
        // SIGPIPE is ignored.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let error = std::io::Write::write(&mut &writer, b"x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        std::thread::spawn(|| std::thread::spawn(|| 7).join().unwrap()).join().unwrap()
    };
    assert_eq!(Process::spawn(look, ()).unwrap().join().unwrap(), 7);
    let exit = |()| -> () { std::process::exit(9) };
    assert_eq!(Process::spawn(exit, ()).unwrap().join().unwrap_err(), JoinError::Exited(9));
}
