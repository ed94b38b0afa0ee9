use multiproc::Queue;
use std::fs::File;

fn main() {
    let files = Queue::<File>::bounded(1).unwrap();
    files.put(File::open("data").unwrap()).unwrap();
}
