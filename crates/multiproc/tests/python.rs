//! A Python program that loads a library built on this one, and forks.

use std::process::Command;

use multiproc_testkit::{example, watchdog};

multiproc::enable_in_tests!();

#[test]
fn python_program_that_forks_keeps_the_guarantees() {
    let _dog = watchdog();
    let has_ctypes =
        Command::new("python3").args(["-c", "import ctypes, mmap, os; os.fork"]).output();
    if !has_ctypes.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no python3 with ctypes");
        return;
    }
    let library = example("libpython_library.so");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/fork.py");
    let output = Command::new("python3").arg(program).arg(library).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "done\n");
}
