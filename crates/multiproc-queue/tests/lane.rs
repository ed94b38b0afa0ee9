//! Items with descriptors.

mod common;

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use multiproc::Process;
use multiproc::pipe::{Descriptor, Receiver, Sender, duplex, simplex, wait};
use multiproc_queue::{Consumer, GetError, JoinableQueue, Producer, PutError, Queue, Shutdown};
use multiproc_testkit::{Census, alone, is_asleep, until, watchdog};
use rustix::process::{Resource, Rlimit, Uid, geteuid, getrlimit, setrlimit};
use rustix::thread::set_thread_res_uid;
use serde::{Deserialize, Serialize};

use common::{RECOVERY, SOON, within};

multiproc::enable_in_tests!();

fn null() -> Descriptor {
    Descriptor(OwnedFd::from(File::open("/dev/null").unwrap()))
}

#[test]
fn request_contains_its_reply_channel() {
    let _dog = watchdog();
    let requests = Queue::<(u64, Sender<u64>)>::bounded(8).unwrap();
    let square = |requests: Queue<(u64, Sender<u64>)>| {
        requests.close();
        for request in requests.iter() {
            let (n, reply) = request.unwrap();
            reply.send(n * n).unwrap();
        }
    };
    let workers = [(); 3].map(|()| Process::spawn(square, requests.clone()).unwrap());
    let replies: Vec<_> = (0..100)
        .map(|n| {
            let (receiver, reply) = simplex().unwrap();
            requests.put((n, reply)).unwrap();
            receiver
        })
        .collect();
    for (n, reply) in (0..).zip(replies) {
        assert_eq!(reply.recv().unwrap(), n * n);
        assert!(reply.recv().is_err(), "the only sender is gone");
    }
    drop(requests);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

#[test]
fn item_with_254_descriptors_is_refused() {
    alone(|()| {
        let queue = Queue::bounded(3).unwrap();
        let before = Census::take();
        queue.put((0..253).map(|_| null()).collect::<Vec<_>>()).unwrap();
        let error = queue.put((0..254).map(|_| null()).collect::<Vec<_>>()).unwrap_err();
        assert!(matches!(error, PutError::Encode(..)));
        assert_eq!(error.into_inner().len(), 254);
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.get().unwrap().len(), 253);
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn item_stays_until_its_descriptors_can_be_opened() {
    alone(|()| {
        let queue = Queue::bounded(3).unwrap();
        queue.put((1, vec![null(), null(), null()])).unwrap();
        queue.put((2, vec![])).unwrap();
        let before = Census::take();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let limit = |current| setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        limit(Some(64));
        let mut all: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        // Two more can be opened, then one, then none.
        for more in [2, 1, 0] {
            all.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
            all.truncate(all.len() - more);
            for _ in 0..3 {
                let GetError::Os(error) = queue.get().unwrap_err() else { panic!("{more}") };
                assert_eq!(error.raw_os_error(), 24, "EMFILE");
            }
            assert!(matches!(queue.get_many(2).unwrap_err().error(), GetError::Os(_)));
        }
        drop(all);
        limit(current);
        assert_eq!(Census::take(), before);
        assert_eq!(queue.len(), 2);
        let (n, files) = queue.get().unwrap();
        assert_eq!((n, files.len()), (1, 3));
        assert_eq!(queue.get().unwrap().0, 2);
    });
}

/// The lane holds some hundred packets. Beyond that, a put waits as on a full queue.
#[test]
fn put_with_a_full_lane_waits_as_on_a_full_queue() {
    alone(|()| {
        let _dog = watchdog();
        let queue = Queue::<(u32, Option<Descriptor>)>::bounded(100_000).unwrap();
        let before = Census::take();
        let mut put = 0;
        let error = loop {
            match queue.try_put((put, Some(null()))) {
                Ok(()) => put += 1,
                Err(error) => break error,
            }
        };
        assert!(error.is_full());
        drop(error);
        assert!(put >= 50, "{put}");
        assert_eq!((queue.len(), queue.is_full()), (put as usize, false));
        let error = queue.put_timeout((put, Some(null())), Duration::from_millis(5)).unwrap_err();
        assert!(error.is_timeout());
        drop(error);
        // Items without descriptors do not need the lane.
        queue.try_put((put, None)).unwrap();
        let other = queue.clone();
        let put_more = move || (put + 1..put + 11).try_for_each(|n| other.put((n, Some(null()))));
        let more = thread::spawn(put_more);
        for n in 0..put + 11 {
            let (number, file) = within(SOON, || queue.get().unwrap());
            assert_eq!(number, n);
            assert_eq!(file.is_some(), n != put);
        }
        more.join().unwrap().unwrap();
        assert_eq!(Census::take(), before);
    });
}

/// The same with another process that sleeps in the meantime.
#[test]
fn producer_that_waits_for_room_in_the_lane_is_woken() {
    let _dog = watchdog();
    let queue = Queue::<(u32, Descriptor)>::unbounded().unwrap();
    let put =
        |queue: Queue<(u32, Descriptor)>| (0..1000).for_each(|n| queue.put((n, null())).unwrap());
    let producer = Process::spawn(put, queue.clone()).unwrap();
    until(|| is_asleep(producer.pid()));
    assert!(queue.len() < 1000);
    within(SOON, || {
        for n in 0..1000 {
            let (number, file) = queue.get().unwrap();
            assert_eq!(number, n);
            assert_eq!(File::from(file.0).read(&mut [0]).unwrap(), 0);
        }
    });
    producer.join().unwrap();
}

/// An unprivileged user can have a limited number of descriptors in flight, in all queues together.
/// A put beyond that waits until some are got, also from another queue. (Root has no such limit.)
#[test]
fn put_waits_while_the_user_has_too_many_descriptors_in_flight() {
    alone(|()| {
        let _dog = watchdog();
        let (queue, other) = (Queue::bounded(1000).unwrap(), Queue::bounded(10).unwrap());
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum }).unwrap();
        let nobody = Uid::from_raw(65534);
        if geteuid().is_root()
            && let Err(error) = set_thread_res_uid(nobody, nobody, nobody)
        {
            eprintln!("left out: root cannot become an ordinary user here: {error}");
            return;
        }
        let item = || [(); 10].map(|()| null());
        // A hundred descriptors are fewer packets than the lane holds.
        let put = (0..100).take_while(|_| queue.try_put(item()).is_ok()).count();
        assert!(put < 20, "{put}");
        assert!(other.try_put(null()).unwrap_err().is_full());
        let moment = Duration::from_millis(5);
        assert!(other.put_timeout(null(), moment).unwrap_err().is_timeout());
        assert!(queue.put_timeout(item(), moment).unwrap_err().is_timeout());
        let (left, right) = duplex::<(), ()>().unwrap();
        let waiting = other.clone();
        let waits = thread::spawn(move || {
            left.send(()).unwrap();
            waiting.put(null())
        });
        right.recv().unwrap();
        for _ in 0..put {
            assert_eq!(queue.get().unwrap().len(), 10);
        }
        waits.join().unwrap().unwrap();
        assert_eq!((queue.len(), other.len()), (0, 1));
    });
}

#[test]
fn items_with_descriptors_leak_nothing() {
    alone(|()| {
        let queue = Queue::<(u32, Receiver<u8>, Descriptor)>::bounded(2).unwrap();
        queue.put((0, simplex().unwrap().0, null())).unwrap();
        queue.get().unwrap();
        let before = Census::take();
        for n in 0..1000 {
            queue.put((n, simplex().unwrap().0, null())).unwrap();
            queue.get().unwrap();
            // One that does not fit, and one that is discarded with its queue.
            let full = Queue::bounded(1).unwrap();
            full.put((n, simplex::<u8>().unwrap().0, null())).unwrap();
            assert!(full.try_put((n, simplex().unwrap().0, null())).unwrap_err().is_full());
        }
        assert_eq!(Census::take(), before);
    });
}

#[test]
fn queued_descriptors_are_closed_with_the_queue() {
    let _dog = watchdog();
    let queue = Queue::bounded(2).unwrap();
    let (receiver, sender) = simplex::<u8>().unwrap();
    queue.put(sender).unwrap();
    assert!(receiver.try_recv().unwrap_err().is_empty());
    drop(queue);
    assert!(receiver.recv().unwrap_err().is_disconnected());

    // The same happens when the last consumer is dropped.
    let queue = Queue::bounded(2).unwrap();
    let (producer, consumer) = (queue.producer(), queue.consumer());
    drop(queue);
    let (receiver, sender) = simplex::<u8>().unwrap();
    producer.put(sender).unwrap();
    drop(consumer);
    assert!(receiver.recv().unwrap_err().is_disconnected());
    let (_receiver, sender) = simplex::<u8>().unwrap();
    assert!(producer.put(sender).unwrap_err().is_disconnected());
}

#[test]
fn queue_is_sent_through_a_queue() {
    let _dog = watchdog();
    let outer = Queue::<Queue<u32>>::bounded(2).unwrap();
    let relay = |outer: Queue<Queue<u32>>| {
        let inner = outer.get().unwrap();
        inner.put(inner.get().unwrap() + 1).unwrap();
    };
    let inner = Queue::bounded(3).unwrap();
    inner.put(1).unwrap();
    outer.put(inner.clone()).unwrap();
    Process::spawn(relay, outer).unwrap().join().unwrap();
    assert_eq!(inner.get().unwrap(), 2);
    // One whose sender is gone before it is got.
    let outer = Queue::<Queue<u32>>::bounded(2).unwrap();
    let put = |outer: Queue<Queue<u32>>| {
        let inner = Queue::bounded(3).unwrap();
        inner.put(5).unwrap();
        outer.put(inner).unwrap();
    };
    Process::spawn(put, outer.clone()).unwrap().join().unwrap();
    let inner = outer.get().unwrap();
    assert_eq!(inner.get().unwrap(), 5);
    drop(outer);
    inner.put(6).unwrap();
    assert_eq!(inner.len(), 1);
}

/// A handle inside its own queue that is never got: the kernel finds the cycle, and closes it.
#[test]
fn queue_in_itself_is_released() {
    #[derive(Serialize, Deserialize)]
    struct Nest(Queue<Nest>, Sender<u8>);

    alone(|()| {
        let before = Census::take();
        for _ in 0..20 {
            let queue = Queue::bounded(3).unwrap();
            let (receiver, sender) = simplex().unwrap();
            queue.put(Nest(queue.clone(), sender)).unwrap();
            assert_eq!(queue.len(), 1);
            drop(queue);
            within(SOON, || assert!(receiver.recv().unwrap_err().is_disconnected()));
        }
        assert_eq!(Census::take(), before);
    });
}

/// The items that a killed consumer has got are lost, and the others are not.
#[test]
fn killed_consumer_loses_only_the_items_it_had() {
    let _dog = watchdog();
    let queue = Queue::<(u32, Sender<u32>)>::bounded(10).unwrap();
    let take_one = |queue: Queue<(u32, Sender<u32>)>| {
        let _item = queue.get().unwrap();
        loop {
            thread::park();
        }
    };
    let receivers: Vec<_> = (0..3)
        .map(|n| {
            let (receiver, sender) = simplex().unwrap();
            queue.put((n, sender)).unwrap();
            receiver
        })
        .collect();
    let doomed: Process<()> = Process::spawn(take_one, queue.clone()).unwrap();
    until(|| queue.len() == 2 && is_asleep(doomed.pid()));
    doomed.kill().unwrap();
    within(RECOVERY, || {
        assert!(receivers[0].recv().unwrap_err().is_disconnected());
        for n in 1..3 {
            let (number, sender) = queue.get().unwrap();
            assert_eq!(number, n);
            sender.send(n * 10).unwrap();
            assert_eq!(receivers[n as usize].recv().unwrap(), n * 10);
        }
    });
}

/// Descriptors that were got are not in the lane any more, although other items still wait.
#[test]
fn descriptors_that_were_got_are_not_in_the_lane() {
    let _dog = watchdog();
    let queue = Queue::bounded(10).unwrap();
    let (receiver, sender) = simplex::<u8>().unwrap();
    queue.put(Some(sender)).unwrap();
    queue.put(None).unwrap();
    drop(queue.get().unwrap());
    assert!(receiver.recv_timeout(SOON).unwrap_err().is_disconnected());
    assert_eq!(queue.len(), 1);
}

/// No process calls `get`: the shutdown itself closes the handles in discarded items.
#[test]
fn shutdown_now_closes_handles_in_discarded_items() {
    let _dog = watchdog();
    for after_drain in [false, true] {
        let queue = Queue::bounded(10).unwrap();
        let (receivers, senders): (Vec<_>, Vec<_>) =
            (0..5).map(|_| simplex::<u8>().unwrap()).unzip();
        queue.put_many(senders).unwrap();
        if after_drain {
            queue.shutdown(Shutdown::Drain);
            assert!(receivers[0].try_recv().unwrap_err().is_empty());
        }
        queue.shutdown(Shutdown::Now);
        for receiver in receivers {
            assert!(receiver.recv().unwrap_err().is_disconnected());
        }
    }
    let queue = JoinableQueue::bounded(10).unwrap();
    let (receiver, sender) = simplex::<u8>().unwrap();
    queue.put(sender).unwrap();
    queue.shutdown(Shutdown::Now);
    assert!(receiver.recv().unwrap_err().is_disconnected());
}

/// A server shuts the queue down, and joins a client that waits for its reply.
#[test]
fn client_of_a_queue_shut_down_now_is_disconnected() {
    let _dog = watchdog();
    let client = |requests: Queue<Producer<u32>>| {
        let replies = Queue::bounded(1).unwrap();
        let (reply_to, reply) = (replies.producer(), replies.consumer());
        drop(replies);
        requests.put(reply_to).unwrap();
        reply.get().unwrap_err().is_disconnected()
    };
    let requests = Queue::bounded(10).unwrap();
    let client = Process::spawn(client, requests.clone()).unwrap();
    until(|| requests.len() == 1 && is_asleep(client.pid()));
    requests.shutdown(Shutdown::Now);
    assert!(client.join().unwrap());
}

/// A producer cannot empty the lane. Consumers do when they find the queue closed, and waiting ones
/// are woken for it.
#[test]
fn shutdown_now_by_a_producer_closes_handles_at_the_next_consumer_call() {
    let _dog = watchdog();
    /// What a consumer does when it finds the queue closed.
    type Act = fn(&Consumer<Sender<u8>>);
    let acts: [Act; 4] = [
        |consumer| assert!(consumer.get().unwrap_err().is_closed()),
        |consumer| assert!(consumer.try_get().unwrap_err().is_closed()),
        |consumer| drop(wait([consumer], None).unwrap()),
        |consumer| drop(consumer.clone().get_many_timeout(3, SOON).unwrap_err()),
    ];
    for act in acts {
        let queue = Queue::bounded(10).unwrap();
        let (producer, consumer) = (queue.producer(), queue.consumer());
        drop(queue);
        let (receiver, sender) = simplex::<u8>().unwrap();
        producer.put(sender).unwrap();
        producer.shutdown(Shutdown::Now);
        assert!(receiver.try_recv().unwrap_err().is_empty());
        act(&consumer);
        assert!(receiver.recv().unwrap_err().is_disconnected());
    }

    // A handle that could get as well, and puts.
    let queue = Queue::bounded(10).unwrap();
    let (receiver, sender) = simplex::<u8>().unwrap();
    queue.put(sender).unwrap();
    queue.producer().shutdown(Shutdown::Now);
    let (_, sender) = simplex::<u8>().unwrap();
    assert!(queue.put(sender).unwrap_err().is_closed());
    assert!(receiver.recv().unwrap_err().is_disconnected());
}
