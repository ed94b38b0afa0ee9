//! A one-way pipe between two processes that take turns.
//!
//! ```text
//! cargo run --example pipe_simplex
//! ```
//!
//! An end has one owner: passing it to a process moves it there.

use std::error::Error;

use multiproc::{Process, Receiver, Sender, simplex};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let (receiver, sender) = simplex()?;
    println!("({receiver}, {sender})");

    // A second pipe in the other direction: the receiver reports when it has printed, so that the
    // lines of the two processes alternate.
    let (is_printed, printed) = simplex()?;

    let sends = Process::spawn(send, (sender, is_printed))?;
    let receives = Process::spawn(receive, (receiver, printed))?;
    sends.join()?;
    receives.join()?;
    Ok(())
}

fn send((sender, is_printed): (Sender<u32>, Receiver<()>)) {
    for i in 0..5 {
        println!("send {i} to pipe");
        sender.send(i).unwrap();
        is_printed.recv().unwrap();
    }
}

fn receive((receiver, printed): (Receiver<u32>, Sender<()>)) {
    for _ in 0..5 {
        let i = receiver.recv().unwrap();
        println!("recv {i} from pipe");
        printed.send(()).unwrap();
    }
}
