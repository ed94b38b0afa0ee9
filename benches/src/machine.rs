//! Names the machine on which a bench runs, because its times depend on it.

use std::{fs, thread};

use rustix::system::uname;

/// Prints the processor, the number of CPUs and the kernel as one line.
pub fn print() {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
    let processor = processor(&cpuinfo).unwrap_or("unknown processor");
    let cpus = thread::available_parallelism().unwrap();
    let kernel = uname();
    println!(
        "{processor}, {cpus} CPUs, {} {} {}",
        kernel.sysname().to_string_lossy(),
        kernel.release().to_string_lossy(),
        kernel.machine().to_string_lossy(),
    );
}

/// Returns the model of the first processor. Some architectures do not report it.
fn processor(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}
