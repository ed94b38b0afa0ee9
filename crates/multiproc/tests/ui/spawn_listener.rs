use multiproc::Process;
use std::net::TcpListener;

fn serve(listener: TcpListener, limit: u32) {
    for stream in listener.incoming().take(limit as usize) {
        drop(stream);
    }
}

fn main() {
    let _runtime = multiproc::init();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _ = Process::spawn(serve, (listener, 3));
}
