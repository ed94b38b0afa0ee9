//! A program whose thread-local variables need more than the stack that the library provides for
//! the thread that watches the parent.

use std::cell::Cell;
use std::fs;

use multiproc_pipe::{Connection, duplex};
use multiproc_process::Process;
use multiproc_testkit::{is_running, until, watchdog};

multiproc_process::enable_in_tests!();

thread_local! {
    static LARGE: Cell<[u8; 200_000]> = const { Cell::new([1; 200_000]) };
}

#[test]
fn child_with_large_thread_locals_watches_its_parent() {
    let _dog = watchdog();
    let (ours, theirs) = duplex::<(), u32>().unwrap();
    let parent = |ours: Connection<u32, ()>| -> () {
        let wait = |ready: Connection<(), ()>| -> () {
            assert_eq!(LARGE.get()[199_999], 1);
            // The thread takes its name after it has started.
            until(|| {
                let mut tasks = fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
                tasks.any(|task| {
                    let name = fs::read_to_string(task.path().join("comm"));
                    name.is_ok_and(|name| name == "multiproc-watch\n")
                })
            });
            ready.send(()).unwrap();
            loop {
                std::thread::park();
            }
        };
        let (is_ready, ready) = duplex::<(), ()>().unwrap();
        let child = Process::spawn(wait, ready).unwrap();
        is_ready.recv().unwrap();
        ours.send(child.pid()).unwrap();
        let _ = ours.recv();
    };
    let parent = Process::spawn(parent, theirs).unwrap();
    let child = ours.recv().unwrap();
    parent.kill().unwrap();
    parent.wait();
    until(|| !is_running(child));
}
