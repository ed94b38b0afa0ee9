use multiproc::Queue;

fn main() {
    let names = Queue::bounded(1).unwrap();
    names.put("world").unwrap();
    println!("{}", names.get().unwrap());
}
