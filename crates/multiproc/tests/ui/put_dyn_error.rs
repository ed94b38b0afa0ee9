use multiproc::Queue;
use std::error::Error;

fn main() {
    let results: Queue<Result<u32, Box<dyn Error>>> = Queue::bounded(1).unwrap();
    results.put(Ok(1)).unwrap();
}
