//! Two programs that start apart meet by name: run one with `serve ADDRESS`, others with `ask
//! ADDRESS NUMBER…`. An address is a path, or a name after `@` that leaves no file.

use std::error::Error;
use std::time::Duration;

use multiproc::{Manager, Sender, simplex};

/// A number, and where its answer goes.
type Request = (u64, Sender<u64>);

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
    let requests = manager.queue::<Request>("requests", 16)?;
    println!("ready");
    // For this recipe, a server that has had nothing to do for a second ends.
    let mut answered = 0;
    while let Ok((number, reply)) = requests.get_timeout(Duration::from_secs(1)) {
        // An error here means that the client has gone. The server goes on.
        let _ = reply.send(number * number);
        answered += 1;
    }
    println!("answered {answered}");
    Ok(())
}

fn ask(address: &str, numbers: &[&str]) -> Result<(), Box<dyn Error>> {
    let manager = Manager::connect(address)?;
    // Only the producer's end: then this process does not keep a request that nobody answers.
    let requests = manager.queue::<Request>("requests", 16)?.into_producer();
    for number in numbers {
        let (answer, reply) = simplex()?;
        requests.put((number.parse()?, reply))?;
        // From here on the manager is not involved: the queue is shared memory. If the server dies,
        // its copy of `reply` is closed, and `recv` returns `Disconnected`.
        println!("{number} squared is {}", answer.recv()?);
    }
    Ok(())
}
