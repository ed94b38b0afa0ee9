//! Compares queues between processes with crossbeam-channel between threads.
//!
//! Items are structs of 64 bytes unless stated otherwise, and those of the queue are encoded by
//! serde. A queue holds 1024 items. Producers and consumers are processes that are told over a pipe
//! how many items to put or get. A single consumer is this process. Contestants take turns, and
//! each ratio is of two turns of the same round.

use std::env;
use std::fs;
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Instant;

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};
use multiproc::Queue;
use multiproc::pipe::{Bytes, Descriptor, Receiver};
use multiproc_benches::item::Item;
use multiproc_benches::other::{Other, OtherThread, obey};
use multiproc_benches::rounds::Contest;
use multiproc_testkit::Census;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

const CAPACITY: usize = 1024;
const MIB: usize = 1024 * 1024;

fn thread_producer(sender: crossbeam_channel::Sender<Item>) -> OtherThread {
    OtherThread::start(move |count| {
        (0..count).for_each(|id| sender.send(Item::new(black_box(id))).unwrap());
    })
}

fn producer(queue: &Queue<Item>) -> Other {
    Other::start(
        |(orders, queue): (_, Queue<Item>)| {
            obey(&orders, |id| queue.put(Item::new(black_box(id))).unwrap());
        },
        queue.clone(),
    )
}

/// Starts a process that gets as many items as it is told, and confirms over the second queue.
fn consumer(queue: &Queue<Item>, done: &Queue<()>) -> Other {
    Other::start(
        |(orders, (queue, done)): (Receiver<u64>, (Queue<Item>, Queue<()>))| {
            while let Ok(count) = orders.recv() {
                (0..count).for_each(|_| _ = black_box(queue.get().unwrap()));
                done.put(()).unwrap();
            }
        },
        (queue.clone(), done.clone()),
    )
}

fn one_to_one() {
    let queue = Queue::bounded(CAPACITY).unwrap();
    let ours = producer(&queue);
    let (sender, receiver) = crossbeam_channel::bounded(CAPACITY);
    let theirs = thread_producer(sender);
    let recv_theirs = |count| {
        let start = Instant::now();
        theirs.order(count);
        (0..count).for_each(|id| assert_eq!(black_box(receiver.recv().unwrap()).id, id));
        start.elapsed()
    };
    Contest::new("1 producer, 1 consumer", "crossbeam-channel, threads", recv_theirs)
        .with("multiproc, processes", |count| {
            ours.time(count, |id| assert_eq!(black_box(queue.get().unwrap()).id, id))
        })
        .run();
    ours.stop();

    let queue = Queue::bounded(CAPACITY).unwrap();
    let ours = Other::start(
        |(orders, queue): (Receiver<u64>, Queue<Item>)| {
            while let Ok(count) = orders.recv() {
                let mut ids = 0..count;
                while !ids.is_empty() {
                    queue.put_many(ids.by_ref().take(100).map(Item::new)).unwrap();
                }
            }
        },
        queue.clone(),
    );
    Contest::new(
        "1 producer, 1 consumer, batches of 100",
        "crossbeam-channel, threads, one by one",
        recv_theirs,
    )
    .with("multiproc, processes, put_many and get_many", |count| {
        let start = Instant::now();
        ours.order(count);
        let mut left = count;
        while left > 0 {
            left -= black_box(queue.get_many(100).unwrap()).len() as u64;
        }
        start.elapsed()
    })
    .run();
    ours.stop();
    theirs.stop();
}

/// Measures `sides` producers and as many consumers.
fn many_to_many(title: &'static str, sides: usize, capacity: usize) {
    let queue = Queue::bounded(capacity).unwrap();
    let done = Queue::unbounded().unwrap();
    let producers: Vec<_> = (0..sides).map(|_| producer(&queue)).collect();
    let consumers: Vec<_> = (0..sides).map(|_| consumer(&queue, &done)).collect();
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    let their_producers: Vec<_> = (0..sides).map(|_| thread_producer(sender.clone())).collect();
    let (finished, theirs_done) = crossbeam_channel::unbounded();
    let their_consumers: Vec<_> = (0..sides)
        .map(|_| {
            let (receiver, finished) = (receiver.clone(), finished.clone());
            OtherThread::start(move |count| {
                (0..count).for_each(|_| _ = black_box(receiver.recv().unwrap()));
                finished.send(()).unwrap();
            })
        })
        .collect();
    let share = |count: u64| count.div_ceil(sides as u64);
    Contest::new(title, "crossbeam-channel, threads", |count| {
        let start = Instant::now();
        their_consumers.iter().for_each(|thread| thread.order(share(count)));
        their_producers.iter().for_each(|thread| thread.order(share(count)));
        (0..sides).for_each(|_| theirs_done.recv().unwrap());
        start.elapsed()
    })
    .with("multiproc, processes", |count| {
        let start = Instant::now();
        consumers.iter().for_each(|process| process.order(share(count)));
        producers.iter().for_each(|process| process.order(share(count)));
        (0..sides).for_each(|_| done.get().unwrap());
        start.elapsed()
    })
    .run();
    producers.into_iter().chain(consumers).for_each(Other::stop);
    their_producers.into_iter().chain(their_consumers).for_each(OtherThread::stop);
}

fn four_to_four() {
    many_to_many("4 producers, 4 consumers", 4, CAPACITY);
}

fn ten_to_ten() {
    many_to_many("capacity 3, 10 producers, 10 consumers", 10, 3);
}

