//! Select: wait for a result, a message or a worker's death, whichever comes first.

use std::error::Error;
use std::time::Duration;

use multiproc::{Process, Producer, Queue, Sender, Source, WaitSet, simplex, wait};

const NOW: Option<Duration> = Some(Duration::ZERO);

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    // One set for each kind of source. A set is a source itself.
    let (mut results, mut messages) = (WaitSet::new(), WaitSet::new());
    let mut workers = WaitSet::new();

    let queue = Queue::bounded(16)?;
    for n in 0..4 {
        let (receiver, sender) = simplex()?;
        messages.add(receiver);
        let builder = Process::builder().name(format!("worker-{n}"));
        workers.add(builder.spawn(work, (n, queue.producer(), sender))?);
    }
    results.add(queue.consumer());
    drop(queue); // only the workers can put: when they are gone, the queue ends

    let (mut total, mut ends) = (0, Vec::new());
    while !(results.is_empty() && messages.is_empty() && workers.is_empty()) {
        // Sleeps until there is something to do. No timeout is needed: an item, a message, the end
        // of a queue or connection, and the death of a process all wake it.
        wait([&results as &dyn Source, &messages, &workers], None)?;
        for token in results.wait(NOW)? {
            match results[token].try_get() {
                Ok(result) => total += result,
                Err(error) if error.is_empty() => {}
                // No producer is left, and all results have been received.
                Err(_) => drop(results.remove(token)),
            }
        }
        for token in messages.wait(NOW)? {
            match messages[token].recv() {
                Ok(text) => println!("{text}"),
                // The worker has ended, or was killed within a message.
                Err(_) => drop(messages.remove(token)),
            }
        }
        for token in workers.wait(NOW)? {
            let Some(worker) = workers.remove(token) else { continue };
            let name = worker.name().to_owned();
            // A program that needs all results would start another worker here.
            ends.push(match worker.join() {
                Ok(count) => format!("{name}: {count} results"),
                Err(error) => format!("{name}: {error}"),
            });
        }
    }
    ends.sort();
    println!("{}\ntotal {total}", ends.join("\n"));
    Ok(())
}

fn work((n, results, messages): (u64, Producer<u64>, Sender<String>)) -> u64 {
    let mut count = 0;
    for i in 0..100 {
        if n == 2 && i == 50 {
            messages.send("worker-2 is about to crash".to_owned()).expect("the main process lives");
            std::process::abort();
        }
        results.put(n * i).expect("the main process lives");
        count += 1;
    }
    count
}
