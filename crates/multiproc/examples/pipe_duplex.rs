//! A two-way pipe between two processes: each sends five messages and receives five.
//!
//! ```text
//! cargo run --example pipe_duplex
//! ```
//!
//! Each direction has its own type: numbers go one way, and strings come back.

use std::error::Error;

use multiproc::{Connection, Process, duplex};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let (left, right) = duplex()?;

    let asks = Process::spawn(ask, left)?;
    let answers = Process::spawn(answer, right)?;
    asks.join()?;
    answers.join()?;
    Ok(())
}

fn ask(left: Connection<u32, String>) {
    for i in 0..5 {
        println!("left: send {i}");
        left.send(i).unwrap();
        println!("left: recv {}", left.recv().unwrap());
    }
}

fn answer(right: Connection<String, u32>) {
    for _ in 0..5 {
        let i = right.recv().unwrap();
        println!("right: recv {i}");
        // Printed before it is sent. After that, it is the other side's turn to print.
        println!("right: send answer {i}");
        right.send(format!("answer {i}")).unwrap();
    }
}
