use multiproc::Process;

fn greet(name: &str) -> usize {
    name.len()
}

fn main() {
    let _runtime = multiproc::init();
    let _ = Process::spawn(greet, "world");
}
