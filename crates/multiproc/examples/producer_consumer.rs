//! Processes as structs with a `run` method. One produces random numbers, the other consumes them,
//! through a queue of a manager.
//!
//! ```text
//! cargo run --example producer_consumer
//! ```

use std::error::Error;

use multiproc::{Event, Manager, Process, TaskConsumer, TaskProducer, active_children, wait};
use serde::{Deserialize, Serialize};

const ITEMS: usize = 6;

/// The struct holds what the process needs, and is the argument. The method is its function.
#[derive(Serialize, Deserialize)]
struct Producer {
    data: TaskProducer<u8>,
    may_start: Event,
}

impl Producer {
    fn run(self) {
        self.may_start.wait();
        for _ in 0..ITEMS {
            let number = fastrand::u8(..);
            println!("add data {number}");
            self.data.put(number).unwrap();
            // One number at a time, so that the lines come in pairs.
            self.data.join().unwrap();
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Consumer {
    data: TaskConsumer<u8>,
}

impl Consumer {
    fn run(self) {
        for task in self.data.iter().take(ITEMS) {
            let task = task.unwrap();
            println!("minus data {}", *task);
            task.task_done();
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let manager = Manager::start()?;
    let data = manager.joinable_queue("data", ITEMS)?;

    let may_start = manager.event("may start")?;

    let consumer = Consumer { data: data.clone().into_consumer() };
    let producer = Producer { data: data.into_producer(), may_start: may_start.clone() };
    // Daemons, so that an error below ends both.
    let producer =
        Process::builder().name("producer").daemon(true).spawn(Producer::run, producer)?;
    let consumer =
        Process::builder().name("consumer").daemon(true).spawn(Consumer::run, consumer)?;

    let names: Vec<_> = active_children().iter().map(|child| child.name().to_owned()).collect();
    println!("active children: {}", names.join(", "));
    may_start.set();

    // The manager has both ends of its queues open, so the queue does not report the death of one
    // side to the other. This process does.
    let ended = wait([&producer, &consumer], None)?;
    let (first, second) =
        if ended.contains(&0) { (producer, consumer) } else { (consumer, producer) };
    first.join()?;
    second.join()?;
    Ok(())
}
