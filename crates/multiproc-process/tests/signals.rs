//! Signals reach the code of the program, and none of the library's threads.

// Signal sets, handlers and signalfd.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Command;
use std::ptr;

use multiproc_pipe::{Connection, Sender, duplex, simplex};
use multiproc_process::{ExitStatus, JoinError, Process};
use multiproc_testkit::{blocked_signals, example, watchdog};

multiproc_process::enable_in_tests!();

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: it writes a set there.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for &signal in signals {
        // SAFETY: it changes the set, which has been written.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: it has been written.
    unsafe { set.assume_init() }
}

fn change_mask(how: i32, signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: it reads a set.
    unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) };
}

/// Blocks SIGTERM, and waits for it with signalfd(2).
fn takes_sigterm(ready: Sender<()>) -> u8 {
    change_mask(libc::SIG_BLOCK, &[libc::SIGTERM]);
    let set = set_of(&[libc::SIGTERM]);
    // SAFETY: it reads the set.
    let descriptor = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
    // SAFETY: it is new, and owned here alone.
    let mut signals = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    ready.send(()).unwrap();
    let mut information = [0; size_of::<libc::signalfd_siginfo>()];
    signals.read_exact(&mut information).unwrap();
    information[0]
}

#[test]
fn child_can_receive_a_signal_with_signalfd() {
    let _dog = watchdog();
    for daemon in [false, true] {
        let (is_ready, ready) = simplex().unwrap();
        let child = Process::builder().daemon(daemon).spawn(takes_sigterm, ready).unwrap();
        is_ready.recv().unwrap();
        child.terminate().unwrap();
        assert_eq!(child.join().map(i32::from), Ok(libc::SIGTERM), "daemon: {daemon}");
    }
}

extern "C" fn needs_much_stack(_: i32) {
    let mut buffer = [0_u8; 200 * 1024];
    for byte in &mut buffer {
        // SAFETY: it writes to a byte of the buffer.
        unsafe { ptr::write_volatile(byte, 1) };
    }
}

/// The thread of the function has the signal blocked, and no other thread handles it.
#[test]
fn signal_handlers_do_not_run_on_library_threads() {
    let _dog = watchdog();
    let handles = |(ready, go_on): (Sender<()>, multiproc_pipe::Receiver<()>)| {
        let handler = needs_much_stack as extern "C" fn(i32);
        // SAFETY: the handler uses its own stack and nothing else.
        unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
        change_mask(libc::SIG_BLOCK, &[libc::SIGUSR1]);
        ready.send(()).unwrap();
        go_on.recv().unwrap();
        change_mask(libc::SIG_UNBLOCK, &[libc::SIGUSR1]);
    };
    for daemon in [false, true] {
        let (is_ready, ready) = simplex().unwrap();
        let (wait, go_on) = simplex().unwrap();
        let child = Process::builder().daemon(daemon).spawn(handles, (ready, wait)).unwrap();
        is_ready.recv().unwrap();
        // SAFETY: it has no preconditions. The child has not been collected, so the number is its
        // own.
        unsafe { libc::kill(i32::try_from(child.pid()).unwrap(), libc::SIGUSR1) };
        go_on.send(()).unwrap();
        assert_eq!(child.join(), Ok(()), "daemon: {daemon}");
    }
}

/// Signals 1 to 31 without those that cannot be blocked, and the real-time signals that the C
/// library leaves to programs.
const ALL: u64 = !(1 << 8 | 1 << 18 | 1 << 31 | 1 << 32);

/// Checks the lines of `blocked_signals`: the thread that runs the function blocks none, the others
/// block all.
fn only_the_function_has_signals<'a>(lines: impl Iterator<Item = &'a str>) {
    let sets: Vec<u64> = lines
        .map(|line| u64::from_str_radix(line.rsplit(' ').next().unwrap(), 16).unwrap())
        .collect();
    assert_eq!(sets.iter().filter(|&&set| set == 0).count(), 1, "{sets:x?}");
    assert!(sets.iter().all(|&set| set == 0 || set & ALL == ALL), "{sets:x?}");
    assert!(sets.len() > 1, "there are other threads: {sets:x?}");
}

#[test]
fn library_threads_block_all_signals() {
    let _dog = watchdog();
    // From a thread that blocks signals.
    change_mask(libc::SIG_BLOCK, &[libc::SIGTERM, libc::SIGINT, libc::SIGUSR1]);
    let child = Process::builder().daemon(true).spawn(|()| blocked_signals(), ()).unwrap();
    let lines = child.join().unwrap();
    only_the_function_has_signals(lines.iter().map(String::as_str));

    // In a program that calls `init`.
    let output = Command::new(example("programs")).arg("blocks_signals").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    only_the_function_has_signals(str::from_utf8(&output.stdout).unwrap().lines());
}

#[test]
fn child_of_a_thread_that_blocks_sigterm_can_be_terminated() {
    let _dog = watchdog();
    change_mask(libc::SIG_BLOCK, &[libc::SIGTERM]);
    let wait = |end: Connection<(), ()>| {
        end.send(()).unwrap();
        drop(end.recv());
    };
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let child = Process::spawn(wait, theirs).unwrap();
    ours.recv().unwrap();
    child.terminate().unwrap();
    assert!(matches!(child.wait(), ExitStatus::Signaled { signal: 15, .. }));
    assert_eq!(child.join(), Err(JoinError::Signaled(15, false)));
}
