//! Waiting for queues together with other sources.

mod common;

use std::time::{Duration, Instant};
use std::{fs, thread};

use multiproc::Process;
use multiproc::pipe::{Connection, Sender, Source, duplex, simplex, wait};
use multiproc_queue::{Consumer, Producer, Queue, Shutdown, TryGetError};
use multiproc_testkit::{is_asleep, until, watchdog};
use rustix::net::{SendFlags, send};
use rustix::process::{Pid, Signal, kill_process};

use common::{RECOVERY, SOON, parts, until_asleep, within};

multiproc::enable_in_tests!();

const MOMENT: Option<Duration> = Some(Duration::from_millis(5));

/// Waits for a queue without a timeout, then gets, `count` times.
fn wait_and_get((queue, count): (Queue<u32>, usize)) -> Vec<u32> {
    let mut got = Vec::new();
    while got.len() < count {
        assert_eq!(wait([&queue], None).unwrap(), [0]);
        got.extend(queue.try_get());
    }
    got
}

#[test]
fn queue_is_ready_if_get_would_not_wait() {
    let _dog = watchdog();
    let (first, second) = (Queue::bounded(2).unwrap(), Queue::unbounded().unwrap());
    let (left, right) = duplex::<u8, u8>().unwrap();
    let sources: [&dyn Source; 3] = [&first, &left, &second];
    assert!(wait(sources, MOMENT).unwrap().is_empty());
    assert!(wait(sources, Some(Duration::ZERO)).unwrap().is_empty());
    second.put(1).unwrap();
    assert_eq!(wait(sources, None).unwrap(), [2]);
    assert_eq!(wait(sources, Some(Duration::MAX)).unwrap(), [2], "it stays ready");
    right.send(1).unwrap();
    first.put("text".to_owned()).unwrap();
    assert_eq!(wait(sources, None).unwrap(), [0, 1, 2]);
    second.get().unwrap();
    left.recv().unwrap();
    assert_eq!(wait(sources, None).unwrap(), [0]);
    first.get().unwrap();
    assert!(wait(sources, MOMENT).unwrap().is_empty());
    second.shutdown(Shutdown::Drain);
    assert_eq!(wait(sources, None).unwrap(), [2]);
}

#[test]
fn wait_for_a_queue_and_a_process() {
    let _dog = watchdog();
    let queue = Queue::bounded(2).unwrap();
    let get = |queue: Queue<u32>| queue.get().unwrap();
    let child = Process::spawn(get, queue.clone()).unwrap();
    let answers = Queue::<u32>::bounded(2).unwrap();
    let sources: [&dyn Source; 2] = [&answers, &child];
    assert!(wait(sources, MOMENT).unwrap().is_empty());
    queue.put(3).unwrap();
    assert_eq!(wait(sources, None).unwrap(), [1]);
    assert_eq!(child.join().unwrap(), 3);
}

/// From one process to another that sleeps in between: no put is missed, and none is noticed only
/// at a recheck.
#[test]
fn each_put_wakes_the_waiting_process() {
    const ROUNDS: u32 = 200;
    let _dog = watchdog();
    let (there, back) = (Queue::bounded(4).unwrap(), Queue::bounded(4).unwrap());
    let echo = |(there, back): (Queue<u32>, Queue<u32>)| {
        for _ in 0..ROUNDS {
            wait([&there], None).unwrap();
            back.put(there.try_get().unwrap()).unwrap();
        }
    };
    let child = Process::spawn(echo, (there.clone(), back.clone())).unwrap();
    let start = Instant::now();
    for n in 0..ROUNDS {
        until(|| is_asleep(child.pid()));
        there.put(n).unwrap();
        assert_eq!(wait([&back], None).unwrap(), [0]);
        assert_eq!(back.try_get().unwrap(), n);
    }
    child.join().unwrap();
    // By rechecks alone, each would take a quarter of a second.
    assert!(start.elapsed() < Duration::from_millis(100) * ROUNDS, "{:?}", start.elapsed());
}

#[test]
fn several_processes_wait_for_one_queue() {
    let _dog = watchdog();
    let queue = Queue::bounded(100).unwrap();
    let waiters = [(); 4].map(|()| Process::spawn(wait_and_get, (queue.clone(), 5)).unwrap());
    until_asleep(&waiters);
    // Some are put one by one, some together, and another consumer competes.
    let get = |queue: Queue<u32>| (0..5).map(|_| queue.get().unwrap()).collect::<Vec<_>>();
    let getter = Process::spawn(get, queue.clone()).unwrap();
    for n in 0..10 {
        queue.put(n).unwrap();
        thread::yield_now();
    }
    queue.put_many(10..25).unwrap();
    let mut got: Vec<_> = waiters.into_iter().flat_map(|child| child.join().unwrap()).collect();
    got.extend(getter.join().unwrap());
    got.sort_unstable();
    assert!(got.into_iter().eq(0..25));
}

