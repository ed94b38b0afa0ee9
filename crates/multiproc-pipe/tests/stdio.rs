//! In a program without standard descriptors, no descriptor of the library takes one of their
//! numbers.

// Closes the standard descriptors.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use multiproc_pipe::{
    Connection, Descriptor, Listener, Receiver, Sender, connect, duplex, simplex,
};
use multiproc_testkit::alone;
use rustix::fs::fstat;
use rustix::io::Errno;

multiproc::enable_in_tests!();

/// Asserts that no standard descriptor is open.
fn none_is_open() {
    for number in 0..3 {
        // SAFETY: only checks whether the number is open, and no other thread opens a descriptor
        // meanwhile.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        assert_eq!(fstat(fd).map(|_| ()), Err(Errno::BADF), "descriptor {number}");
    }
}

fn is_high(end: &impl AsFd) {
    assert!(end.as_fd().as_raw_fd() > 2);
}

#[test]
fn ends_avoid_the_standard_descriptor_numbers() {
    alone(|()| {
        let file = || Descriptor::from(File::open("/dev/null").unwrap());
        let (sends, receives) = duplex::<(Descriptor, Descriptor, Descriptor), ()>().unwrap();
        sends.send((file(), file(), file())).unwrap();
        for number in 0..3 as RawFd {
            // SAFETY: nothing in this process uses them.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
        none_is_open();

        let (left, right) = duplex::<u8, u8>().unwrap();
        is_high(&left);
        is_high(&right);
        let (receiver, sender): (Receiver<u8>, Sender<u8>) = simplex().unwrap();
        is_high(&receiver);
        is_high(&sender);
        let (one, two) = right.split();
        is_high(&one);
        is_high(&two);
        none_is_open();

        let address = format!("@multiproc-stdio-{}", std::process::id());
        let listener = Listener::bind(&address).unwrap();
        is_high(&listener);
        let client: Connection<u8, u8> = connect(&address).unwrap();
        is_high(&client);
        let server = listener.accept::<u8, u8>().unwrap();
        is_high(&server);
        client.send(7).unwrap();
        assert_eq!(server.recv().unwrap(), 7);
        none_is_open();

        let came = receives.recv().unwrap();
        for file in [&came.0, &came.1, &came.2] {
            is_high(file);
        }
        none_is_open();
    });
}
