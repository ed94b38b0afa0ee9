//! Kills a child at each named point of its life, and a parent at each point of a start. Run by
//! `cargo xtask faults`, which compiles the points in.
#![cfg(multiproc_faults)]

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use multiproc_pipe::{Bytes, Sender, simplex};
use multiproc_process::private::{CHILD_POINTS, SPAWN_POINTS};
use multiproc_process::{ExitStatus, JoinError, Process, active_children};
use multiproc_testkit::{Census, alone, watchdog};

multiproc_process::enable_in_tests!();

const KILLED: JoinError = JoinError::Signaled(9, false);

/// The bound that is promised.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Starts a child that dies at `point`, and checks that its parent learns it within the bound.
fn doomed(point: &str, bytes: usize) {
    let before = Census::take();
    let start = Instant::now();
    let (numbers, send) = simplex::<u32>().unwrap();
    let run = |(bytes, send): (Bytes, Sender<u32>)| {
        send.send(7).unwrap();
        bytes.0.len()
    };
    let child = Process::builder().daemon(true).env("MULTIPROC_FAULT", point);
    let child = child.spawn(run, (Bytes(vec![1; bytes]), send)).unwrap();
    let status = child.wait();
    assert!(
        matches!(status, ExitStatus::Signaled { signal: 9, .. }),
        "{point} was not reached: {status}"
    );
    let result = child.join();
    // What it had received is gone with it; what it had sent has arrived.
    let has_run = ["child.returned", "child.sent"].contains(&point);
    assert_eq!(numbers.recv().ok(), has_run.then_some(7), "{point}");
    assert!(numbers.recv().unwrap_err().is_disconnected(), "{point}");
    assert_eq!(result, Err(KILLED), "{point}");
    assert!(start.elapsed() < AT_ONCE, "{point}: {:?}", start.elapsed());
    drop(numbers);
    assert!(active_children().is_empty());
    assert_eq!(Census::take(), before, "{point}");
}

#[test]
fn faults_killed_child_is_reported_at_each_point() {
    alone(|()| {
        for point in CHILD_POINTS {
            doomed(point, 10);
        }
        // With an inherited descriptor, the parent also waits until the child has closed it.
        let file = std::fs::File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        for point in CHILD_POINTS {
            doomed(point, 10);
            doomed(point, 1_000_000);
            // The parent waits until the child has received them.
            doomed(point, 20_000_000);
        }
    });
}

/// A child whose parent dies before it sent the function exits.
#[test]
fn faults_killed_parent_leaves_no_child_at_each_point() {
    let _dog = watchdog();
    for &point in SPAWN_POINTS {
        let start = |()| drop(Process::spawn(|()| print!("it has run"), ()));
        let parent = Process::builder().stdout(Stdio::piped()).env("MULTIPROC_FAULT", point);
        let mut parent = parent.spawn(start, ()).unwrap();
        let mut output = parent.take_stdout().unwrap();
        assert_eq!(parent.join().unwrap_err(), KILLED, "{point} was not reached");
        // The child has the output of its parent, so this waits for the end of both.
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        // A child that was told its function may have run it before it noticed the death.
        assert!(text.is_empty() || (point == "spawn.told" && text == "it has run"), "{text}");
    }
}
