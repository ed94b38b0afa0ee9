use multiproc::pipe::duplex;
use std::fs::File;

fn main() {
    let (left, _right) = duplex::<File, ()>().unwrap();
    left.send(File::open("data").unwrap()).unwrap();
}
