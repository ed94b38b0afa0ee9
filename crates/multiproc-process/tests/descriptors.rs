//! The descriptors of a child.

// Closes standard descriptors.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Command, Stdio};

use multiproc_pipe::{Connection, duplex};
use multiproc_process::{Process, SpawnError};
use multiproc_testkit::{Census, alone, watchdog};
use rustix::io::{FdFlags, fcntl_setfd};

multiproc_process::enable_in_tests!();

/// Clears close-on-exec, as a C library may.
fn without_close_on_exec<T: AsFd>(descriptor: T) -> T {
    fcntl_setfd(&descriptor, FdFlags::empty()).unwrap();
    descriptor
}

/// Returns the numbers of this process's descriptors, without those of the library.
fn open_numbers(_: ()) -> Vec<RawFd> {
    let mut numbers: Vec<RawFd> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|link| !is_of_library(&link)))
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The connection to the parent, the parent's pidfd, and the directory that is being listed.
fn is_of_library(link: &std::path::Path) -> bool {
    let link = link.to_str().unwrap();
    link.starts_with("socket:") || link.contains("pidfd") || link.contains("/proc/")
}

#[test]
fn child_closes_descriptors_without_close_on_exec() {
    alone(|()| {
        let _files: Vec<File> =
            (0..5).map(|_| without_close_on_exec(File::open("/dev/zero").unwrap())).collect();
        let before = Census::take().descriptors;
        let child = Process::spawn(open_numbers, ()).unwrap();
        assert_eq!(child.join().unwrap(), [0, 1, 2]);
        // Neither has a program that a child starts.
        let nested = |()| {
            let _file = without_close_on_exec(File::open("/dev/zero").unwrap());
            Process::spawn(open_numbers, ()).unwrap().join().unwrap()
        };
        assert_eq!(Process::spawn(nested, ()).unwrap().join().unwrap(), [0, 1, 2]);
        assert_eq!(Census::take().descriptors, before, "the parent keeps its own");
    });
}

/// A server can be restarted while a worker of it lives, even if the worker has just started.
#[test]
fn child_does_not_keep_an_address_in_use() {
    alone(|()| {
        let wait = |end: Connection<(), ()>| drop(end.recv());
        for _ in 0..20 {
            let listener = without_close_on_exec(TcpListener::bind(("127.0.0.1", 0)).unwrap());
            let address: SocketAddr = listener.local_addr().unwrap();
            let (ours, theirs) = duplex::<(), ()>().unwrap();
            let worker = Process::spawn(wait, theirs).unwrap();
            drop(listener);
            TcpListener::bind(address).expect("the address is free");
            drop(ours);
            worker.join().unwrap();
        }
    });
}

/// With so many that the parent does not check each of them.
#[test]
fn child_closes_many_descriptors() {
    alone(|()| {
        let zero = File::open("/dev/zero").unwrap();
        let _with: Vec<File> = (0..300).map(|_| zero.try_clone().unwrap()).collect();
        let without = without_close_on_exec(zero.try_clone().unwrap());
        assert!(without.as_raw_fd() > 300);
        let child = Process::spawn(open_numbers, ()).unwrap();
        assert_eq!(child.join().unwrap(), [0, 1, 2]);
        let look = |number: RawFd| fs::read_link(format!("/proc/self/fd/{number}")).ok();
        let child = Process::builder().keep_descriptor(&without);
        let child = child.spawn(look, without.as_raw_fd()).unwrap();
        assert_eq!(child.join().unwrap(), Some("/dev/zero".into()));
    });
}

#[test]
fn kept_descriptor_keeps_its_number_in_children_and_grandchildren() {
    alone(|()| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let writer = without_close_on_exec(writer);
        let _other = without_close_on_exec(File::open("/dev/zero").unwrap());
        let number = writer.as_raw_fd();
        let write = |number: RawFd| {
            // A program that was told the number can use it.
            let shell = format!("echo from a program >&{number}");
            assert!(Command::new("sh").args(["-c", &shell]).status().unwrap().success());
            let file = File::options().write(true).open(format!("/proc/self/fd/{number}"));
            writeln!(file.unwrap(), "from a child").unwrap();
            open_numbers(())
        };
        let child = Process::builder().keep_descriptor(&writer).spawn(write, number).unwrap();
        drop(writer);
        assert_eq!(child.join().unwrap(), [0, 1, 2, number]);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "from a program\nfrom a child\n");
    });
}

