//! A queue of a manager, used by two processes.
//!
//! ```text
//! cargo run --example manager_queue
//! ```

use std::error::Error;

use multiproc::{Manager, Process};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let manager = Manager::start()?;
    let queue = manager.queue::<u32>("numbers", 2)?;
    queue.put(1)?;
    queue.try_put(2)?;
    println!("size {}", queue.len());
    println!("full {}", queue.is_full());

    // The queue could be passed as well, but a process that has the manager can request it.
    let child = Process::spawn(get_one, manager.clone())?;
    println!("{}", child.join()?);

    println!("empty {}", queue.is_empty());
    println!("get {}", queue.get()?);
    match queue.try_get() {
        Ok(number) => println!("get {number}"),
        Err(error) => println!("{error}"),
    }
    Ok(())
}

fn get_one(manager: Manager) -> u32 {
    let queue = manager.queue::<u32>("numbers", 2).unwrap();
    queue.get().unwrap()
}
