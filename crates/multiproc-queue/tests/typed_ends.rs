//! Queues as pairs of typed ends, and the programs that people write first with them.

mod common;

use std::time::Duration;

use multiproc::Process;
use multiproc::pipe::{RecvError, duplex};
use multiproc_queue::{
    Consumer, GetError, JoinableQueue, Producer, Queue, TaskConsumer, TaskProducer, channel, tasks,
    unbounded_channel, unbounded_tasks,
};
use multiproc_testkit::{alone, watchdog};

use common::{RECOVERY, within};

multiproc::enable_in_tests!();

type Words = (Consumer<String>, Producer<usize>);

fn count((words, lengths): Words) -> u32 {
    let mut done = 0;
    for word in words {
        let word = word.unwrap();
        assert!(word != "poison", "a bug in the worker");
        lengths.put(word.len()).unwrap();
        done += 1;
    }
    done
}

#[test]
fn channel_to_a_worker_ends_with_its_producer() {
    let _dog = watchdog();
    let (words, worker_words) = channel(10).unwrap();
    let (worker_lengths, lengths) = channel(10).unwrap();
    let worker = Process::spawn(count, (worker_words, worker_lengths)).unwrap();
    for word in ["a", "bc", "def"] {
        words.put(word.to_owned()).unwrap();
    }
    drop(words);
    assert_eq!(lengths.into_iter().collect::<Result<Vec<_>, _>>().unwrap(), [1, 2, 3]);
    assert_eq!(worker.join().unwrap(), 3);
}

/// The parent has no handle that could get, so it is told when its worker is gone.
#[test]
fn put_to_a_panicked_worker_is_disconnected() {
    let _dog = watchdog();
    let (words, worker_words) = channel(100).unwrap();
    let (worker_lengths, lengths) = channel(100).unwrap();
    let worker = Process::spawn(count, (worker_words, worker_lengths)).unwrap();
    let words_of_it = ["a", "poison", "b"].iter().cycle().take(1000);
    let refused = words_of_it.map(|word| words.put((*word).to_owned())).find_map(Result::err);
    assert!(refused.unwrap().is_disconnected());
    within(RECOVERY, || assert_eq!(lengths.iter().map(Result::unwrap).sum::<usize>(), 1));
    assert!(worker.join().is_err());
}

#[test]
fn unbounded_ends_know_each_other() {
    // A child that another thread is starting has copies of all handles for a moment.
    alone(|()| {
        let (producer, consumer) = unbounded_channel().unwrap();
        assert_eq!((producer.capacity(), consumer.capacity()), (None, None));
        producer.put_many(0..3).unwrap();
        assert!(consumer.try_iter().map(Result::unwrap).eq(0..3));
        drop(consumer);
        assert!(producer.put(3).unwrap_err().is_disconnected());

        let (producer, consumer) = unbounded_tasks::<u32>().unwrap();
        drop(producer);
        assert_eq!(consumer.get().unwrap_err(), GetError::Disconnected);
        let (producer, consumer) = unbounded_tasks().unwrap();
        drop(consumer);
        assert!(producer.put(1).unwrap_err().is_disconnected());
    });
}

#[test]
fn handle_becomes_one_of_its_ends() {
    let queue = Queue::bounded(2).unwrap();
    let (producer, consumer) = (queue.clone().into_producer(), queue.into_consumer());
    producer.put(1).unwrap();
    drop(producer);
    assert_eq!((consumer.get(), consumer.get()), (Ok(1), Err(GetError::Disconnected)));

    let queue = JoinableQueue::bounded(2).unwrap();
    let (producer, consumer) = (queue.clone().into_producer(), queue.into_consumer());
    producer.put(1).unwrap();
    consumer.get().unwrap().task_done();
    producer.join().unwrap();
    producer.close();
    assert!(producer.put(2).unwrap_err().is_closed());
    assert_eq!(consumer.get().unwrap_err(), GetError::Disconnected);
}

fn double((tasks, results): (TaskConsumer<u32>, Producer<u32>)) -> usize {
    let mut done = 0;
    for task in &tasks {
        let task = task.unwrap();
        let double = *task * 2;
        task.finish_with(&results, double).unwrap();
        done += 1;
    }
    done
}

