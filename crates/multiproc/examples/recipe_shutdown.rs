//! Graceful shutdown: SIGTERM or Ctrl-C ends the input, and what was begun is finished.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use multiproc::{JoinableQueue, Process, Shutdown};
use signal_hook::consts::{SIGINT, SIGTERM};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&is_over))?;
    }

    let tasks = JoinableQueue::<u64>::bounded(8)?;
    let workers = (0..2)
        .map(|n| {
            let builder = Process::builder().name(format!("worker-{n}")).daemon(true);
            builder.spawn(work, tasks.clone())
        })
        .collect::<Result<Vec<_>, _>>()?;

    println!("running: press Ctrl-C, or send SIGTERM to {}", std::process::id());
    let mut put = 0;
    while !is_over.load(Ordering::Relaxed) {
        // With a timeout, so that the flag is read also while the queue is full.
        match tasks.put_timeout(put, Duration::from_millis(100)) {
            Ok(()) => put += 1,
            Err(error) if error.is_timeout() => {}
            Err(error) => return Err(error.to_string().into()),
        }
    }

    // No more tasks. Those in the queue are still done, but no longer than five seconds.
    tasks.shutdown(Shutdown::Drain);
    if tasks.join_timeout(Duration::from_secs(5)).is_err() {
        eprintln!("{} tasks are given up", tasks.unfinished());
        tasks.shutdown(Shutdown::Now);
    }
    let mut done = 0;
    for worker in workers {
        // A worker that hangs is a daemon: it is terminated at the end of `main`.
        if let Ok(count) = worker.join_timeout(Duration::from_secs(1)) {
            done += count;
        }
    }
    println!("put {put}, done {done}");
    Ok(())
}

/// Returns the number of tasks that were done.
fn work(tasks: JoinableQueue<u64>) -> u64 {
    // Ctrl-C goes to all processes of the terminal, and systemd sends SIGTERM to all of a service.
    // Workers leave both to the main process. (A worker that is hit before this line dies, and its
    // tasks are redelivered to the others.)
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::default()).expect("handlers can be registered");
    }
    let mut done = 0;
    for task in tasks.iter() {
        let task = task.expect("the queue of tasks works");
        std::thread::sleep(Duration::from_millis(10)); // the work
        task.task_done();
        done += 1;
    }
    done
}