fn round_trip() {
    let [there, back] = [(); 2].map(|()| Queue::bounded(CAPACITY).unwrap());
    let ours = Other::start(
        |(orders, (there, back)): (_, (Queue<Item>, Queue<Item>))| {
            obey(&orders, |_| back.put(there.get().unwrap()).unwrap());
        },
        (there.clone(), back.clone()),
    );
    let (sender, their_there) = crossbeam_channel::bounded::<Item>(CAPACITY);
    let (their_back, receiver) = crossbeam_channel::bounded(CAPACITY);
    let theirs = OtherThread::start(move |count| {
        (0..count).for_each(|_| their_back.send(their_there.recv().unwrap()).unwrap());
    });
    Contest::new("round trip over two queues", "crossbeam-channel, threads", |count| {
        let start = Instant::now();
        theirs.order(count);
        for id in 0..count {
            sender.send(Item::new(id)).unwrap();
            assert_eq!(receiver.recv().unwrap().id, id);
        }
        start.elapsed()
    })
    .with("multiproc, processes", |count| {
        ours.time(count, |id| {
            there.put(Item::new(id)).unwrap();
            assert_eq!(back.get().unwrap().id, id);
        })
    })
    .run();
    ours.stop();
    theirs.stop();
}

fn megabytes() {
    let (bare_ours, bare_theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let bare = Other::start(
        |(orders, socket): (_, Descriptor)| {
            let (socket, bytes) = (OwnedFd::from(socket), vec![1; MIB]);
            obey(&orders, |_| {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    rest = &rest[send(&socket, rest, SendFlags::NOSIGNAL).unwrap()..];
                }
            });
        },
        Descriptor::from(bare_theirs),
    );
    let queue = Queue::<Bytes>::bounded(8).unwrap();
    let ours = Other::start(
        |(orders, queue): (_, Queue<Bytes>)| {
            // The queue returns the bytes only in an error, so each item is created anew.
            obey(&orders, |_| queue.put(Bytes(vec![1; MIB])).unwrap());
        },
        queue.clone(),
    );
    let mut bytes = vec![0; MIB];
    Contest::new("1 MiB, capacity 8", "bare send and recv on a stream socket", |count| {
        bare.time(count, |_| {
            let mut at = 0;
            while at < MIB {
                at += recv(&bare_ours, &mut bytes[at..], RecvFlags::empty()).unwrap().0;
            }
        })
    })
    .with("multiproc, Bytes", |count| {
        ours.time(count, |_| assert_eq!(black_box(queue.get().unwrap()).0.len(), MIB))
    })
    .run();
    [bare, ours].into_iter().for_each(Other::stop);
}

/// Puts and gets one item repeatedly behind `length` others.
fn backlog() {
    let with = |length: u64| {
        let queue = Queue::unbounded().unwrap();
        queue.put_many((0..length).map(Item::new)).unwrap();
        queue
    };
    let once = |queue: &Queue<Item>, count: u64| {
        let start = Instant::now();
        for id in 0..count {
            queue.put(Item::new(black_box(id))).unwrap();
            black_box(queue.get().unwrap());
        }
        start.elapsed()
    };
    let (short, long) = (with(1_000), with(1_000_000));
    Contest::new("put + get, one process", "1,000 queued items", |count| once(&short, count))
        .with("1,000,000 queued items", |count| once(&long, count))
        .run();
}

fn footprint() {
    let resident = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssShmem")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    // The first queue of a process costs more than later ones.
    drop(Queue::<Item>::unbounded().unwrap());
    let (before, shared) = (Census::take(), resident());
    let queue = Queue::<Item>::unbounded().unwrap();
    let (after, more) = (Census::take(), resident() - shared);
    println!("\n| empty queue | |\n|---|---|");
    println!("| descriptors | {} |", after.descriptors - before.descriptors);
    println!("| resident, KiB | {more} |");
    drop(queue);
}

/// Measures the same work with other libraries if the command line contains `--peers`.
/// `cargo xtask bench --peers` installs those in Python.
fn peers() {
    if !env::args().any(|arg| arg == "--peers") {
        return;
    }
    let queue = Queue::bounded(CAPACITY).unwrap();
    let ours = producer(&queue);
    let (server, name) = IpcOneShotServer::<IpcReceiver<Item>>::new().unwrap();
    let theirs = Other::start(
        |(orders, name): (_, String)| {
            let (sender, receiver) = ipc::channel::<Item>().unwrap();
            IpcSender::connect(name).unwrap().send(receiver).unwrap();
            obey(&orders, |id| sender.send(Item::new(black_box(id))).unwrap());
        },
        name,
    );
    let (_, receiver) = server.accept().unwrap();
    Contest::new("1 producer, 1 consumer, other libraries", "ipc-channel, processes", |count| {
        theirs.time(count, |id| assert_eq!(black_box(receiver.recv().unwrap()).id, id))
    })
    .with("multiproc, processes", |count| {
        ours.time(count, |id| assert_eq!(black_box(queue.get().unwrap()).id, id))
    })
    .run();
    [theirs, ours].into_iter().for_each(Other::stop);

    let python = env::var_os("MULTIPROC_PEERS_PYTHON").unwrap_or_else(|| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/queues.py");
    match Command::new(python).arg(script).status() {
        Ok(status) if status.success() => {}
        Ok(status) => println!("the libraries for Python failed: {status}"),
        Err(error) => println!("cannot start the libraries for Python: {error}"),
    }
}

fn main() {
    let _runtime = multiproc::init();
    multiproc_benches::run(&[
        ("one_to_one", one_to_one),
        ("four_to_four", four_to_four),
        ("ten_to_ten", ten_to_ten),
        ("round_trip", round_trip),
        ("megabytes", megabytes),
        ("backlog", backlog),
        ("footprint", footprint),
        ("peers", peers),
    ]);
}
