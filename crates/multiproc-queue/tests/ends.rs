//! The end of a queue: closed and killed sides, as the other side sees them.

mod common;

use std::time::Duration;

use multiproc::Process;
use multiproc::pipe::{Connection, RecvError, duplex};
use multiproc_queue::{
    Consumer, GetError, Producer, PutError, Queue, Shutdown, TryGetError, TryPutError,
};
use multiproc_testkit::{Census, alone, is_asleep, until, watchdog};

use common::{RECOVERY, SOON, until_asleep, within};

multiproc::enable_in_tests!();

/// Puts some items, reports it, and waits to be killed.
fn hold_producer((producer, parent): (Producer<u32>, Connection<(), ()>)) {
    producer.put_many(0..3).unwrap();
    parent.send(()).unwrap();
    let _ = parent.recv();
}

/// Reports that it has started, and waits to be killed.
fn hold_consumer((_consumer, parent): (Consumer<u32>, Connection<(), ()>)) {
    parent.send(()).unwrap();
    let _ = parent.recv();
}

/// Returns the result of `get` as text, since errors cannot be sent.
fn get(consumer: Consumer<u32>) -> String {
    format!("{:?}", consumer.get())
}

fn put(producer: Producer<u32>) -> String {
    format!("{:?}", producer.put(7))
}

#[test]
fn closed_producers_disconnect_consumers_at_once() {
    let _dog = watchdog();
    let queue = Queue::bounded(10).unwrap();
    let (producer, consumer) = (queue.producer(), queue.consumer());
    drop(queue);
    producer.put_many([1, 2]).unwrap();
    let clone = producer.clone();
    drop(producer);
    clone.put(3).unwrap();
    // A handle in a message that is not received yet counts.
    let (left, right) = duplex::<Producer<u32>, ()>().unwrap();
    left.send(clone).unwrap();
    assert_eq!([(); 3].map(|()| consumer.get().unwrap()), [1, 2, 3]);
    assert!(consumer.try_get().unwrap_err().is_empty());
    right.recv().unwrap().put(4).unwrap();
    assert_eq!(consumer.get().unwrap(), 4);
    assert_eq!(consumer.get(), Err(GetError::Disconnected));
    assert_eq!(consumer.try_get(), Err(TryGetError::Disconnected));
    assert!(consumer.get_timeout(Duration::MAX).unwrap_err().is_disconnected());
    assert_eq!(consumer.iter().count(), 0);
    assert!(consumer.get_many(5).unwrap_err().error().is_disconnected());
}

#[test]
fn closed_producers_wake_sleeping_consumers() {
    let _dog = watchdog();
    let queue = Queue::bounded(10).unwrap();
    let producer = queue.producer();
    let consumers = [(); 3].map(|()| Process::spawn(get, queue.consumer()).unwrap());
    drop(queue);
    until_asleep(&consumers);
    producer.put(1).unwrap();
    // Closing has the same effect as dropping.
    producer.close();
    let mut results = consumers.map(|child| child.join().unwrap());
    results.sort_unstable();
    let disconnected = format!("{:?}", Err::<u32, _>(GetError::Disconnected));
    assert_eq!(results, [&*disconnected, &*disconnected, "Ok(1)"]);
    assert!(matches!(producer.put(2), Err(PutError::Closed(2))));
}

#[test]
fn disconnected_comes_after_the_remaining_items() {
    let _dog = watchdog();
    let queue = Queue::unbounded().unwrap();
    let put = |producer: Producer<u32>| producer.put_many(0..50_000).unwrap();
    Process::spawn(put, queue.producer()).unwrap().join().unwrap();
    let consumer = queue.consumer();
    drop(queue);
    assert!(consumer.iter().map(Result::unwrap).eq(0..50_000));
}

#[test]
fn killed_producer_disconnects_consumers_within_a_second() {
    let _dog = watchdog();
    let queue = Queue::bounded(10).unwrap();
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let child = Process::spawn(hold_producer, (queue.producer(), theirs)).unwrap();
    let consumer = queue.consumer();
    let sleepers: Vec<_> = (0..2).map(|_| Process::spawn(get, queue.consumer()).unwrap()).collect();
    drop(queue);
    ours.recv().unwrap();
    // One of the three items for each of them. The third one is for this process. Then they get
    // again.
    for sleeper in sleepers {
        assert!(sleeper.join().unwrap().starts_with("Ok("));
    }
    let rest = consumer.get().unwrap();
    assert!(rest < 3);
    let sleeper = Process::spawn(get, consumer.clone()).unwrap();
    until(|| is_asleep(sleeper.pid()));
    child.kill().unwrap();
    child.wait();
    within(RECOVERY, || {
        let disconnected = format!("{:?}", Err::<u32, _>(GetError::Disconnected));
        assert_eq!(sleeper.join().unwrap(), disconnected);
        assert_eq!(consumer.get(), Err(GetError::Disconnected));
    });
}

