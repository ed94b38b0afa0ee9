use multiproc::{Process, Queue};

fn main() {
    let _runtime = multiproc::init();
    let queue = Queue::bounded(1).unwrap();
    let _ = Process::spawn(|(queue, n)| queue.put(n).unwrap(), (queue, 5));
}
