//! Word count: workers share the lines, each returns its counts, and the main process adds them.

use std::collections::BTreeMap;
use std::error::Error;

use multiproc::{Consumer, Process, RemoteError, queue};

const LINE: &str = "the quick brown fox jumps over the lazy dog and the cat sleeps on";

type Counts = BTreeMap<String, u32>;

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init(); // the first statement: a child runs its function here
    let (lines, work) = queue::channel(100)?;
    let workers =
        (0..2).map(|_| Process::spawn(count, work.clone())).collect::<Result<Vec<_>, _>>()?;
    // Now only the workers can get: if all of them die, `put` fails and does not wait.
    drop(work);

    for _ in 0..1000 {
        lines.put(LINE.to_owned())?;
    }
    // Now no process can put: the workers get the remaining lines, and then the end.
    drop(lines);

    let mut total = Counts::new();
    for worker in workers {
        // The lines that a killed worker had counted are lost with it: this is an error then.
        for (word, count) in worker.join_result()? {
            *total.entry(word).or_default() += count;
        }
    }
    for (word, count) in total {
        println!("{count:6} {word}");
    }
    Ok(())
}

fn count(lines: Consumer<String>) -> Result<Counts, RemoteError> {
    let mut counts = Counts::new();
    for line in lines {
        for word in line?.split_whitespace() {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    Ok(counts)
}
