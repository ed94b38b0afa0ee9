//! [`KillTest`] accepts a program that ends and leaves nothing, and reports those that do not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use multiproc_testkit::KillTest;

fn shell(script: &str) -> KillTest {
    KillTest::new(PathBuf::from("/bin/sh"), &["-c", script])
}

/// Returns the message with which the test of a script fails.
fn fault_of(script: &str) -> String {
    let test = shell(script);
    let panic = catch_unwind(AssertUnwindSafe(|| test.run(|_, out| assert_eq!(out, "done\n"))));
    let payload = panic.expect_err("the script has a fault");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => (*payload.downcast_ref::<&str>().expect("a message")).to_owned(),
    }
}

#[test]
fn program_that_reports_the_death_of_its_child_passes() {
    shell("sleep 0.05 & wait $! || { echo 'it was killed' >&2; exit 1; }; echo done")
        .run(|_, out| assert_eq!(out, "done\n"));
}

#[test]
fn programs_that_are_started_in_turn_pass() {
    let last = ["-c", "sleep 0.05; echo done"];
    shell("echo ready; sleep 0.05")
        .and(PathBuf::from("/bin/sh"), &last)
        .run(|number, out| assert_eq!(out, ["ready\n", "done\n"][number]));
}

#[test]
fn program_that_runs_until_it_is_terminated_passes() {
    shell("trap 'echo done; exit' TERM; echo ready; while :; do sleep 0.01; done")
        .terminate_after(Duration::from_millis(30))
        .run(|_, out| assert_eq!(out, "ready\ndone\n"));
}

#[test]
fn program_that_waits_for_its_killed_child_is_a_hang() {
    // The parent waits for a signal that only the child would send.
    let fault = fault_of(
        "trap 'echo done; exit' USR1; (sleep 0.2; kill -USR1 $$) & while :; do sleep 0.01; done",
    );
    assert!(fault.starts_with("the program hangs after the kill"), "{fault}");
}

#[test]
fn child_that_outlives_its_killed_parent_is_reported() {
    let fault = fault_of("sleep 9 & child=$!; sleep 0.2; kill -9 $child; echo done");
    assert!(fault.starts_with("processes outlive the program"), "{fault}");
}

#[test]
fn file_that_is_left_is_reported() {
    let fault = fault_of("sleep 0.01; echo >file; echo done");
    assert!(fault.starts_with("it leaves files"), "{fault}");
}

#[test]
fn failure_without_a_message_is_reported() {
    let fault = fault_of("exec 2>/dev/null; sleep 0.05 & wait $! && echo done");
    assert!(fault.starts_with("it fails without a message"), "{fault}");
}

#[test]
fn wrong_result_is_reported() {
    let fault = fault_of("sleep 0.05 & wait $!; [ $? = 0 ] && echo done || echo lost");
    assert!(fault.contains("lost"), "{fault}");
}
