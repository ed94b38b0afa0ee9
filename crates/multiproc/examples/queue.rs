//! A queue between two processes: one puts, and ends; then another one gets.
//!
//! ```text
//! cargo run --example queue
//! ```
//!
//! The items outlive the process that put them: they are in shared memory.

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
    // Nobody puts any more, so empty means done.
    while let Ok(i) = queue.try_get() {
        println!("get {i} from queue");
    }
}