/// Another consumer may discard the doorbell's packet before the process that it was meant for has
/// checked. Then the next put rings again.
#[test]
fn doorbell_taken_by_another_consumer_is_rung_again() {
    const ROUNDS: u32 = 30;
    let _dog = watchdog();
    let queue = Queue::bounded(10).unwrap();
    let count = ROUNDS as usize;
    let waiter = Process::spawn(wait_and_get, (queue.clone(), count)).unwrap();
    let signal = |signal| kill_process(Pid::from_raw(waiter.pid().cast_signed()).unwrap(), signal);
    let start = Instant::now();
    for n in 0..ROUNDS {
        until(|| is_asleep(waiter.pid()));
        signal(Signal::STOP).unwrap();
        until(|| is_stopped(waiter.pid()));
        queue.put(1000).unwrap();
        assert_eq!(queue.try_get().unwrap(), 1000);
        assert!(queue.try_get().unwrap_err().is_empty());
        signal(Signal::CONT).unwrap();
        until(|| is_asleep(waiter.pid()));
        queue.put(n).unwrap();
        until(|| queue.is_empty());
    }
    assert!(waiter.join().unwrap().into_iter().eq(0..ROUNDS));
    // With rechecks alone, each round would take a quarter of a second.
    assert!(start.elapsed() < Duration::from_millis(100) * ROUNDS, "{:?}", start.elapsed());
}

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().starts_with(" T")
}

/// The part of a batch that fits wakes the waiting process at once, not only when all of it is put.
#[test]
fn first_part_of_a_batch_wakes_the_waiting_process() {
    const ITEMS: u32 = 300;
    let _dog = watchdog();
    let queue = Queue::bounded(2).unwrap();
    let count = ITEMS as usize;
    let waiter = Process::spawn(wait_and_get, (queue.clone(), count)).unwrap();
    until(|| is_asleep(waiter.pid()));
    let start = Instant::now();
    queue.put_many((0..ITEMS).collect::<Vec<_>>()).unwrap();
    assert!(waiter.join().unwrap().into_iter().eq(0..ITEMS));
    assert!(start.elapsed() < Duration::from_millis(40) * (ITEMS / 2), "{:?}", start.elapsed());
}

#[test]
fn ended_queue_is_ready() {
    let _dog = watchdog();
    let end = |consumer: Consumer<u32>| {
        assert_eq!(wait([&consumer], None).unwrap(), [0]);
        format!("{:?}", consumer.try_get())
    };
    // The producer is dropped, or killed.
    for kill in [false, true] {
        let queue = Queue::bounded(2).unwrap();
        let waiter = Process::spawn(end, queue.consumer()).unwrap();
        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let hold = |(_producer, parent): (Producer<u32>, Connection<(), ()>)| {
            parent.send(()).unwrap();
            let _ = parent.recv();
        };
        let holder = Process::spawn(hold, (queue.producer(), theirs)).unwrap();
        ours.recv().unwrap();
        let consumer = queue.consumer();
        drop(queue);
        assert!(wait([&consumer], MOMENT).unwrap().is_empty());
        until(|| is_asleep(waiter.pid()));
        if kill {
            holder.kill().unwrap();
        } else {
            ours.send(()).unwrap();
        }
        holder.wait();
        within(RECOVERY, || {
            let disconnected = format!("{:?}", Err::<u32, _>(TryGetError::Disconnected));
            assert_eq!(waiter.join().unwrap(), disconnected);
            assert_eq!(wait([&consumer], None).unwrap(), [0]);
        });
    }
    // The queue is shut down.
    for how in [Shutdown::Drain, Shutdown::Now] {
        let queue = Queue::bounded(2).unwrap();
        let waiter = Process::spawn(end, queue.consumer()).unwrap();
        until(|| is_asleep(waiter.pid()));
        queue.shutdown(how);
        let closed = format!("{:?}", Err::<u32, _>(TryGetError::Closed));
        within(SOON, || assert_eq!(waiter.join().unwrap(), closed));
    }
}

/// Returns the processor time of this process, in ticks of 10 ms.
fn ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Packets of a dead process, and doorbells that no process waits for any more, are discarded and
/// keep no process awake.
#[test]
fn stale_packets_keep_no_waiter_awake() {
    let _dog = watchdog();
    let stays_idle = |queue: Queue<u32>| {
        let before = ticks();
        let ready = wait([&queue], Some(Duration::from_secs(1))).unwrap();
        (ready, ticks() - before)
    };
    let queue = Queue::<u32>::bounded(2).unwrap();
    let (_, producers, _, _) = parts(&queue);
    let socket = producers.unwrap().0;
    for tag in [0, 1, 77, u32::MAX] {
        for _ in 0..20 {
            send(&socket, &tag.to_le_bytes(), SendFlags::DONTWAIT).unwrap();
        }
        send(&socket, &[], SendFlags::DONTWAIT).unwrap();
        send(&socket, &[1; 100], SendFlags::DONTWAIT).unwrap();
    }
    let idle = Process::spawn(stays_idle, queue.clone()).unwrap();
    let (ready, ticks) = idle.join().unwrap();
    assert_eq!(ready, [] as [usize; 0]);
    assert!(ticks < 50, "{ticks} of 100 ticks");
}

/// The same for items with descriptors, and for a process that waits for several queues.
#[test]
fn item_with_descriptors_wakes_the_waiting_process() {
    let _dog = watchdog();
    let queues: Vec<Queue<(u32, Sender<u32>)>> =
        (0..5).map(|_| Queue::bounded(4).unwrap()).collect();
    let serve = |queues: Vec<Queue<(u32, Sender<u32>)>>| {
        let mut served = 0;
        while served < 50 {
            for ready in wait(&queues, None).unwrap() {
                let (n, reply) = queues[ready].try_get().unwrap();
                reply.send(n + 1).unwrap();
                served += 1;
            }
        }
    };
    let server = Process::spawn(serve, queues.clone()).unwrap();
    for n in 0..50 {
        let (receiver, reply) = simplex().unwrap();
        queues[n as usize * 3 % 5].put((n, reply)).unwrap();
        assert_eq!(receiver.recv().unwrap(), n + 1);
    }
    server.join().unwrap();
}
