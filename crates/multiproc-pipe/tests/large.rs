//! A message that is longer than a signed 32-bit number can express. The test takes some seconds
//! and much memory. Without enough memory it prints a message and is skipped.

use std::fs;

use multiproc::Process;
use multiproc_pipe::{Bytes, Connection, Sender, duplex, simplex};
use multiproc_testkit::alone;

multiproc::enable_in_tests!();

const GIB: usize = 1 << 30;
const SIZE: usize = 3 * GIB;

/// Positions that show whether any content was displaced.
const MARKS: [usize; 6] = [0, 1, GIB - 1, 2 * GIB, 2 * GIB + 1, SIZE - 1];

/// Mostly zeros, which use no memory until they are written.
fn message() -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    for (mark, n) in MARKS.into_iter().zip(1..) {
        bytes[mark] = n;
    }
    bytes
}

fn check(bytes: &[u8]) {
    assert_eq!(bytes.len(), SIZE);
    assert_eq!(MARKS.map(|mark| bytes[mark]), [1, 2, 3, 4, 5, 6]);
    let zeros = vec![0; 1 << 20];
    let dirty = bytes.chunks(zeros.len()).filter(|chunk| *chunk != zeros).count();
    assert_eq!(dirty, 4, "pieces of 1 MiB with marks in them");
}

/// Returns a number in bytes from a file in /proc that has lines such as "MemAvailable: 123 kB".
fn memory(file: &str, key: &str) -> usize {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

fn is_enough(needed: usize) -> bool {
    let available = memory("/proc/meminfo", "MemAvailable:");
    if available < needed {
        println!("skipped: {available} bytes of memory are available, this takes {needed}");
    }
    available >= needed
}

#[test]
fn three_gibibytes_arrive_without_a_second_copy() {
    if !is_enough(SIZE + 2 * GIB) {
        return;
    }
    alone(|()| {
        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let sender =
            Process::spawn(|end: Connection<(), ()>| end.send_bytes(&message()).unwrap(), theirs)
                .unwrap();
        check(&ours.recv_bytes().unwrap());
        sender.join().unwrap();
        let peak = memory("/proc/self/status", "VmHWM:");
        assert!(peak < SIZE + GIB / 4, "{peak} bytes at the most");
    });
}

/// Sends a value, which is copied once when it is encoded and once when it is decoded. Runs only in
/// a soak run (`MULTIPROC_SOAK_SECONDS=1 cargo test -p multiproc-pipe --test large`), because it
/// takes 9 GiB.
#[test]
fn three_gibibytes_as_a_value_arrive() {
    if std::env::var_os("MULTIPROC_SOAK_SECONDS").is_none() {
        println!("skipped: no soak run");
        return;
    }
    if !is_enough(3 * SIZE + 2 * GIB) {
        return;
    }
    alone(|()| {
        let (receiver, sender) = simplex::<Bytes>().unwrap();
        let child =
            Process::spawn(|sender: Sender<Bytes>| sender.send(Bytes(message())).unwrap(), sender)
                .unwrap();
        check(&receiver.recv().unwrap().0);
        child.join().unwrap();
    });
}
