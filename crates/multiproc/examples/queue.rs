//! A queue between two processes: one puts items and ends; then another one gets them.
//!
//! ```text
//! cargo run --example queue
//! ```
//!
//! The items outlive the process that put them, because they are in shared memory.

use std::error::Error;

use multiproc::{Consumer, Process, Producer, queue};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let (producer, consumer) = queue::channel(5)?;

    let writer = Process::spawn(write, producer)?;
    writer.join()?;

    let reader = Process::spawn(read, consumer)?;
    reader.join()?;
    Ok(())
}

fn write(queue: Producer<u32>) {
    for i in 0..5 {
        queue.put(i).unwrap();
        println!("put {i} into queue");
    }
}

fn read(queue: Consumer<u32>) {
    // The only producer has ended, so the loop ends when the queue is empty.
    for i in queue {
        println!("get {} from queue", i.unwrap());
    }
}
