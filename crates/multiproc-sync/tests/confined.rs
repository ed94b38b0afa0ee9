//! Regions under limits and refused system calls: locked memory, membarrier(2).
//!
//! Contains unsafe code for mlockall(2), setuid(2) and setitimer(2).
#![allow(unsafe_code)]

use std::fs;
use std::time::Duration;

use multiproc::Process;
use multiproc::pipe::{Connection, duplex};
use multiproc_shm::fences::Fences;
use multiproc_shm::primitives::{AtomicU32, has_light_fences};
use multiproc_shm::region::{Control, Region};
use multiproc_sync::Shared;
use multiproc_sync::{Mutex, placed};
use multiproc_testkit::{alone, refuse_call, watchdog};
use rustix::process::{Resource, Rlimit, setrlimit};

multiproc::enable_in_tests!();

#[derive(Debug, Default)]
#[repr(C)]
struct Large {
    nothing: AtomicU32,
}

placed!(Large { nothing });

impl Control for Large {
    const KIND: u32 = u32::from_le_bytes(*b"LRGE");
    const NAME: &'static str = "large test region";
    const DATA: std::ops::RangeInclusive<usize> = 0..=usize::MAX;

    fn release_slot(&self, _: &[AtomicU32], _: usize) {}
}

/// Returns a value of /proc/self/status, in KiB.
fn status(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel reports it");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

#[test]
fn locked_memory_is_resident_only_where_it_is_used() {
    alone(|()| {
        // SAFETY: takes no pointers.
        if unsafe { libc::mlockall(libc::MCL_FUTURE) } != 0 {
            println!("skipped: this process may not lock memory");
            return;
        }
        let before = status("RssShmem:");
        let region = Region::create(512 << 20, |_: &Large| {}).unwrap();
        region.reserve(0, 1 << 20).unwrap();
        region.data().copy_in(0, &[1; 4096]);
        let grown = status("RssShmem:") - before;
        assert!(grown < 64 << 10, "{grown} KiB of 512 MiB are resident, and 4 KiB were written");
    });
}

#[test]
fn error_names_the_limit_of_locked_memory() {
    alone(|()| {
        let limit = Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) };
        setrlimit(Resource::Memlock, limit).unwrap();
        // SAFETY: takes no pointers.
        if unsafe { libc::setuid(65534) } != 0 {
            println!("skipped: only root can become another user");
            return;
        }
        // SAFETY: takes no pointers.
        assert_eq!(unsafe { libc::mlockall(libc::MCL_FUTURE) }, 0);
        let error = Region::create(16 << 20, |_: &Large| {}).map(drop).unwrap_err().to_string();
        assert!(error.contains("RLIMIT_MEMLOCK") && error.contains("1048576"), "{error}");
    });
}

/// The kernel allows membarrier(2) at first, and then refuses it.
#[test]
fn refused_membarrier_switches_to_full_fences() {
    alone(|()| {
        assert!(has_light_fences(), "this kernel has membarrier(2)");
        let fences = Fences::default();
        fences.join();
        let _ = fences.heavy();
        assert!(!fences.are_full());
        refuse_call(libc::SYS_membarrier, libc::EPERM);
        let _ = fences.heavy();
        assert!(fences.are_full(), "others must be told");
    });
}

/// Before Linux 6.11, each signal undid a whole fallocate(2), so a long one never finished.
#[test]
fn reserving_memory_ends_under_frequent_signals() {
    alone(|()| {
        extern "C" fn nothing(_: libc::c_int) {}
        let interval = libc::timeval { tv_sec: 0, tv_usec: 200 };
        let timer = libc::itimerval { it_interval: interval, it_value: interval };
        // SAFETY: the handler does nothing, so it is safe in a signal.
        unsafe { libc::signal(libc::SIGALRM, nothing as *const () as libc::sighandler_t) };
        // SAFETY: `timer` is valid during the call, and the old value is not requested.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
        let region = Region::create(128 << 20, |_: &Large| {}).unwrap();
        region.reserve(0, 128 << 20).unwrap();
    });
}

/// If the standard descriptors are closed, a region does not get their numbers.
#[test]
fn regions_never_use_the_standard_descriptors() {
    let _dog = watchdog();
    let life = |connection: Connection<(Mutex<u32>, Shared<u64>), ()>| -> () {
        for number in 0..3 {
            // SAFETY: no code of this process owns the standard descriptors.
            unsafe { libc::close(number) };
        }
        let mine = (Mutex::new(7).unwrap(), Shared::new(&[1u64, 2]).unwrap());
        connection.send(mine).unwrap();
        for number in 0..3 {
            assert!(fs::read_link(format!("/proc/self/fd/{number}")).is_err());
        }
        connection.recv_timeout(Duration::from_secs(60)).unwrap();
    };
    let (mine, theirs) = duplex().unwrap();
    let child = Process::spawn(life, theirs).unwrap();
    let (value, _table) = mine.recv().unwrap();
    assert_eq!(*value.lock().unwrap(), 7);
    mine.send(()).unwrap();
    child.join().unwrap();
}
