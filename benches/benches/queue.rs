//! Queues between processes, beside crossbeam-channel between threads.
//!
//! W1: one producer, one consumer, a 64-byte struct, 1024 places. The consumer is this process; the
//! producer is another one, told over a pipe how many items to put. Each iteration is one item, all
//! the way from the value on one side to the value on the other.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use multiproc::pipe::{Receiver, simplex};
use multiproc::{Process, Queue};
use serde::{Deserialize, Serialize};

const CAPACITY: usize = 1024;

/// 64 bytes, as a program would have them: an id, some numbers, some flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Item {
    id: u64,
    values: [u64; 6],
    kind: u32,
    flags: u32,
}

const _: () = assert!(size_of::<Item>() == 64);

impl Item {
    fn new(id: u64) -> Self {
        Self { id, values: [id, 1, 2, 3, 4, 5], kind: 6, flags: 7 }
    }
}

fn produce((orders, queue): (Receiver<u64>, Queue<Item>)) {
    while let Ok(count) = orders.recv() {
        for id in 0..count {
            queue.put(Item::new(black_box(id))).unwrap();
        }
    }
}

fn ours(iterations: u64) -> Duration {
    let (orders, order) = simplex().unwrap();
    let queue = Queue::bounded(CAPACITY).unwrap();
    let producer = Process::spawn(produce, (orders, queue.clone())).unwrap();
    // The first item shows that the producer is up.
    order.send(1).unwrap();
    black_box(queue.get().unwrap());
    let start = Instant::now();
    order.send(iterations).unwrap();
    for id in 0..iterations {
        assert_eq!(black_box(queue.get().unwrap()).id, id);
    }
    let time = start.elapsed();
    drop(order);
    producer.join().unwrap();
    time
}

fn crossbeam(iterations: u64) -> Duration {
    let (sender, receiver) = crossbeam_channel::bounded(CAPACITY);
    let (order, orders) = crossbeam_channel::bounded::<u64>(1);
    let producer = thread::spawn(move || {
        while let Ok(count) = orders.recv() {
            for id in 0..count {
                sender.send(Item::new(black_box(id))).unwrap();
            }
        }
    });
    order.send(1).unwrap();
    black_box(receiver.recv().unwrap());
    let start = Instant::now();
    order.send(iterations).unwrap();
    for id in 0..iterations {
        assert_eq!(black_box(receiver.recv().unwrap()).id, id);
    }
    let time = start.elapsed();
    drop(order);
    producer.join().unwrap();
    time
}

fn main() {
    let _runtime = multiproc::init();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("queue/W1 one to one");
    group.throughput(Throughput::Elements(1));
    group.bench_function("multiproc, processes", |b| b.iter_custom(ours));
    group.bench_function("crossbeam-channel, threads", |b| b.iter_custom(crossbeam));
    group.finish();
    criterion.final_summary();
}
