//! Request and response: each request carries the end of a pipe on which its answer comes.

use std::error::Error;

use multiproc::pipe::{RecvError, Sender, simplex};
use multiproc::{Consumer, Process, Producer, Queue};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Request {
    text: String,
    reply: Sender<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let requests = Queue::bounded(16)?;
    let servers = (0..2)
        .map(|_| Process::spawn(serve, requests.consumer()))
        .collect::<Result<Vec<_>, _>>()?;
    let clients = ["ada", "grace", "edsger"]
        .map(|name| Process::spawn(ask, (name.to_owned(), requests.producer())));
    drop(requests); // the servers end when the last client has ended

    for client in clients {
        println!("{}", client?.join()?);
    }
    for server in servers {
        server.join()?;
    }
    Ok(())
}

fn serve(requests: Consumer<Request>) {
    for request in requests.iter() {
        let Request { text, reply } = request.expect("the queue of requests works");
        if text == "grace" {
            continue; // `reply` is dropped without an answer
        }
        // An error here means that the client has gone. The server goes on.
        let _ = reply.send(text.to_uppercase());
    }
}

fn ask((name, requests): (String, Producer<Request>)) -> String {
    let (answers, reply) = simplex().expect("two descriptors are free");
    requests.put(Request { text: name.clone(), reply }).expect("a server lives");
    // The server has the only sender. If it drops it or is killed, `recv` returns `Disconnected`.
    match answers.recv() {
        Ok(answer) => format!("{name}: {answer}"),
        Err(RecvError::Disconnected) => format!("{name}: no answer"),
        Err(error) => format!("{name}: {error}"),
    }
}
