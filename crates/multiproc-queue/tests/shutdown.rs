//! Shutdown of a queue for all processes.

mod common;

use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Sender, simplex};
use multiproc_queue::{GetError, PutError, Queue, Shutdown, TryGetError, TryPutError};
use multiproc_testkit::{is_asleep, until, watchdog};
use std::os::unix::fs::FileExt as _;

use common::{CONTROL, RECOVERY, SOON, memory, until_asleep, within};

multiproc::enable_in_tests!();

fn get(queue: Queue<u32>) -> String {
    format!("{:?}", queue.get())
}

fn put(queue: Queue<u32>) -> String {
    format!("{:?}", queue.put(7))
}

#[test]
fn drain_keeps_queued_items() {
    let _dog = watchdog();
    let queue = Queue::bounded(4).unwrap();
    queue.put_many(0..3).unwrap();
    queue.shutdown(Shutdown::Drain);
    queue.shutdown(Shutdown::Drain);
    assert!(queue.is_shut_down());
    assert!(matches!(queue.put(9), Err(PutError::Closed(9))));
    assert!(matches!(queue.try_put(9), Err(TryPutError::Closed(9))));
    assert!(queue.put_timeout(9, Duration::MAX).unwrap_err().is_closed());
    assert_eq!(queue.put_many(8..10).unwrap_err().into_items(), [8, 9]);
    assert_eq!(queue.len(), 3);
    assert_eq!(queue.get().unwrap(), 0);
    assert_eq!(queue.try_get().unwrap(), 1);
    assert_eq!(queue.get_timeout(Duration::MAX).unwrap(), 2);
    assert_eq!(queue.get(), Err(GetError::Closed));
    assert_eq!(queue.try_get(), Err(TryGetError::Closed));
    assert!(queue.get_timeout(Duration::MAX).unwrap_err().is_closed());
    assert!(queue.get_many(3).unwrap_err().error().is_closed());
    assert!(queue.try_get_many(3).unwrap_err().error().is_closed());
    assert_eq!(queue.iter().count(), 0);
}

#[test]
fn now_discards_queued_items() {
    let _dog = watchdog();
    for after_drain in [false, true] {
        let queue = Queue::bounded(4).unwrap();
        queue.put_many(0..3).unwrap();
        if after_drain {
            queue.shutdown(Shutdown::Drain);
        }
        queue.shutdown(Shutdown::Now);
        // A shutdown cannot be undone.
        queue.shutdown(Shutdown::Drain);
        assert_eq!(queue.len(), 0);
        assert_eq!(queue.get(), Err(GetError::Closed));
        assert_eq!(queue.try_get(), Err(TryGetError::Closed));
        assert!(queue.put(1).unwrap_err().is_closed());
        assert!(format!("{queue:?}").contains("is_shut_down: true"));
    }
}

#[test]
fn shutdown_wakes_all_waiters() {
    let _dog = watchdog();
    for how in [Shutdown::Drain, Shutdown::Now] {
        let empty = Queue::<u32>::bounded(1).unwrap();
        let full = Queue::<u32>::bounded(1).unwrap();
        full.put(1).unwrap();
        // Full by bytes, not by items.
        let heavy = Queue::<u32>::builder().max_bytes(4).build().unwrap();
        heavy.put(1).unwrap();
        let mut children: Vec<_> =
            (0..3).map(|_| Process::spawn(get, empty.clone()).unwrap()).collect();
        children.extend((0..3).map(|_| Process::spawn(put, full.clone()).unwrap()));
        children.extend((0..2).map(|_| Process::spawn(put, heavy.clone()).unwrap()));
        until_asleep(&children);
        [&empty, &full, &heavy].into_iter().for_each(|queue| queue.shutdown(how));
        within(SOON, || {
            for child in children {
                let result = child.join().unwrap();
                let closed = [
                    format!("{:?}", Err::<u32, _>(GetError::Closed)),
                    format!("{:?}", Err::<(), _>(PutError::Closed(2))),
                ];
                assert!(closed.contains(&result), "{result}");
            }
        });
        let left = full.try_get();
        assert_eq!(left.is_ok(), how == Shutdown::Drain);
    }
}

