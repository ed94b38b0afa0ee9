//! Waiting for work: a producer puts ten tasks and joins the queue; a daemon does the tasks.
//!
//! ```text
//! cargo run --example joinable_queue
//! ```
//!
//! On a terminal, added items are green, and completed ones are red.

use std::error::Error;
use std::io::{self, IsTerminal};

use multiproc::{Process, TaskConsumer, TaskProducer, queue};

const GREEN: u8 = 32;
const RED: u8 = 31;

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let (producer, consumer) = queue::tasks(3)?;
    let _consumer = Process::builder().daemon(true).spawn(consume, consumer)?;
    Process::spawn(produce, producer)?.join()?;
    println!("finished");
    Ok(())
}

fn produce(tasks: TaskProducer<u32>) {
    for i in 0..10 {
        // Printed first, because the consumer may be fast.
        say(GREEN, &format!("add data {i}"));
        tasks.put(i).unwrap();
    }
    // Returns when all tasks are done, or with an error if the consumer has died.
    tasks.join().unwrap();
}

fn consume(tasks: TaskConsumer<u32>) {
    for task in tasks {
        let task = task.unwrap();
        say(RED, &format!("minus data {}", *task));
        task.task_done();
    }
}

/// Prints a line, in colour on a terminal.
fn say(colour: u8, line: &str) {
    if io::stdout().is_terminal() {
        println!("\x1b[{colour}m{line}\x1b[0m");
    } else {
        println!("{line}");
    }
}
