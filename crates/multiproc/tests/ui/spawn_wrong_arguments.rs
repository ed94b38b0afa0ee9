use multiproc::Process;

fn none() {}

fn one(n: u32) -> u32 {
    n
}

fn two(a: u32, b: u32) -> u32 {
    a + b
}

fn main() {
    let _runtime = multiproc::init();
    let _ = Process::spawn(none, 5);
    let _ = Process::spawn(one, ());
    let _ = Process::spawn(one, (1, 2));
    let _ = Process::spawn(two, 1);
    let _ = Process::spawn(two, (1, 2, 3));
    let _ = Process::spawn(two, (1, "x"));
    let _ = Process::spawn(|a: u32, b: u32| a + b, (1, 2, 3));
}
