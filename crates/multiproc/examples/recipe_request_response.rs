//! Request and response: each request carries the end of a pipe on which its answer comes.

use std::error::Error;

use multiproc::pipe::RecvError;
use multiproc::queue::PutError;
use multiproc::{Consumer, Process, Producer, RemoteError, Sender, queue, simplex};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Request {
    text: String,
    reply: Sender<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let (requests, inbox) = queue::channel(16)?;
    let servers = [Process::spawn(serve, inbox.clone())?, Process::spawn(serve, inbox)?];
    let clients = ["ada", "grace", "edsger"]
        .map(|name| Process::spawn(ask, (name.to_owned(), requests.clone())));
    drop(requests); // the servers end when the last client has ended

    for client in clients {
        println!("{}", client?.join_result()?);
    }
    for server in servers {
        server.join_result()?;
    }
    Ok(())
}

fn serve(inbox: Consumer<Request>) -> Result<(), RemoteError> {
    for request in inbox {
        let Request { text, reply } = request?;
        if text == "grace" {
            continue; // `reply` is dropped without an answer
        }
        // An error here means that the client has gone. The server goes on.
        let _ = reply.send(text.to_uppercase());
    }
    Ok(())
}

fn ask(name: String, requests: Producer<Request>) -> Result<String, RemoteError> {
    let (answer, reply) = simplex()?;
    let request = Request { text: name.clone(), reply };
    requests.put(request).map_err(PutError::without_value)?; // `reply` is not `Sync`
    // The server has the only sender. If it drops it or is killed, `recv` returns `Disconnected`.
    match answer.recv() {
        Ok(answer) => Ok(format!("{name}: {answer}")),
        Err(RecvError::Disconnected) => Ok(format!("{name}: no answer")),
        Err(error) => Err(error.into()),
    }
}
