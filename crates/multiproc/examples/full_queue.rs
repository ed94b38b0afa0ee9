//! A full queue: `try_put` fails at once, `put` waits until another process gets an item.
//!
//! ```text
//! cargo run --example full_queue
//! ```

use std::error::Error;

use multiproc::{Process, Queue};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let queue = Queue::bounded(3)?;
    for i in 0..3 {
        queue.put(i)?;
        println!("put {i}");
    }

    // The error returns the item.
    let refused = queue.try_put(3).unwrap_err();
    println!("try_put 3: {refused}");
    let item = refused.into_inner();

    println!("put {item}: waits for room");
    let reader = Process::spawn(read, queue.clone())?;
    queue.put(item)?;
    println!("put {item}: done");

    println!("the other process got {}", reader.join()?);
    println!("left: {}, {}, {}", queue.get()?, queue.get()?, queue.get()?);
    Ok(())
}

fn read(queue: Queue<u32>) -> u32 {
    // Printed before there is room. After that, it is the other process's turn to print.
    println!("another process gets");
    queue.get().unwrap()
}
