//! Limits per worker: memory, processor time and wall time, each with what the parent learns.

use std::error::Error;
use std::time::Duration;

use multiproc::{JoinError, Process};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MEBIBYTE: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();

    // Memory: the allocation fails, and Rust aborts the process.
    let hungry = Process::spawn(
        |size: usize| {
            limit(Resource::Data, 256 * MEBIBYTE);
            vec![1_u8; size].len()
        },
        1 << 30,
    )?;
    println!("memory: {}", outcome(hungry.join()));

    // Processor time: the kernel sends SIGXCPU.
    let busy = Process::spawn(
        |()| -> () {
            limit(Resource::Cpu, 1); // seconds
            loop {
                std::hint::spin_loop();
            }
        },
        (),
    )?;
    println!("processor time: {}", outcome(busy.join()));

    // Wall time: the parent watches the clock. The error returns the process.
    let sleepy = Process::spawn(|()| std::thread::sleep(Duration::from_secs(3600)), ())?;
    match sleepy.join_timeout(Duration::from_millis(100)) {
        Ok(()) => println!("wall time: done"),
        Err(error) => match error.into_process() {
            Some(process) => {
                process.kill()?;
                println!("wall time: killed, {}", outcome(process.join()));
            }
            None => println!("wall time: failed"),
        },
    }
    Ok(())
}

/// Sets the soft limit: the first thing that a worker's function does. Not `Resource::As` for
/// memory: queues reserve address space that they do not use.
fn limit(resource: Resource, value: u64) {
    let maximum = getrlimit(resource).maximum;
    let limit = Rlimit { current: Some(value), maximum };
    setrlimit(resource, limit).expect("a soft limit can be lowered");
}

fn outcome<T>(result: Result<T, JoinError>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(JoinError::Signaled(signal, _)) => format!("signal {signal}"),
        Err(error) => error.to_string(),
    }
}
