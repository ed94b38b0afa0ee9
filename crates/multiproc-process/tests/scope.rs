//! Processes in a scope, and joins with a timeout.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use multiproc_pipe::{Connection, duplex};
use multiproc_process::{JoinError, JoinTimeoutError, Process, Scope, active_children, scope};
use multiproc_queue::Queue;
use multiproc_testkit::{Census, alone, is_running, until, watchdog};
use rustix::process::{Signal, getpid, kill_process};

multiproc_process::enable_in_tests!();

/// Waits until its connection is closed.
fn waits(end: Connection<(), ()>) {
    let _ = end.send(());
    let _ = end.recv();
}

/// Returns a process in a scope that waits.
fn waiting(scope: &Scope) -> (Process, Connection<(), ()>) {
    let (ours, theirs) = duplex().unwrap();
    let child = scope.spawn(waits, theirs).unwrap();
    ours.recv().unwrap();
    (child, ours)
}

fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap()
}

#[test]
fn scope_ends_after_all_its_processes() {
    alone(|()| {
        let before = Census::take();
        let queue = Queue::bounded(10).unwrap();
        let sum = scope(|s| {
            for n in 0..5u32 {
                // The handle is dropped.
                s.spawn(|(n, queue): (u32, Queue<u32>)| queue.put(n).unwrap(), (n, queue.clone()))
                    .unwrap();
            }
            let two = s.spawn(|n: u32| n + 1, 1).unwrap();
            let named = Process::builder()
                .name("in scope")
                .spawn_scoped(s, |()| multiproc_process::current_process().name().to_owned(), ())
                .unwrap();
            assert_eq!(named.join().unwrap(), "in scope");
            two.join().unwrap() + 1
        });
        assert_eq!((sum, queue.len()), (3, 5));
        assert!(active_children().is_empty());
        drop(queue);
        assert_eq!(Census::take(), before);

        // A handle may leave the scope. Its process has ended then.
        let left = scope(|s| s.spawn(|()| vec![1u8; 1 << 20], ()).unwrap());
        assert!(!left.is_alive());
        assert_eq!(left.join().unwrap().len(), 1 << 20);
    });
}

#[test]
fn scope_waits_for_slow_processes() {
    alone(|()| {
        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let scoped = std::thread::spawn(move || {
            scope(|s| drop(s.spawn(waits, theirs).unwrap()));
            tell.send(()).unwrap();
        });
        ours.recv().unwrap();
        told.recv_timeout(Duration::from_millis(50)).unwrap_err();
        drop(ours);
        told.recv().unwrap();
        scoped.join().unwrap();
    });
}

#[test]
fn panic_terminates_the_processes_of_the_scope() {
    alone(|()| {
        let (other, _other_end) = scope(|_| {
            let (ours, theirs) = duplex().unwrap();
            let child = Process::spawn(waits, theirs).unwrap();
            ours.recv().unwrap();
            (child, ours)
        });
        let pids = std::cell::RefCell::new(Vec::new());
        let result = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                let (waiting, end) = waiting(s);
                pids.borrow_mut().push(waiting.pid());
                // A stopped process does not react to SIGTERM.
                let stop = |()| kill_process(getpid(), Signal::STOP).unwrap();
                pids.borrow_mut().push(s.spawn(stop, ()).unwrap().pid());
                std::mem::forget(end);
                panic!("in the closure");
            })
        }));
        assert_eq!(message(result.unwrap_err()), "in the closure");
        assert_eq!(pids.borrow().len(), 2);
        assert!(pids.borrow().iter().all(|&pid| !is_running(pid)));
        assert!(other.is_alive(), "it is not of this scope");
        assert_eq!(active_children().len(), 1);
        other.kill().unwrap();
    });
}

#[test]
fn unnoticed_failure_panics_the_scope() {
    let _dog = watchdog();
    let fail = |()| -> () { std::process::exit(3) };
    let failing = |notice: fn(Process)| {
        let result = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                notice(Process::builder().name("fails").spawn_scoped(s, fail, ()).unwrap());
            });
        }));
        result.map_err(message)
    };
    let text = failing(drop).unwrap_err();
    assert!(text.contains("fails (pid ") && text.contains("exited with code 3"), "{text}");
    let text = failing(|child| until(|| !child.is_alive())).unwrap_err();
    assert!(text.contains("exited with code 3"), "{text}");
    // Noticed.
    failing(|child| assert_eq!(child.join().unwrap_err(), JoinError::Exited(3))).unwrap();
    failing(|child| assert_eq!(child.wait().code(), Some(3))).unwrap();
    failing(|child| until(|| child.exit_status().is_some())).unwrap();
    // Ended on purpose.
    scope(|s| {
        let (child, _end) = waiting(s);
        child.kill().unwrap();
    });
}