#[test]
fn items_of_a_killed_producer_arrive_before_the_disconnection() {
    let _dog = watchdog();
    let queue = Queue::bounded(10).unwrap();
    let (ours, theirs) = duplex::<(), ()>().unwrap();
    let child = Process::spawn(hold_producer, (queue.producer(), theirs)).unwrap();
    let consumer = queue.consumer();
    drop(queue);
    ours.recv().unwrap();
    child.kill().unwrap();
    child.wait();
    within(RECOVERY, || assert!(consumer.iter().map(Result::unwrap).eq(0..3)));
}

#[test]
fn closed_consumers_disconnect_producers_at_once() {
    let _dog = watchdog();
    let queue = Queue::unbounded().unwrap();
    let (producer, consumer) = (queue.producer(), queue.consumer());
    drop(queue);
    producer.put(1).unwrap();
    drop(consumer);
    assert!(matches!(producer.put(2), Err(PutError::Disconnected(2))));
    assert!(matches!(producer.try_put(3), Err(TryPutError::Disconnected(3))));
    assert!(producer.put_timeout(4, Duration::MAX).unwrap_err().is_disconnected());
    let error = producer.put_many(5..8).unwrap_err();
    assert!(error.put() == 0 && error.error().is_disconnected());
    assert_eq!(error.into_items(), [5, 6, 7]);
}

/// No process drops the consumer: the kernel closes it together with the item that contains it. So
/// it is not counted, and a producer that has room notices at its next periodic check.
#[test]
fn consumer_in_an_undelivered_item_disconnects_within_1024_puts() {
    let _dog = watchdog();
    let end_of = |deliver: fn(Queue<Consumer<u32>>)| {
        let queue = Queue::<u32>::unbounded().unwrap();
        let (producer, consumer) = (queue.producer(), queue.consumer());
        drop(queue);
        let other = Queue::bounded(1).unwrap();
        other.put(consumer).unwrap();
        producer.put(0).unwrap();
        deliver(other);
        producer
    };
    let ways: [fn(Queue<Consumer<u32>>); 2] = [drop, |other| other.shutdown(Shutdown::Now)];
    for deliver in ways {
        let producer = end_of(deliver);
        let second = producer.clone();
        let put = (0..1024).take_while(|&n| producer.put(n).is_ok()).count();
        assert!(put < 1024);
        // The other producers are notified at once.
        assert!(second.put(1).unwrap_err().is_disconnected());
        assert_eq!((second.len(), producer.len()), (0, 0));

        let producer = end_of(deliver);
        assert_eq!(producer.len(), 0, "asking for the length checks, too");
        assert!(producer.put(1).unwrap_err().is_disconnected());
    }
}

#[test]
fn ended_consumers_wake_blocked_producers() {
    let _dog = watchdog();
    for clean in [true, false] {
        let queue = Queue::bounded(1).unwrap();
        queue.put(0).unwrap();
        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let consumer = Process::spawn(hold_consumer, (queue.consumer(), theirs)).unwrap();
        ours.recv().unwrap();
        let producers = [(); 2].map(|()| Process::spawn(put, queue.producer()).unwrap());
        drop(queue);
        until_asleep(&producers);
        if clean {
            ours.send(()).unwrap();
        } else {
            consumer.kill().unwrap();
        }
        consumer.wait();
        within(RECOVERY, || {
            for producer in producers {
                let disconnected = format!("{:?}", Err::<(), _>(PutError::Disconnected(1)));
                assert_eq!(producer.join().unwrap(), disconnected);
            }
        });
    }
}

#[test]
fn unbounded_queue_accepts_few_items_after_its_consumers_were_killed() {
    let _dog = watchdog();
    for batch in [1, 10, 128, 500] {
        let queue = Queue::unbounded().unwrap();
        let (ours, theirs) = duplex::<(), ()>().unwrap();
        let consumer = Process::spawn(hold_consumer, (queue.consumer(), theirs)).unwrap();
        ours.recv().unwrap();
        let producer = queue.producer();
        drop(queue);
        producer.put(0).unwrap();
        consumer.kill().unwrap();
        consumer.wait();
        let mut put = 0;
        let error = loop {
            match producer.put_many((0..batch).collect::<Vec<_>>()) {
                Ok(()) => put += batch,
                Err(error) => break error,
            }
            assert!(put <= 2048, "in batches of {batch}");
        };
        assert!(error.error().is_disconnected());
        assert!(put as usize + error.put() <= 1024 + 128, "in batches of {batch}");
    }
}

