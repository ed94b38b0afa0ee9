use multiproc::{Process, Queue};

fn work(queue: Queue<u32>) -> ! {
    loop {
        println!("{}", queue.get().unwrap());
    }
}

fn main() {
    let _runtime = multiproc::init();
    let queue = Queue::bounded(1).unwrap();
    let _ = Process::spawn(work, queue);
}
