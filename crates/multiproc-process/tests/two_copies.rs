//! Two copies of this library in one program, as if two of its dependencies required two versions.

use std::env;
use std::process::Command;

use multiproc_testkit::{example, watchdog};

multiproc_process::enable_in_tests!();
multiproc_twin::enable_in_tests!();

#[test]
fn each_copy_runs_its_own_functions() {
    let _dog = watchdog();
    let output = Command::new(example("programs")).arg("has_two_copies").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "2\n3\n");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn each_copy_runs_its_own_functions_in_tests() {
    let _dog = watchdog();
    for _ in 0..2 {
        let child = multiproc_process::Process::spawn(|n: u32| n + 1, 1).unwrap();
        assert_eq!(child.join().unwrap(), 2);
        let child = multiproc_twin::Process::spawn(|n: u32| n + 2, 1).unwrap();
        assert_eq!(child.join().unwrap(), 3);
    }
}

/// Children of one copy start children of the other.
#[test]
fn children_of_one_copy_can_spawn_with_the_other() {
    let _dog = watchdog();
    let inner = |n: u32| {
        let leaf = |n: u32| {
            assert!(env::var_os("MULTIPROC_CHILD").is_none());
            n + 1
        };
        multiproc_process::Process::spawn(leaf, n).unwrap().join().unwrap() + 1
    };
    let child = multiproc_twin::Process::spawn(inner, 1).unwrap();
    assert_eq!(child.join().unwrap(), 3);
}
