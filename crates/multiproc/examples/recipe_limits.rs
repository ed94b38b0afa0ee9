//! Limits per task: memory, processor time and wall time, each with what the parent learns.

use std::error::Error;
use std::time::Duration;

use multiproc::{JoinError, Process, Resource};

const LIMIT: u64 = 256 << 20; // bytes

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();

    // Memory: the allocation fails, and Rust aborts the process.
    let hungry = Process::builder()
        .rlimit(Resource::Data, LIMIT, LIMIT)
        .spawn(|size: usize| vec![1_u8; size].len(), 1 << 30)?;
    println!("memory: {}", outcome(hungry.join()));

    // Processor time: the kernel sends SIGXCPU after one second, and SIGKILL after two.
    let busy = Process::builder().rlimit(Resource::CpuTime, 1, 2).spawn(spin, ())?;
    println!("processor time: {}", outcome(busy.join()));

    // Wall time: the parent watches the clock.
    let sleepy = Process::spawn(std::thread::sleep, Duration::from_secs(3600))?;
    if sleepy.wait_timeout(Duration::from_millis(100)).is_none() {
        sleepy.kill()?;
    }
    println!("wall time: {}", outcome(sleepy.join()));
    Ok(())
}

fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

fn outcome<T>(result: Result<T, JoinError>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(JoinError::Signaled(signal, _)) => format!("signal {signal}"),
        Err(error) => error.to_string(),
    }
}
