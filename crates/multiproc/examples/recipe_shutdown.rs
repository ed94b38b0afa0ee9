//! Graceful shutdown: SIGTERM or Ctrl-C ends the input, and what was begun is finished.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use multiproc::{Process, RemoteError, Shutdown, TaskConsumer, queue};
use signal_hook::consts::{SIGINT, SIGTERM};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&is_over))?;
    }

    let (tasks, work) = queue::tasks(8)?;
    let workers = ["worker-1", "worker-2"]
        .into_iter()
        .map(|name| {
            // Ctrl-C goes to all processes of the terminal. Workers leave it to the main process.
            let builder = Process::builder().name(name).ignore_sigint(true).daemon(true);
            builder.spawn(do_tasks, work.clone())
        })
        .collect::<Result<Vec<_>, _>>()?;
    drop(work); // now `put` and `join` fail if all workers die

    println!("running: press Ctrl-C, or send SIGTERM to {}", std::process::id());
    let mut put = 0;
    while !is_over.load(Ordering::Relaxed) {
        // With a timeout, so that the flag is read also while the queue is full.
        match tasks.put_timeout(put, Duration::from_millis(100)) {
            Ok(()) => put += 1,
            Err(error) if error.is_timeout() => {}
            Err(error) => return Err(error.into()),
        }
    }

    // No more tasks. Those in the queue are still done, but no longer than five seconds.
    if let Err(error) = tasks.join_timeout(Duration::from_secs(5)) {
        eprintln!("{} tasks are given up: {error}", tasks.unfinished());
        tasks.shutdown(Shutdown::Now);
    }
    drop(tasks); // ends the workers
    let mut done = 0;
    for worker in workers {
        let name = worker.name().to_owned();
        // A worker that hangs is a daemon: it is terminated at the end of `main`.
        match worker.join_timeout(Duration::from_secs(1)) {
            Ok(result) => done += result?,
            Err(error) => eprintln!("{name}: {error}"),
        }
    }
    println!("put {put}, done {done}");
    Ok(())
}

/// Returns the number of tasks that were done.
fn do_tasks(tasks: TaskConsumer<u64>) -> Result<u64, RemoteError> {
    let mut done = 0;
    for task in tasks {
        let task = task?;
        std::thread::sleep(Duration::from_millis(10)); // the work
        task.task_done();
        done += 1;
    }
    Ok(done)
}
