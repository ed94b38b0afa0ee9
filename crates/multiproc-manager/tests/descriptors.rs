//! The descriptors of a manager's process.

// Closes standard descriptors.
#![allow(unsafe_code)]

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use multiproc_manager::Manager;
use multiproc_process::Process;
use multiproc_testkit::watchdog;

multiproc_process::enable_in_tests!();

/// Closes some of the standard descriptors of this process.
fn close_standard(numbers: &[RawFd]) {
    for &number in numbers {
        // SAFETY: no code in this process needs them. (Printing would panic or fail.)
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}

#[test]
fn manager_with_closed_standard_streams_works() {
    let _dog = watchdog();
    let test = |()| {
        close_standard(&[0, 1, 2]);
        let manager = Manager::start().unwrap();
        let _lock = manager.lock("lock").unwrap();
        let in_manager = format!("/proc/{}/fd", manager.process().unwrap().pid());
        for number in 0..3 {
            let link = fs::read_link(format!("{in_manager}/{number}")).unwrap();
            assert_eq!(link.to_str(), Some("/dev/null"), "{number}");
            let ours = fs::read_link(format!("/proc/self/fd/{number}"));
            assert!(ours.is_err(), "{number}: {ours:?}");
        }
    };
    Process::spawn(test, ()).unwrap().join().unwrap();
}
