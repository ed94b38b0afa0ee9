//! A queue between two processes: one puts items and ends; then another one gets them.
//!
//! ```text
//! cargo run --example queue
//! ```
//!
//! The items outlive the process that put them, because they are in shared memory.

use std::error::Error;

use multiproc::{Process, Queue};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let queue = Queue::bounded(5)?;

    let writer = Process::spawn(write, queue.clone())?;
    writer.join()?;

    let reader = Process::spawn(read, queue)?;
    reader.join()?;
    Ok(())
}

fn write(queue: Queue<u32>) {
    for i in 0..5 {
        queue.put(i).unwrap();
        println!("put {i} into queue");
    }
}

fn read(queue: Queue<u32>) {
    // The only producer has ended, so an empty queue is the end.
    while let Ok(i) = queue.try_get() {
        println!("get {i} from queue");
    }
}
