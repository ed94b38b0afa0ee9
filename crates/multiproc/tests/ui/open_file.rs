use multiproc::Manager;
use std::fs::File;

fn main() {
    let _runtime = multiproc::init();
    let manager = Manager::start().unwrap();
    let _ = manager.queue::<File>("files", 10);
}
