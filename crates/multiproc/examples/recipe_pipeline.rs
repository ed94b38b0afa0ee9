//! A pipeline: stages that run at the same time, and wait for the slowest of them.

use std::error::Error;

use multiproc::{Consumer, Process, Producer, Queue};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    // A stage that is faster than the next one waits in `put` when eight items are queued.
    let (lines, words, counts) = (Queue::bounded(8)?, Queue::bounded(8)?, Queue::bounded(8)?);

    let reader = Process::spawn(read, lines.producer())?;
    let splitters = (0..2)
        .map(|_| Process::spawn(split, (lines.consumer(), words.producer())))
        .collect::<Result<Vec<_>, _>>()?;
    let counter = Process::spawn(count, (words.consumer(), counts.producer()))?;

    // Close what this process does not use. A queue ends when all of its producers are gone,
    // whether they were dropped or their processes were killed.
    let results = counts.consumer();
    drop((lines, words, counts));

    let total = results.iter().sum::<Result<usize, _>>()?;
    reader.join()?;
    for splitter in splitters {
        splitter.join()?;
    }
    println!("{} words, {total} letters", counter.join()?);
    Ok(())
}

fn read(lines: Producer<String>) {
    for n in 0..1000 {
        lines.put(format!("this is line {n}")).expect("a splitter lives");
    }
}

fn split((lines, words): (Consumer<String>, Producer<String>)) {
    for line in lines.iter() {
        for word in line.expect("the queue of lines works").split_whitespace() {
            words.put(word.to_owned()).expect("the counter lives");
        }
    }
}

fn count((words, counts): (Consumer<String>, Producer<usize>)) -> usize {
    let mut number = 0;
    for word in words.iter() {
        let word = word.expect("the queue of words works");
        let letters = word.chars().filter(|c| c.is_alphabetic()).count();
        counts.put(letters).expect("the main process lives");
        number += 1;
    }
    number
}