#[test]
fn keeping_a_close_on_exec_descriptor_is_an_error() {
    let _dog = watchdog();
    let file = File::open("/dev/null").unwrap();
    let kept = without_close_on_exec(file.try_clone().unwrap());
    let builder = || Process::builder().keep_descriptor(&kept).keep_descriptor(&file);
    let error = builder().keep_descriptor(&kept).spawn(|()| (), ()).unwrap_err();
    let SpawnError::Io(error) = error else { panic!("{error}") };
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains(&format!("descriptor {}:", file.as_raw_fd())), "{error}");
}

/// Standard input is never that of the parent. The others are as set by the parent.
#[test]
fn standard_streams_are_open_in_a_child() {
    let _dog = watchdog();
    let links = |()| {
        println!("out");
        [0, 2].map(|number| fs::read_link(format!("/proc/self/fd/{number}")).unwrap())
    };
    let builder = Process::builder().stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = builder.spawn(links, ()).unwrap();
    let mut text = String::new();
    child.take_stdout().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "out\n");
    assert_eq!(child.join().unwrap(), ["/dev/null", "/dev/null"].map(std::path::PathBuf::from));
}

/// Closes some of the standard descriptors of this process.
fn close_standard(numbers: &[RawFd]) {
    for &number in numbers {
        // SAFETY: no code in this process needs them. (Printing would panic or fail.)
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}

/// All combinations of closed streams, with pipes and files as the streams of a child.
#[test]
fn spawn_with_closed_standard_streams_works() {
    let _dog = watchdog();
    for closed in [&[0][..], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]] {
        let test = |closed: Vec<RawFd>| {
            let file = rustix::fs::memfd_create("multiproc-test", rustix::fs::MemfdFlags::CLOEXEC);
            let mut file = File::from(file.unwrap());
            close_standard(&closed);
            let speak = |bytes: multiproc_pipe::Bytes| {
                print!("out");
                eprint!("err");
                let numbers = open_numbers(());
                (numbers, bytes.0.len())
            };
            for large in [0, 1_000_000] {
                let bytes = || multiproc_pipe::Bytes(vec![1; large]);
                let mut child = Process::builder()
                    .stdout(file.try_clone().unwrap())
                    .stderr(Stdio::piped())
                    .spawn(speak, bytes())
                    .unwrap();
                let mut text = String::new();
                child.take_stderr().unwrap().read_to_string(&mut text).unwrap();
                assert_eq!(text, "err", "{closed:?}");
                assert_eq!(child.join().unwrap(), (vec![0, 1, 2], large), "{closed:?}");

                let builder = || Process::builder().daemon(true).stdout(Stdio::piped());
                let mut child = builder().spawn(speak, bytes()).unwrap();
                let mut pipe = child.take_stdout().unwrap();
                assert!(pipe.as_raw_fd() > 2);
                let unknown = builder().stderr(Stdio::piped()).spawn(|()| (), ()).unwrap();
                for number in &closed {
                    let link = fs::read_link(format!("/proc/self/fd/{number}"));
                    assert!(link.is_err(), "{number} is {}", link.unwrap().display());
                }
                let mut text = String::new();
                pipe.read_to_string(&mut text).unwrap();
                assert_eq!(text, "out", "{closed:?}");
                assert_eq!(child.join().unwrap(), (vec![0, 1, 2], large), "{closed:?}");
                unknown.join().unwrap();
            }
            let mut text = String::new();
            std::io::Seek::rewind(&mut file).unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "outout", "{closed:?}");
        };
        Process::spawn(test, closed.to_vec()).unwrap().join().unwrap();
    }
}