#[test]
fn closed_handle_leaves_the_others_open() {
    let _dog = watchdog();
    let queue = Queue::bounded(4).unwrap();
    let other = queue.clone();
    queue.close();
    queue.close();
    assert!(matches!(queue.put(1), Err(PutError::Closed(1))));
    assert!(matches!(queue.try_put(1), Err(TryPutError::Closed(1))));
    assert!(queue.put_timeout(1, Duration::ZERO).unwrap_err().is_closed());
    assert_eq!(queue.put_many(1..3).unwrap_err().into_items(), [1, 2]);
    // Clones and sent handles can do no more than the original.
    assert!(queue.clone().put(1).unwrap_err().is_closed());
    assert!(queue.producer().put(1).unwrap_err().is_closed());
    let (left, right) = duplex::<Queue<u32>, ()>().unwrap();
    left.send(queue.clone()).unwrap();
    assert!(right.recv().unwrap().put(1).unwrap_err().is_closed());
    other.put(2).unwrap();
    assert_eq!(queue.get().unwrap(), 2);
    assert!(!queue.is_shut_down());
    assert!(queue.try_get().unwrap_err().is_empty());
    other.put(3).unwrap();
    drop(other);
    assert_eq!(queue.get().unwrap(), 3);
    assert_eq!(queue.get(), Err(GetError::Disconnected));
}

#[test]
fn get_on_a_queue_handle_does_not_disconnect() {
    let _dog = watchdog();
    let queue = Queue::<u32>::bounded(4).unwrap();
    drop((queue.producer(), queue.consumer()));
    assert!(queue.get_timeout(Duration::from_millis(600)).unwrap_err().is_timeout());
    queue.put(1).unwrap();
    assert_eq!(queue.get().unwrap(), 1);
    // Within a process, all handles share the same ends.
    let producer = queue.producer();
    queue.close();
    assert!(queue.try_get().unwrap_err().is_empty());
    within(SOON, || {
        drop(producer);
        assert_eq!(queue.get(), Err(GetError::Disconnected));
    });
}

#[test]
fn handle_of_another_kind_is_refused() {
    let queue = Queue::<u8>::bounded(4).unwrap();
    let (left, right) = duplex::<Producer<u8>, ()>().unwrap();
    left.send(queue.producer()).unwrap();
    let result = right.retype::<(), Consumer<u8>>().recv();
    assert!(matches!(result, Err(RecvError::Decode(_))), "{result:?}");
    let (left, right) = duplex::<Queue<u8>, ()>().unwrap();
    left.send(queue).unwrap();
    let result = right.retype::<(), Producer<u8>>().recv();
    assert!(matches!(result, Err(RecvError::Decode(_))), "{result:?}");
}

#[test]
fn one_sided_handles_show_the_queue() {
    let queue = Queue::<u8>::builder().capacity(3).name("jobs").build().unwrap();
    let (producer, consumer) = (queue.producer(), queue.consumer());
    producer.put(1).unwrap();
    assert_eq!((producer.len(), consumer.len()), (1, 1));
    assert_eq!((producer.capacity(), consumer.name()), (Some(3), Some("jobs")));
    assert!(producer.is_same(&queue.producer()) && consumer.is_same(&consumer.clone()));
    assert!(!producer.is_same(&Queue::<u8>::bounded(3).unwrap().producer()));
    let text = format!("{producer:?} {consumer:?}");
    assert!(text.starts_with("Producer { name: Some(\"jobs\"), len: 1"), "{text}");
    assert!(text.contains("Consumer {") && text.contains("is_shut_down: false"), "{text}");
}

#[test]
fn debug_shows_which_side_waits() {
    let _dog = watchdog();
    let queue = Queue::<u32>::bounded(1).unwrap();
    let consumer = Process::spawn(get, queue.consumer()).unwrap();
    until(|| is_asleep(consumer.pid()));
    let text = format!("{queue:?}");
    assert!(text.contains("consumers_wait: true, producers_wait: false"), "{text}");
    assert!(text.contains("members: 2"), "{text}");
    queue.put(1).unwrap();
    consumer.join().unwrap();
    queue.put(1).unwrap();
    let producer = Process::spawn(put, queue.producer()).unwrap();
    until(|| is_asleep(producer.pid()));
    let text = format!("{queue:?}");
    assert!(text.contains("consumers_wait: false, producers_wait: true"), "{text}");
    assert!(text.contains("len: 1") && text.contains("bytes: 32"), "{text}");
    queue.get().unwrap();
    producer.join().unwrap();
}

#[test]
fn dropped_handles_leak_nothing() {
    alone(|()| {
        let before = Census::take();
        for n in 0..1000 {
            let queue = Queue::unbounded().unwrap();
            let (producer, consumer) = (queue.producer(), queue.consumer());
            let (left, right) = duplex::<(Producer<u32>, Consumer<u32>), ()>().unwrap();
            left.send((producer.clone(), consumer.clone())).unwrap();
            drop(queue);
            let (producer2, consumer2) = right.recv().unwrap();
            producer2.put(n).unwrap();
            drop((producer, producer2));
            assert_eq!(consumer.get().unwrap(), n);
            assert_eq!(consumer2.get(), Err(GetError::Disconnected));
        }
        assert_eq!(Census::take(), before);
    });
}
