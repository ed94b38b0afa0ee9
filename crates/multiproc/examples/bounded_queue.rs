//! Ten processes put items into a small queue; ten others get them, and print them under a lock.
//!
//! ```text
//! cargo run --example bounded_queue -- 50
//! ```
//!
//! The argument is the number of items.

use std::env;
use std::error::Error;
use std::process::{self, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use multiproc::{Consumer, Lock, Process, Producer, Sender, queue, simplex};

const WRITERS: usize = 10;
const READERS: usize = 10;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let _runtime = multiproc::init();
    let items = match items() {
        Ok(items) => items,
        Err(why) => {
            eprintln!("bounded_queue: {why}\nusage: bounded_queue [ITEMS]");
            return Ok(ExitCode::from(2));
        }
    };

    let (producer, consumer) = queue::channel(3)?;
    let printing = Lock::new()?;

    // The readers cannot print yet, and a reader that cannot print does not get another item. So
    // the first ten items go to ten readers, and not all to the fastest.
    let not_yet = printing.lock().expect("no process died with it");
    let mut readers = Vec::new();
    let mut have_items = Vec::new();
    for _ in 0..READERS {
        let (has_item, sender) = simplex()?;
        readers.push(Process::spawn(read, (consumer.clone(), printing.clone(), sender))?);
        have_items.push(has_item);
    }
    let writers = (0..WRITERS)
        .map(|i| Process::spawn(write, (producer.clone(), share(items, i))))
        .collect::<Result<Vec<_>, _>>()?;
    // The ends in this process: without these, the queue ends when the writers do, and putting
    // fails if all readers die.
    drop((producer, consumer));
    for has_item in have_items {
        // `Disconnected` if the reader has ended: without an item, or because it was killed.
        let _: Result<(), _> = has_item.recv();
    }
    drop(not_yet);

    for process in writers.into_iter().chain(readers) {
        process.join()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the number of items: the argument, or 50.
fn items() -> Result<usize, String> {
    let mut args = env::args_os().skip(1);
    let Some(arg) = args.next() else { return Ok(50) };
    let items = arg.to_str().and_then(|items| items.parse().ok()).filter(|&items| items > 0);
    match (items, args.next()) {
        (Some(items), None) => Ok(items),
        (None, _) => Err(format!("ITEMS is a number from 1 on, and not {}", arg.display())),
        (_, Some(more)) => Err(format!("{} is one argument too many", more.display())),
    }
}

/// Returns the number of items that writer `i` puts.
fn share(items: usize, i: usize) -> usize {
    items / WRITERS + usize::from(i < items % WRITERS)
}

fn write(queue: Producer<String>, items: usize) {
    for _ in 0..items {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let item = format!("process number {} : time: {time:.6}", process::id());
        queue.put(item).unwrap();
    }
}

fn read(queue: Consumer<String>, printing: Lock, has_item: Sender<()>) {
    for (i, item) in queue.iter().enumerate() {
        let item = item.unwrap();
        if i == 0 {
            has_item.send(()).unwrap();
        }
        // If a reader died with the lock, its line was printed or not: nothing is to be repaired.
        let guard = printing.lock().unwrap_or_else(|abandoned| abandoned.into_guard());
        println!("{}(get): {item}", process::id());
        drop(guard);
    }
}
