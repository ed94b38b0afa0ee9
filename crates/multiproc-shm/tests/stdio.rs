//! A program of its own, because it closes its standard input.

// Takes the descriptor 0.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use multiproc_shm::above_stdio;
use rustix::fs::fstat;
use rustix::io::{Errno, FdFlags, fcntl_getfd};

#[test]
fn a_standard_descriptor_is_moved_and_any_other_stays() {
    let file = OwnedFd::from(File::open("/dev/null").unwrap());
    let number = file.as_raw_fd();
    assert!(number > 2, "the standard descriptors are open");
    let file = above_stdio(file).unwrap();
    assert_eq!(file.as_raw_fd(), number);

    // SAFETY: nothing else in this program uses standard input.
    let stdin = unsafe { OwnedFd::from_raw_fd(0) };
    rustix::stdio::dup2_stdin(&file).unwrap();
    let moved = above_stdio(stdin).unwrap();
    assert!(moved.as_raw_fd() > 2);
    assert_eq!(fstat(&moved).unwrap().st_ino, fstat(&file).unwrap().st_ino);
    assert_eq!(fcntl_getfd(&moved).unwrap(), FdFlags::CLOEXEC);
    assert_eq!(fcntl_getfd(std::io::stdin().as_fd()), Err(Errno::BADF), "0 is free again");
}
