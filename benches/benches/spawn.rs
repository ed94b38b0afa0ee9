//! Starting a process that does nothing, and waiting for its end, beside `std::process::Command`
//! starting the same executable to do nothing.

use std::env;
use std::process::{Command, Stdio};

use criterion::Criterion;
use multiproc::Process;

/// Makes this program end at once.
const DO_NOTHING: &str = "MULTIPROC_BENCH_DO_NOTHING";

fn main() {
    if env::var_os(DO_NOTHING).is_some() {
        return;
    }
    let _runtime = multiproc::init();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("spawn/W5 do nothing");
    group.bench_function("multiproc, spawn and join", |b| {
        b.iter(|| Process::spawn(|()| (), ()).unwrap().join().unwrap());
    });
    group.bench_function("std::process::Command, spawn and wait", |b| {
        b.iter(|| {
            let mut command = Command::new("/proc/self/exe");
            let status = command.env(DO_NOTHING, "1").stdin(Stdio::null()).status().unwrap();
            assert!(status.success());
        });
    });
    group.finish();
    criterion.final_summary();
}
