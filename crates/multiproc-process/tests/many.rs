//! Many processes: at once, in sequence, from several threads.

// A program without unsafe code can forbid it.
#![forbid(unsafe_code)]

use std::fs;
use std::thread;

use multiproc_pipe::{Connection, duplex};
use multiproc_process::{Process, active_children};
use multiproc_testkit::{Census, alone, until, watchdog};

multiproc_process::enable_in_tests!();

#[test]
fn two_hundred_children_at_once() {
    alone(|()| {
        let before = Census::take();
        let waits = |(n, end): (u32, Connection<(), ()>)| {
            let _ = end.recv();
            n
        };
        let children: Vec<_> = (0..200)
            .map(|n| {
                let (ours, theirs) = duplex().unwrap();
                (Process::spawn(waits, (n, theirs)).unwrap(), ours)
            })
            .collect();
        assert_eq!(active_children().len(), 200);
        assert_eq!(Census::take().children, before.children + 200);
        for (n, (child, end)) in (0..).zip(children) {
            drop(end);
            assert_eq!(child.join().unwrap(), n);
        }
        assert!(active_children().is_empty());
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn two_thousand_children_in_sequence() {
    alone(|()| {
        let before = Census::take();
        for n in 0..1000u32 {
            assert_eq!(Process::spawn(|n: u32| n, n).unwrap().join().unwrap(), n);
            // Not joined.
            drop(Process::spawn(|n: u32| n, n).unwrap());
        }
        until(|| active_children().is_empty());
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn threads_spawn_concurrently() {
    alone(|()| {
        let before = Census::take();
        let start = |thread: u32| {
            (0..50).for_each(|n| {
                let args = (thread, n);
                assert_eq!(
                    Process::spawn(|args: (u32, u32)| args, args).unwrap().join().unwrap(),
                    args
                );
            });
        };
        thread::scope(|s| (0..4).for_each(|thread| drop(s.spawn(move || start(thread)))));
        assert!(active_children().is_empty());
        // The kernel may still list a thread that has ended.
        until(|| Census::take() == before);
    });
}

/// The number of descriptors does not depend on the number of earlier siblings.
#[test]
fn siblings_have_equal_numbers_of_descriptors() {
    let _dog = watchdog();
    for daemon in [false, true] {
        let children: Vec<_> = (0..5)
            .map(|_| {
                let (ours, theirs) = duplex::<(), ()>().unwrap();
                let waits = |end: Connection<(), ()>| {
                    end.send(()).unwrap();
                    let _ = end.recv();
                };
                let child = Process::builder().daemon(daemon).spawn(waits, theirs).unwrap();
                ours.recv().unwrap();
                (child, ours)
            })
            .collect();
        let count = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let counts: Vec<_> = children.iter().map(|(child, _)| count(child.pid())).collect();
        // The standard streams, the lifeline, the parent's pidfd, the arguments. Descriptors that
        // the test program itself has inherited are closed.
        assert_eq!(counts, [3 + 3; 5]);
        for (child, end) in children {
            drop(end);
            child.join().unwrap();
        }
    }
}
