//! A pipe whose reader is gone, in a program that does not ignore SIGPIPE.

// Changes the disposition of a signal.
#![allow(unsafe_code)]

use std::time::Duration;

use multiproc::Process;
use multiproc_pipe::{Bytes, Receiver, simplex};
use multiproc_testkit::{alone, is_asleep, until};
use rustix::process::{Signal, getpid, kill_process};

multiproc::enable_in_tests!();

fn reset() {
    // SAFETY: the default is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

extern "C" fn on_signal(_: libc::c_int) {
    std::process::abort();
}

#[test]
fn every_way_of_sending_to_a_gone_reader_is_disconnected() {
    alone(|()| {
        reset();
        let (receiver, sender) = simplex::<Bytes>().unwrap();
        drop(receiver);
        let large = || Bytes(vec![7; 1_000_000]);
        assert!(sender.send(Bytes(vec![1])).unwrap_err().is_disconnected());
        assert!(sender.send(large()).unwrap_err().is_disconnected());
        assert!(sender.try_send(large()).unwrap_err().is_disconnected());
        let moment = Duration::from_millis(10);
        assert!(sender.send_timeout(large(), moment).unwrap_err().is_disconnected());
        assert!(sender.send_bytes(&[1; 100_000]).unwrap_err().is_disconnected());
        assert!(sender.send_bytes_timeout(&[1], moment).unwrap_err().is_disconnected());

        let (receiver, sender) = simplex::<Bytes>().unwrap();
        assert!(sender.try_send(large()).unwrap_err().is_unfinished());
        drop(receiver);
        assert!(sender.flush().unwrap_err().is_disconnected());
    });
}

#[test]
fn send_to_a_gone_reader_does_not_call_the_signal_handler() {
    alone(|()| {
        // SAFETY: the handler is async-signal-safe.
        unsafe { libc::signal(libc::SIGPIPE, on_signal as *const () as libc::sighandler_t) };
        let (receiver, sender) = simplex::<u8>().unwrap();
        drop(receiver);
        assert!(sender.send(1).unwrap_err().is_disconnected());
    });
}

#[test]
fn end_used_before_the_reset_of_sigpipe_is_disconnected() {
    alone(|()| {
        let (receiver, sender) = simplex::<u8>().unwrap();
        let (busy_receiver, busy) = simplex::<u8>().unwrap();
        sender.send(1).unwrap();
        for _ in 0..1000 {
            busy.send(1).unwrap();
        }
        reset();
        for _ in 0..64 {
            busy.send(1).unwrap();
        }
        drop((receiver, busy_receiver));
        assert!(sender.send(2).unwrap_err().is_disconnected());
        assert!(busy.send(2).unwrap_err().is_disconnected());
    });
}

#[test]
fn killed_reader_disconnects_a_blocked_send() {
    alone(|()| {
        reset();
        let (receiver, sender) = simplex::<Bytes>().unwrap();
        let reader = Process::spawn(
            |(_receiver, main): (Receiver<Bytes>, u32)| {
                until(|| is_asleep(main));
                kill_process(getpid(), Signal::KILL).unwrap();
            },
            (receiver, std::process::id()),
        );
        let reader = reader.unwrap();
        assert!(sender.send(Bytes(vec![7; 1_000_000])).unwrap_err().is_disconnected());
        reader.wait();
    });
}