#[test]
fn tasks_of_typed_ends_are_done_by_workers() {
    let _dog = watchdog();
    let (producer, consumer) = tasks(8).unwrap();
    let (to_results, results) = unbounded_channel().unwrap();
    let workers =
        [(); 3].map(|()| Process::spawn(double, (consumer.clone(), to_results.clone())).unwrap());
    drop((consumer, to_results));
    producer.put_many(0..100).unwrap();
    producer.join().unwrap();
    assert_eq!((producer.unfinished(), producer.died(), producer.max_attempts()), (0, 0, 16));
    drop(producer);
    let done: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    let mut doubled: Vec<_> = results.iter().map(Result::unwrap).collect();
    doubled.sort_unstable();
    assert!(done == 100 && doubled.into_iter().eq((0..100).map(|n| n * 2)));
}

/// A worker that adds tasks has both ends. A shutdown by the process that joins ends it.
#[test]
fn worker_with_both_ends_adds_tasks() {
    fn split((more, tasks): (TaskProducer<u32>, TaskConsumer<u32>)) {
        for task in tasks {
            let task = task.unwrap();
            if *task > 1 {
                more.put_many([*task / 2, *task - *task / 2]).unwrap();
            }
            task.task_done();
        }
    }
    let _dog = watchdog();
    let (producer, consumer) = unbounded_tasks().unwrap();
    let workers =
        [(); 2].map(|()| Process::spawn(split, (producer.clone(), consumer.clone())).unwrap());
    drop(consumer);
    producer.put(200).unwrap();
    producer.join().unwrap();
    producer.shutdown(multiproc_queue::Shutdown::Drain);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert!(producer.is_empty());
}

#[test]
fn end_of_another_kind_is_refused() {
    let (producer, consumer) = tasks::<u8>(4).unwrap();
    let (left, right) = duplex::<TaskProducer<u8>, ()>().unwrap();
    left.send(producer).unwrap();
    let result = right.retype::<(), TaskConsumer<u8>>().recv();
    assert!(matches!(result, Err(RecvError::Decode(_))), "{result:?}");
    let (left, right) = duplex::<TaskConsumer<u8>, ()>().unwrap();
    left.send(consumer).unwrap();
    let result = right.retype::<(), Consumer<u8>>().recv();
    assert!(matches!(result, Err(RecvError::Decode(_))), "{result:?}");
    let (left, right) = duplex::<Producer<u8>, ()>().unwrap();
    left.send(Queue::bounded(4).unwrap().producer()).unwrap();
    let result = right.retype::<(), TaskProducer<u8>>().recv();
    assert!(matches!(result, Err(RecvError::Decode(_))), "{result:?}");
}

#[test]
fn iteration_by_value_gives_up_putting() {
    let _dog = watchdog();
    let queue = Queue::unbounded().unwrap();
    queue.put_many(0..3).unwrap();
    assert!(queue.into_iter().map(Result::unwrap).eq(0..3));

    let queue = JoinableQueue::unbounded().unwrap();
    queue.put_many(0..3).unwrap();
    let done = queue.into_iter().map(|task| task.unwrap().task_done()).count();
    assert_eq!(done, 3);
}

#[test]
fn iteration_by_reference_leaves_the_handle() {
    let _dog = watchdog();
    let (producer, consumer) = channel(4).unwrap();
    producer.put_many(0..3).unwrap();
    let mut items = (&consumer).into_iter();
    assert_eq!(items.next(), Some(Ok(0)));
    drop(producer);
    assert!(items.by_ref().map(Result::unwrap).eq(1..3));
    assert_eq!((items.next(), consumer.try_iter().count()), (None, 0));

    let (producer, consumer) = tasks(4).unwrap();
    producer.put_many(0..3).unwrap();
    let mut seen = Vec::new();
    for task in consumer.try_iter() {
        let task = task.unwrap();
        seen.push(*task);
        task.task_done();
    }
    assert_eq!(seen, [0, 1, 2]);
    drop(producer);
    assert!((&consumer).into_iter().next().is_none());
}

#[test]
fn consumer_of_tasks_becomes_ready() {
    let _dog = watchdog();
    let (producer, consumer) = tasks(4).unwrap();
    let is_ready = |timeout| {
        let ready = multiproc::pipe::wait(&[&consumer], Some(timeout)).unwrap();
        !ready.is_empty()
    };
    assert!(!is_ready(Duration::from_millis(10)));
    producer.put(1).unwrap();
    assert!(is_ready(Duration::from_secs(10)));
    consumer.get().unwrap().task_done();
    drop(producer);
    assert!(is_ready(Duration::from_secs(10)));
    assert_eq!(consumer.get().unwrap_err(), GetError::Disconnected);
}
