use multiproc::Process;
use std::fs::File;

fn size(file: File) -> u64 {
    file.metadata().unwrap().len()
}

fn main() {
    let _runtime = multiproc::init();
    let _ = Process::spawn(size, File::open("data").unwrap());
}