/// The item is either got, or its put fails with `Closed`, depending on which comes first.
#[test]
fn put_during_a_drain_is_got_or_refused() {
    let _dog = watchdog();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..60 {
        let capacity = [2, 50, 100_000][random.usize(..3)];
        let queue = Queue::<u32>::bounded(capacity).unwrap();
        // Reports how many items it has put.
        let put = |queue: Queue<u32>| (0..).take_while(|&n| queue.put(n).is_ok()).count();
        let get = |queue: Queue<u32>| queue.iter().map(Result::unwrap).count();
        let producers = [(); 2].map(|()| Process::spawn(put, queue.clone()).unwrap());
        let consumers = [(); 2].map(|()| Process::spawn(get, queue.clone()).unwrap());
        until(|| !queue.is_empty());
        let end = Instant::now() + Duration::from_micros(random.u64(..2000));
        while Instant::now() < end {}
        queue.shutdown(Shutdown::Drain);
        let put: usize = producers.into_iter().map(|child| child.join().unwrap()).sum();
        let got: usize = consumers.into_iter().map(|child| child.join().unwrap()).sum();
        assert_eq!((put, queue.len()), (got, 0));
    }
}

#[test]
fn descriptors_are_got_after_a_drain() {
    let _dog = watchdog();
    let queue = Queue::<(u32, Option<Sender<u32>>)>::bounded(10).unwrap();
    let (receiver, sender) = simplex().unwrap();
    queue.put((1, Some(sender))).unwrap();
    queue.put((2, None)).unwrap();
    queue.shutdown(Shutdown::Drain);
    let (_, late) = simplex().unwrap();
    assert!(queue.put((3, Some(late))).unwrap_err().is_closed());
    let (n, sender) = queue.get().unwrap();
    sender.unwrap().send(n).unwrap();
    assert_eq!(receiver.recv().unwrap(), 1);
    assert_eq!(queue.get().unwrap().0, 2);
    assert!(queue.get().unwrap_err().is_closed());
}

/// Returns the number of the member that another process is in the queue's region, from its member
/// table.
fn number_of<T>(queue: &Queue<T>, pid: u32) -> [u8; 4] {
    const MEMBERS: u64 = 1152;
    let memory = memory(queue);
    for slot in 0..1024 {
        let mut entry = [0; 8];
        memory.read_exact_at(&mut entry, MEMBERS + slot * 8).unwrap();
        if entry[4..] == pid.to_le_bytes() {
            return entry[..4].try_into().unwrap();
        }
    }
    panic!("process {pid} is not a member");
}

/// A live process that never releases a lock of the queue, like one that was stopped inside a
/// critical section. Its lock is not taken from it, but no call waits past its timeout.
#[test]
fn stopped_lock_owner_blocks_no_call_past_its_timeout() {
    let _dog = watchdog();
    let moment = Duration::from_millis(30);
    let queue = Queue::<u32>::bounded(4).unwrap();
    queue.put(1).unwrap();
    let idle = |queue: Queue<u32>| {
        loop {
            std::thread::park();
            let _ = queue.len();
        }
    };
    let stopped: Process<()> = Process::spawn(idle, queue.clone()).unwrap();
    until(|| is_asleep(stopped.pid()) && format!("{queue:?}").contains("members: 2"));
    let number = number_of(&queue, stopped.pid());
    let memory = memory(&queue);
    let (producers, consumers) = (CONTROL, CONTROL + 256);

    memory.write_all_at(&number, producers).unwrap();
    assert!(queue.put_timeout(2, moment).unwrap_err().is_timeout());
    let error = queue.try_put(2).unwrap_err();
    assert!(error.is_stalled(), "{error}");
    assert_eq!(queue.get().unwrap(), 1, "the other side goes on");
    // It is not known whether the queue stays empty, so the call waits for it.
    queue.shutdown(Shutdown::Drain);
    within(SOON, || {
        assert!(queue.get_timeout(moment).unwrap_err().is_timeout());
        assert!(queue.get_timeout(Duration::ZERO).unwrap_err().is_timeout());
        assert!(queue.get_many_timeout(5, moment).unwrap().is_empty());
        assert!(queue.try_get().unwrap_err().is_stalled());
        assert!(multiproc::pipe::wait([&queue], Some(moment)).is_ok());
    });
    let waiting = Process::spawn(get, queue.clone()).unwrap();
    // Longer than any internal limit.
    assert_eq!(waiting.wait_timeout(Duration::from_millis(1300)), None);

    memory.write_all_at(&number, consumers).unwrap();
    assert!(queue.try_get().unwrap_err().is_stalled());
    assert!(queue.get_timeout(moment).unwrap_err().is_timeout());

    stopped.kill().unwrap();
    stopped.wait();
    within(RECOVERY, || {
        assert_eq!(queue.get(), Err(GetError::Closed));
        let closed = format!("{:?}", Err::<u32, _>(GetError::Closed));
        assert_eq!(waiting.join().unwrap(), closed);
    });
}
