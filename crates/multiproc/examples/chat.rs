//! Separately started programs talk through a manager: each line is sent to all other programs.
//!
//! In one terminal:
//!
//! ```text
//! cargo run --bin multiproc-manager -- serve @chat
//! ```
//!
//! In two others, each with its own name:
//!
//! ```text
//! cargo run --example chat -- @chat Ada
//! ```
//!
//! Typing a line sends it; the end of the input leaves the chat. To list the members, run `cargo
//! run --bin multiproc-manager -- watch @chat`.

use std::error::Error;
use std::process::ExitCode;
use std::{env, io, thread};

use multiproc::{Manager, Queue, Shutdown};

/// A name and a text.
type Line = (String, String);

/// A member that falls behind by this many lines misses the next ones.
const LINES: usize = 1000;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let _runtime = multiproc::init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, name] = &arguments[..] else {
        eprintln!("usage: chat ADDRESS NAME");
        return Ok(ExitCode::from(2));
    };
    let manager = match Manager::connect(address) {
        Ok(manager) => manager,
        Err(error) => {
            eprintln!("{address}: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };

    // Each member has a queue, which the others find by its name.
    let mine = manager.queue::<Line>(mailbox(name), LINES)?;
    if mine.is_shut_down() {
        eprintln!("{name} has just left: choose another name, or try again");
        return Ok(ExitCode::FAILURE);
    }
    let lines = mine.clone();
    let reader = thread::spawn(move || {
        for line in lines.iter() {
            match line {
                Ok((who, text)) => println!("{who}: {text}"),
                Err(error) => eprintln!("{error}"),
            }
        }
    });
    say(&manager, name, "is here")?;
    for text in io::stdin().lines() {
        say(&manager, name, &text?)?;
    }
    say(&manager, name, "has left")?;
    manager.remove(&mailbox(name))?;
    mine.shutdown(Shutdown::Drain); // ends the reader
    if reader.join().is_err() {
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn mailbox(name: &str) -> String {
    format!("chat {name}")
}

/// Sends a line to all other members.
fn say(manager: &Manager, me: &str, text: &str) -> Result<(), Box<dyn Error>> {
    for info in manager.list()? {
        let is_other = info.name.starts_with("chat ") && info.name != mailbox(me);
        // A queue without members belongs to a process that was killed.
        if is_other && info.members > 0 {
            let queue: Queue<Line> = manager.queue(&info.name, info.capacity)?;
            if let Err(error) = queue.try_put((me.to_owned(), text.to_owned())) {
                eprintln!("{}: {error}", info.name);
            }
        }
    }
    Ok(())
}
