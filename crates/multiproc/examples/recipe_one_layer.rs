//! One layer alone: pipe, queue and sync without the facade. The child is started by `Command`,
//! and gets one socket as its standard input; the other handles come over it in a message.

use std::error::Error;
use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use multiproc_pipe::Connection;
use multiproc_queue::{Consumer, channel};
use multiproc_sync::Mutex;

/// What the parent sends: handles travel in any message, as descriptors beside the bytes.
type Handles = (Consumer<u32>, Mutex<u64>);

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("child") => child(),
        _ => parent(),
    }
}

fn parent() -> Result<(), Box<dyn Error>> {
    let (numbers, consumer) = channel(10)?;
    let sum = Mutex::new(0)?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("child")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let connection = Connection::<Handles, u32>::from_socket(ours.into())?;
    // The consumer moves to the child. If the child dies, `put` fails instead of waiting.
    connection.send((consumer, sum.clone()))?;

    for n in 1..=100 {
        numbers.put(n)?;
    }
    drop(numbers); // the child gets what is left, and then the end
    let count = connection.recv()?; // `Disconnected` if the child dies before
    let sum = *sum.lock().map_err(|_| "the child died under the lock")?;
    println!("the child added {count} numbers: {sum}");
    child.wait()?;
    Ok(())
}

fn child() -> Result<(), Box<dyn Error>> {
    let socket = stdin().as_fd().try_clone_to_owned()?;
    let connection = Connection::<u32, Handles>::from_socket(socket)?;
    let (numbers, sum) = connection.recv()?;
    let mut count = 0;
    for n in numbers {
        *sum.lock().map_err(|_| "the parent died under the lock")? += u64::from(n?);
        count += 1;
    }
    connection.send(count)?;
    Ok(())
}
