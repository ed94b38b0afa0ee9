//! A full queue: `try_put` fails at once, `put` waits until another process gets an item.
//!
//! ```text
//! cargo run --example full_queue
//! ```

use std::error::Error;

use multiproc::{Consumer, Process, queue};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let (producer, consumer) = queue::channel(3)?;
    for i in 0..3 {
        producer.put(i)?;
        println!("put {i}");
    }

    // The error returns the item.
    let refused = producer.try_put(3).unwrap_err();
    println!("try_put 3: {refused}");
    let item = refused.into_inner();

    println!("put {item}: waits for room");
    // The only consumer moves to the other process: if that one dies, `put` fails.
    let reader = Process::spawn(read, consumer)?;
    producer.put(item)?;
    println!("put {item}: done");

    // A result may contain handles, as an argument may.
    let (first, consumer) = reader.join()?;
    println!("the other process got {first}");
    println!("left: {}, {}, {}", consumer.get()?, consumer.get()?, consumer.get()?);
    Ok(())
}

fn read(consumer: Consumer<u32>) -> (u32, Consumer<u32>) {
    // Printed before there is room. After that, it is the other process's turn to print.
    println!("another process gets");
    (consumer.get().unwrap(), consumer)
}
