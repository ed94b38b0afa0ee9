//! Compares a manager's queue with one that was passed as an argument, and opening by name with a
//! round trip over a bare socket.
//!
//! Contestants take turns, and each ratio is of two turns of the same round.

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use multiproc::pipe::Descriptor;
use multiproc::{Manager, Process, Queue};
use multiproc_benches::item::Item;
use multiproc_benches::machine;
use multiproc_benches::one_cpu::OneCpu;
use multiproc_benches::other::{Other, obey};
use multiproc_benches::rounds::Contest;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

const CAPACITY: usize = 1024;

/// Measures `count` times one put and one get in this process.
fn put_and_get(queue: &Queue<Item>, count: u64) -> Duration {
    let start = Instant::now();
    for id in 0..count {
        queue.put(Item::new(black_box(id))).unwrap();
        assert_eq!(black_box(queue.get().unwrap()).id, id);
    }
    start.elapsed()
}

fn produce((orders, queue): (multiproc::pipe::Receiver<u64>, Queue<Item>)) {
    obey(&orders, |id| queue.put(Item::new(black_box(id))).unwrap());
}

fn queues(manager: &Manager) {
    let passed = Queue::bounded(CAPACITY).unwrap();
    // Also open in another process, like the other queue.
    let elsewhere =
        Other::start(|(orders, _queue): (_, Queue<Item>)| obey(&orders, |_| {}), passed.clone());
    let named = manager.queue::<Item>("alone", CAPACITY).unwrap();
    Contest::new("put + get, one process", "queue passed as an argument", |count| {
        put_and_get(&passed, count)
    })
    .with("queue of a manager", |count| put_and_get(&named, count))
    .run();
    elsewhere.stop();

    let passed = Queue::bounded(CAPACITY).unwrap();
    let named = manager.queue::<Item>("shared", CAPACITY).unwrap();
    let producer = Other::start(produce, passed.clone());
    let other_producer = Other::start(
        |(orders, manager): (_, Manager)| {
            produce((orders, manager.queue("shared", CAPACITY).unwrap()));
        },
        manager.clone(),
    );
    let get = |queue: &Queue<Item>, producer: &Other, count| {
        producer.time(count, |id| assert_eq!(black_box(queue.get().unwrap()).id, id))
    };
    Contest::new("1 producer, 1 consumer", "queue passed as an argument", |count| {
        get(&passed, &producer, count)
    })
    .with("queue of a manager", |count| get(&named, &other_producer, count))
    .run();
    producer.stop();
    other_producer.stop();
}

/// Returns a stream socket and a process that echoes what arrives on it.
fn echo() -> (OwnedFd, Process) {
    let (here, there) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let answers = |Descriptor(socket): Descriptor| {
        let mut bytes = [0; 64];
        while recv(&socket, &mut bytes[..], RecvFlags::empty()).unwrap().0 > 0 {
            send(&socket, &bytes, SendFlags::empty()).unwrap();
        }
    };
    (here, Process::spawn(answers, Descriptor(there)).unwrap())
}

/// Measures how long opening takes, without the drop. The object is not open elsewhere in this
/// process.
fn opening<T>(count: u64, open: impl Fn() -> T) -> Duration {
    let mut time = Duration::ZERO;
    for _ in 0..count {
        let start = Instant::now();
        let object = black_box(open());
        time += start.elapsed();
        drop(object);
    }
    time
}

/// Measures opening by name. This process is restricted to the first CPU, the manager and the echo
/// process to the CPU at index `cpu`.
fn open_by_name(title: &'static str, cpu: usize) {
    let (manager, (socket, answers)) = {
        let _pinned = OneCpu::pin_to(cpu);
        (Manager::start().unwrap(), echo())
    };
    let _pinned = OneCpu::pin();
    let manager = &manager;
    let open_queue = || manager.queue::<Item>("opened", CAPACITY).unwrap();
    let open_lock = || manager.lock("lock").unwrap();
    Contest::new(title, "round trip over a bare socket", |count| {
        opening(count, || {
            let mut bytes = [0; 64];
            send(&socket, &bytes, SendFlags::empty()).unwrap();
            recv(&socket, &mut bytes[..], RecvFlags::empty()).unwrap();
        })
    })
    .with("open a lock", |count| opening(count, open_lock))
    .with("open a queue", |count| opening(count, open_queue))
    .with("open and drop a queue", |count| opening(count, || drop(open_queue())))
    .with("connect and open a queue", |count| {
        opening(count, || {
            let manager = Manager::connect(manager.address()).unwrap();
            manager.queue::<Item>("opened", CAPACITY).unwrap()
        })
    })
    .run();
    drop(socket);
    answers.join().unwrap();
}

fn main() {
    let _runtime = multiproc::init();
    machine::print();
    let manager = Manager::start().unwrap();
    queues(&manager);
    drop(manager);
    open_by_name("open by name, one CPU", 0);
    open_by_name("open by name, two CPUs", 1);
}