#[test]
fn join_timeout_returns_the_process() {
    let _dog = watchdog();
    let (ours, theirs) = duplex::<u32, ()>().unwrap();
    let child = Process::spawn(|end: Connection<(), u32>| end.recv().unwrap(), theirs).unwrap();
    let pid = child.pid();
    let start = Instant::now();
    let error = child.join_timeout(Duration::from_millis(30)).unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert!(error.is_timeout(), "{error}");
    let child = error.into_process().unwrap();
    assert_eq!(child.pid(), pid);
    let child = child.join_timeout(Duration::ZERO).unwrap_err().into_process().unwrap();
    ours.send(7).unwrap();
    assert_eq!(child.join_timeout(Duration::MAX).unwrap(), 7);

    let child = Process::spawn(|()| -> () { panic!("early") }, ()).unwrap();
    let error = child.join_timeout(Duration::from_secs(100)).unwrap_err();
    assert!(!error.is_timeout() && error.to_string().contains("early"), "{error}");
    let JoinTimeoutError::Failed(JoinError::Panicked { message, .. }) = error else { panic!() };
    assert_eq!(message, "early");
}

#[test]
fn backtrace_is_sent_if_enabled() {
    let _dog = watchdog();
    #[inline(never)]
    fn a_name_to_look_for() {
        panic!("look behind you");
    }
    for (variable, setting, is_on) in [
        ("RUST_BACKTRACE", "1", true),
        ("RUST_LIB_BACKTRACE", "1", true),
        ("RUST_BACKTRACE", "0", false),
    ] {
        let builder =
            Process::builder().env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
        let child = builder.env(variable, setting).spawn(|()| a_name_to_look_for(), ()).unwrap();
        let JoinError::Panicked { backtrace, .. } = child.join().unwrap_err() else { panic!() };
        let has_name = |text: String| text.contains("a_name_to_look_for");
        assert_eq!(backtrace.map(has_name), is_on.then_some(true), "{variable}={setting}");
    }
}

/// It cannot unwind into C, so it ends the process. Its message arrives nevertheless.
#[test]
fn panic_that_cannot_unwind_is_reported_with_its_message() {
    let _dog = watchdog();
    extern "C" fn called_by_c() {
        panic!("far from home");
    }
    struct Worse;
    impl Drop for Worse {
        fn drop(&mut self) {
            panic!("worse");
        }
    }
    let while_unwinding = |()| -> () {
        let _worse = Worse;
        panic!("bad");
    };
    for (child, text) in [
        (Process::spawn(|()| called_by_c(), ()), "far from home"),
        (Process::spawn(while_unwinding, ()), "worse"),
    ] {
        let child = child.unwrap();
        assert_eq!(child.wait().signal(), Some(6));
        let error = child.join().unwrap_err();
        let JoinError::Panicked { message, location, .. } = error else { panic!("{error}") };
        assert_eq!(message, text);
        assert!(location.contains("scope.rs"), "{location}");
    }
}

/// With a hook of its own, or without any.
#[test]
fn panic_is_reported_with_any_hook() {
    let _dog = watchdog();
    let own_hook = |()| -> () {
        std::panic::set_hook(Box::new(|_| {}));
        panic!("quietly")
    };
    let resumed = |()| -> () { std::panic::resume_unwind(Box::new("resumed")) };
    let caught_before = |()| -> () {
        let _ = std::panic::catch_unwind(|| panic!("an old one"));
        std::panic::resume_unwind(Box::new("a new one".to_owned()))
    };
    let no_text = |()| -> () { std::panic::panic_any(7) };
    for (function, text) in [
        (Process::spawn(own_hook, ()), "quietly"),
        (Process::spawn(resumed, ()), "resumed"),
        (Process::spawn(caught_before, ()), "a new one"),
        (Process::spawn(no_text, ()), "a panic whose payload is not a string"),
    ] {
        let error = function.unwrap().join().unwrap_err();
        let JoinError::Panicked { message, location, .. } = error else { panic!("{error}") };
        assert_eq!(message, text);
        assert_eq!(location.contains("scope.rs"), text.starts_with("a panic whose"), "{location}");
    }
}
