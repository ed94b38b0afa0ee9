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

use multiproc::{Lock, Process, Queue};

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

    // The queue holds items, and one `None` per reader, which ends it.
    let queue = Queue::bounded(3)?;
    let printing = Lock::new()?;
    let started = Queue::bounded(READERS)?;

    // The readers cannot print yet, and a reader that cannot print does not get another item. So
    // the first ten items go to ten readers, and not all to the fastest.
    let not_yet = printing.lock().expect("no process died with it");
    let readers = (0..READERS)
        .map(|_| Process::spawn(read, (queue.clone(), printing.clone(), started.clone())))
        .collect::<Result<Vec<_>, _>>()?;
    let writers = (0..WRITERS)
        .map(|i| Process::spawn(write, (queue.clone(), share(items, i))))
        .collect::<Result<Vec<_>, _>>()?;
    for _ in 0..items.min(READERS) {
        started.get()?;
    }
    drop(not_yet);

    for writer in writers {
        writer.join()?;
    }
    // Items come out in the order in which they were put: the `None`s come last.
    for _ in 0..READERS {
        queue.put(None)?;
    }
    for reader in readers {
        reader.join()?;
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

fn write((queue, items): (Queue<Option<String>>, usize)) {
    for _ in 0..items {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let item = format!("process number {} : time: {time:.6}", process::id());
        queue.put(Some(item)).unwrap();
    }
}

fn read((queue, printing, started): (Queue<Option<String>>, Lock, Queue<()>)) {
    let mut next = queue.get().unwrap();
    started.put(()).unwrap();
    while let Some(item) = next {
        let guard = printing.lock().expect("no reader died while it printed");
        println!("{}(get): {item}", process::id());
        drop(guard);
        next = queue.get().unwrap();
    }
}
