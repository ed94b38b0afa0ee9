//! Two programs that start apart meet by name: run one with `serve ADDRESS`, others with `ask
//! ADDRESS NUMBER…`. An address is a path, or a name after `@` that leaves no file.

use std::error::Error;
use std::time::Duration;

use multiproc::{Manager, Queue};

/// A number, and the name of the queue for its answer.
type Requests = Queue<(u64, String)>;
type Answers = Queue<u64>;

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &arguments[..] {
        ["serve", address] => serve(address),
        ["ask", address, numbers @ ..] => ask(address, numbers),
        _ => Err("usage: serve ADDRESS, or ask ADDRESS NUMBER...".into()),
    }
}

fn serve(address: &str) -> Result<(), Box<dyn Error>> {
    let manager = Manager::builder().address(address).start()?;
    // Whichever side asks for a name first makes the queue.
    let requests: Requests = manager.queue("requests", 16)?;
    println!("ready");
    // For this recipe, a server that has had nothing to do for a second ends.
    let mut answered = 0;
    let mut patience = Duration::from_secs(60);
    while let Ok((number, name)) = requests.get_timeout(patience) {
        let answers: Answers = manager.queue(&name, 16)?;
        answers.put(number * number)?;
        manager.remove(&name)?; // the name; the queue stays while any process has it open
        answered += 1;
        patience = Duration::from_secs(1);
    }
    println!("answered {answered}");
    Ok(())
}

fn ask(address: &str, numbers: &[&str]) -> Result<(), Box<dyn Error>> {
    let manager = Manager::connect(address)?;
    let requests: Requests = manager.queue("requests", 16)?;
    for number in numbers {
        let name = format!("answer {} {number}", std::process::id());
        let answers: Answers = manager.queue(&name, 16)?;
        requests.put((number.parse()?, name))?;
        // From here on the manager is not involved: the queues are shared memory.
        println!("{number} squared is {}", answers.get_timeout(Duration::from_secs(10))?);
    }
    Ok(())
}
