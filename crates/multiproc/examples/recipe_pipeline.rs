//! A pipeline: stages that run at the same time, and wait for the slowest of them.

use std::error::Error;

use multiproc::{Consumer, Process, Producer, RemoteError, queue};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    // A stage that is faster than the next one waits in `put` when eight items are queued.
    let (lines_in, lines) = queue::channel(8)?;
    let (words_in, words) = queue::channel(8)?;
    let (counts_in, counts) = queue::channel(8)?;

    // Each end moves into the stage that uses it. A queue ends when all of its producers are gone,
    // whether they were dropped or their processes were killed.
    let reader = Process::spawn(read, lines_in)?;
    let splitters = [
        Process::spawn(split, (lines.clone(), words_in.clone()))?,
        Process::spawn(split, (lines, words_in))?,
    ];
    let counter = Process::spawn(count, (words, counts_in))?;

    let total = counts.iter().sum::<Result<usize, _>>()?;
    // The end comes as well when a stage dies. This shows whether one did.
    reader.join_result()?;
    for splitter in splitters {
        splitter.join_result()?;
    }
    println!("{} words, {total} letters", counter.join_result()?);
    Ok(())
}

fn read(lines: Producer<String>) -> Result<(), RemoteError> {
    for n in 0..1000 {
        lines.put(format!("this is line {n}"))?;
    }
    Ok(())
}

fn split(lines: Consumer<String>, words: Producer<String>) -> Result<(), RemoteError> {
    for line in lines {
        for word in line?.split_whitespace() {
            words.put(word.to_owned())?;
        }
    }
    Ok(())
}

fn count(words: Consumer<String>, counts: Producer<usize>) -> Result<usize, RemoteError> {
    let mut number = 0;
    for word in words {
        counts.put(word?.chars().filter(|c| c.is_alphabetic()).count())?;
        number += 1;
    }
    Ok(number)
}
