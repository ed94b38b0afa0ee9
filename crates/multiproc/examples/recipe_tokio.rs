//! tokio beside processes: `init` first, then the runtime; blocking calls on blocking threads.

use std::error::Error;
use std::time::Duration;

use multiproc::{Consumer, Process, Producer, RemoteError, queue};
use tokio::task::spawn_blocking;

// Not `#[tokio::main]`: it starts threads before `init`, also in every child.
fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let (jobs, work_in) = queue::channel(16)?;
    let (work_out, results) = queue::channel(16)?;
    // These ends move to the worker, which then has the only ones of their kind.
    let worker = Process::spawn(work, (work_in, work_out))?;

    // `get` blocks its thread. Results end when the worker does, even if it is killed, so this
    // thread always ends, and the runtime can shut down.
    let collector = spawn_blocking(move || results.iter().sum::<Result<u64, _>>());

    for n in 1..=100 {
        // Asynchronous code may only `try_put`: `put` could block the runtime's thread.
        let mut item = n;
        while let Err(error) = jobs.try_put(item) {
            if !error.is_full() {
                return Err(error.into());
            }
            item = error.into_inner();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    drop(jobs); // the worker gets what is left, and ends
    println!("sum of squares: {}", collector.await??);

    // A process is `AsFd` as well: its descriptor becomes readable when the process ends.
    println!("worker: {} jobs", spawn_blocking(move || worker.join_result()).await??);
    Ok(())
}

/// Returns the number of jobs that were done.
fn work(jobs: Consumer<u64>, results: Producer<u64>) -> Result<usize, RemoteError> {
    let mut done = 0;
    for n in jobs {
        let n = n?;
        results.put(n * n)?;
        done += 1;
    }
    Ok(done)
}
