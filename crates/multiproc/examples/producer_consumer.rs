//! Processes as structs with a `run` method. One produces random numbers, the other consumes them,
//! through a queue of a manager.
//!
//! ```text
//! cargo run --example producer_consumer
//! ```

use std::error::Error;

use multiproc::{Manager, Process, Queue, Semaphore, active_children};
use serde::{Deserialize, Serialize};

const ITEMS: usize = 6;

/// The struct holds what the process needs, and is the argument. The method is its function.
#[derive(Serialize, Deserialize)]
struct Producer {
    data: Queue<u8>,
    may_add: Semaphore,
}

impl Producer {
    fn run(self) {
        for _ in 0..ITEMS {
            // One number at a time, so that the lines come in pairs.
            self.may_add.acquire();
            let number = fastrand::u8(..);
            println!("add data {number}");
            self.data.put(number).unwrap();
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Consumer {
    data: Queue<u8>,
    may_add: Semaphore,
}

impl Consumer {
    fn run(self) {
        for _ in 0..ITEMS {
            println!("minus data {}", self.data.get().unwrap());
            self.may_add.release(1).unwrap();
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let manager = Manager::start()?;
    let data = manager.queue("data", ITEMS)?;
    let may_add = manager.semaphore("may add", 0)?;

    let producer = Producer { data: data.clone(), may_add: may_add.clone() };
    let producer = Process::builder().name("producer").spawn(Producer::run, producer)?;
    let consumer = Consumer { data, may_add: may_add.clone() };
    let consumer = Process::builder().name("consumer").spawn(Consumer::run, consumer)?;

    let names: Vec<_> = active_children().iter().map(|child| child.name().to_owned()).collect();
    println!("active children: {}", names.join(", "));
    may_add.release(1)?;
    producer.join()?;
    consumer.join()?;
    Ok(())
}
